//! Registers by which software tells the unit what to do: global command and status, root table
//! address, and the register-based invalidation of legacy mode (VT-d §11.4.4 to §11.4.6).

use bitfield_struct::bitfield;
use palisade_units::{Bdf, Gpa};

use super::capability::{MAX_ADDRESS_MASK, WIDEST_SECOND_STAGE};
use super::descriptor::{LeafHint, PageRange, address_mask};
use super::{DomainId, page_address, page_number};

bitflags::bitflags! {
    /// GCMD_REG (VT-d §11.4.4.1). GSTS_REG has the same bits as status (VT-d §11.4.4.2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Command: u32 {
        /// TE: translate.
        const TRANSLATION_ENABLE = 1 << 31;
        /// SRTP: take over the root table address. One shot.
        const SET_ROOT_TABLE = 1 << 30;
        /// WBF: flush write buffers. One shot; this unit has none.
        const WRITE_BUFFER_FLUSH = 1 << 27;
        /// QIE: process the invalidation queue.
        const QUEUED_INVALIDATION_ENABLE = 1 << 26;
        /// IRE: remap interrupts. Not offered.
        const INTERRUPT_REMAPPING_ENABLE = 1 << 25;
        /// SIRTP: take over the interrupt remapping table address. Not offered.
        const SET_INTERRUPT_TABLE = 1 << 24;
        /// CFI: let compatibility format interrupts pass. Not offered.
        const COMPATIBILITY_FORMAT_INTERRUPT = 1 << 23;
    }
}

impl Command {
    /// The bits of the status that a next command repeats: all but the one-shot ones (VT-d §11.4.4.1).
    pub const LASTING: Self = Self::from_bits_truncate(0x96ff_ffff);
}

/// TTM: how requests are translated (VT-d §11.4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TranslationTableMode {
    /// 00b: root and context tables, second stage only.
    Legacy,
    /// 01b: scalable mode.
    Scalable,
    /// 10b: reserved; 11b: abort DMA, which the unit does not offer.
    Unsupported(u8),
}

impl TranslationTableMode {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Legacy,
            1 => Self::Scalable,
            other => Self::Unsupported(other),
        }
    }

    const fn into_bits(self) -> u8 {
        match self {
            Self::Legacy => 0,
            Self::Scalable => 1,
            Self::Unsupported(other) => other,
        }
    }
}

/// RTADDR_REG (VT-d §11.4.5).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct RootTableAddress {
    #[bits(10)]
    __: u16,
    /// TTM.
    #[bits(2)]
    pub mode: TranslationTableMode,
    #[bits(52)]
    page: u64,
}

impl RootTableAddress {
    /// A root table of a mode.
    #[must_use]
    pub const fn at(table: Gpa, mode: TranslationTableMode) -> Self {
        Self::new().with_page(page_number(table)).with_mode(mode)
    }

    /// The address of the root table.
    #[must_use]
    pub const fn table(self) -> Gpa {
        page_address(self.page())
    }
}

/// What of a cache an invalidation names, by the encoding that context-cache and IOTLB requests and
/// their answers share (VT-d §11.4.6.1, §11.4.6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// 00b: reserved in a request, an error in an answer.
    Reserved,
    /// 01b.
    Global,
    /// 10b.
    Domain,
    /// 11b: one device, or pages.
    Selective,
}

impl Granularity {
    pub(super) const fn from_bits(bits: u8) -> Self {
        match bits {
            1 => Self::Global,
            2 => Self::Domain,
            3 => Self::Selective,
            _ => Self::Reserved,
        }
    }

    pub(super) const fn into_bits(self) -> u8 {
        match self {
            Self::Reserved => 0,
            Self::Global => 1,
            Self::Domain => 2,
            Self::Selective => 3,
        }
    }
}

/// CCMD_REG (VT-d §11.4.6.1). Acts in legacy mode only.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ContextCommand {
    domain_bits: u16,
    source_bits: u16,
    /// FM: how many bits of the function number, from the highest on, are masked.
    #[bits(2)]
    pub function_mask: u8,
    #[bits(25)]
    __: u32,
    /// CAIG: what was invalidated.
    #[bits(2)]
    pub actual: Granularity,
    /// CIRG: what shall be invalidated.
    #[bits(2)]
    pub requested: Granularity,
    /// ICC: software sets it to start, the unit clears it when done.
    pub invalidate: bool,
}

impl ContextCommand {
    /// DID.
    #[must_use]
    pub const fn domain(self) -> DomainId {
        DomainId::new(self.domain_bits())
    }

    /// SID.
    #[must_use]
    pub const fn source(self) -> Bdf {
        Bdf::from_requester_id(self.source_bits())
    }
}

/// IOTLB_REG (VT-d §11.4.6.3). Acts in legacy mode only.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct IotlbCommand {
    __: u32,
    domain_bits: u16,
    /// DW: drain writes; this unit always does.
    pub drain_writes: bool,
    /// DR: drain reads; this unit always does.
    pub drain_reads: bool,
    #[bits(7)]
    __: u8,
    /// IAIG: what was invalidated.
    #[bits(2)]
    pub actual: Granularity,
    __: bool,
    /// IIRG: what shall be invalidated.
    #[bits(2)]
    pub requested: Granularity,
    __: bool,
    /// IVT: software sets it to start, the unit clears it when done.
    pub invalidate: bool,
}

impl IotlbCommand {
    /// DID.
    #[must_use]
    pub const fn domain(self) -> DomainId {
        DomainId::new(self.domain_bits())
    }
}

/// IVA_REG (VT-d §11.4.6.4): the pages of a page-selective IOTLB command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidateAddress(u64);

impl InvalidateAddress {
    /// The register with this value.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The register that names these pages.
    #[must_use]
    pub const fn new(range: PageRange, hint: LeafHint) -> Self {
        Self(range.to_masked_word() | hint.to_bit())
    }

    /// The value.
    #[must_use]
    pub const fn into_bits(self) -> u64 {
        self.0
    }

    /// ADDR and AM; `None` for a mask beyond CAP.MAMV. Address bits from MGAW on do not count.
    #[must_use]
    pub fn range(self) -> Option<PageRange> {
        let within = (1 << WIDEST_SECOND_STAGE.address_bits()) - 1;
        (address_mask(self.0) <= MAX_ADDRESS_MASK)
            .then(|| PageRange::from_masked_word(self.0 & within))
    }

    /// IH.
    #[must_use]
    pub const fn hint(self) -> LeafHint {
        LeafHint::from_word(self.0)
    }
}

const _: () = assert!(size_of::<RootTableAddress>() == 8 && size_of::<IotlbCommand>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scalable_root_is_what_linux_writes() {
        let root = RootTableAddress::at(Gpa::new(0x1234_5000), TranslationTableMode::Scalable);
        assert_eq!(root.into_bits(), 0x1234_5400);
        assert_eq!(root.table(), Gpa::new(0x1234_5000));
    }

    #[test]
    fn the_lasting_bits_leave_out_the_one_shot_ones() {
        assert!(!Command::LASTING.contains(Command::SET_ROOT_TABLE));
        assert!(Command::LASTING.contains(Command::TRANSLATION_ENABLE));
        assert!(Command::LASTING.contains(Command::QUEUED_INVALIDATION_ENABLE));
    }
}
