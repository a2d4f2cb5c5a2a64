//! The context table of legacy mode (VT-d §9.3).

use bitfield_struct::bitfield;
use palisade_units::{Bdf, Gpa};

use super::{DomainId, context::AddressWidth, page_address, page_number};

/// TT: how a legacy context entry translates (VT-d §9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegacyTranslation {
    /// 00b: by the second stage.
    SecondStage,
    /// 01b: by the second stage; device TLBs allowed.
    SecondStageWithDeviceTlb,
    /// 10b: not at all.
    PassThrough,
    /// 11b.
    Reserved,
}

impl LegacyTranslation {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::SecondStage,
            1 => Self::SecondStageWithDeviceTlb,
            2 => Self::PassThrough,
            _ => Self::Reserved,
        }
    }

    const fn into_bits(self) -> u8 {
        match self {
            Self::SecondStage => 0,
            Self::SecondStageWithDeviceTlb => 1,
            Self::PassThrough => 2,
            Self::Reserved => 3,
        }
    }
}

#[bitfield(u64)]
#[derive(PartialEq, Eq)]
struct LegacyLow {
    present: bool,
    fault_processing_disable: bool,
    #[bits(2)]
    translation: LegacyTranslation,
    #[bits(8, access = RO)]
    reserved_low: u8,
    #[bits(40)]
    page: u64,
    #[bits(12, access = RO)]
    reserved_high: u16,
}

#[bitfield(u64)]
#[derive(PartialEq, Eq)]
struct LegacyHigh {
    #[bits(3)]
    width: AddressWidth,
    #[bits(4)]
    ignored: u8,
    #[bits(1, access = RO)]
    reserved_low: u8,
    domain: u16,
    #[bits(40, access = RO)]
    reserved_high: u64,
}

/// An entry of a legacy context table, of one function (VT-d §9.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LegacyContextEntry {
    low: LegacyLow,
    high: LegacyHigh,
}

impl LegacyContextEntry {
    /// The size in bytes. A table has 256.
    pub const BYTES: u64 = 16;

    /// A present entry.
    #[must_use]
    pub const fn new(
        translation: LegacyTranslation,
        root: Gpa,
        width: AddressWidth,
        domain: DomainId,
    ) -> Self {
        Self {
            low: LegacyLow::new()
                .with_present(true)
                .with_translation(translation)
                .with_page(page_number(root)),
            high: LegacyHigh::new()
                .with_width(width)
                .with_domain(domain.get()),
        }
    }

    /// Where the entry of a function stands, from the start of its context table, in bytes.
    #[must_use]
    pub fn offset_of(function: Bdf) -> u64 {
        u64::from(function.devfn()) * Self::BYTES
    }

    /// From the words as they stand in memory.
    #[must_use]
    pub const fn from_words(words: [u64; 2]) -> Self {
        let [low, high] = words;
        Self {
            low: LegacyLow::from_bits(low),
            high: LegacyHigh::from_bits(high),
        }
    }

    /// The words as they stand in memory.
    #[must_use]
    pub const fn to_words(self) -> [u64; 2] {
        [self.low.into_bits(), self.high.into_bits()]
    }

    /// P.
    #[must_use]
    pub const fn present(self) -> bool {
        self.low.present()
    }

    /// FPD.
    #[must_use]
    pub const fn fault_processing_disabled(self) -> bool {
        self.low.fault_processing_disable()
    }

    /// TT.
    #[must_use]
    pub const fn translation(self) -> LegacyTranslation {
        self.low.translation()
    }

    /// SSPTPTR.
    #[must_use]
    pub const fn root(self) -> Gpa {
        page_address(self.low.page())
    }

    /// AW.
    #[must_use]
    pub const fn width(self) -> AddressWidth {
        self.high.width()
    }

    /// DID.
    #[must_use]
    pub const fn domain(self) -> DomainId {
        DomainId::new(self.high.domain())
    }

    /// Whether every reserved bit is zero.
    #[must_use]
    pub const fn reserved_is_zero(self) -> bool {
        self.low.reserved_low() == 0
            && self.low.reserved_high() == 0
            && self.high.reserved_low() == 0
            && self.high.reserved_high() == 0
    }
}

const _: () = assert!(size_of::<LegacyContextEntry>() as u64 == LegacyContextEntry::BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_legacy_context_entry_is_its_bits() {
        let entry = LegacyContextEntry::new(
            LegacyTranslation::SecondStageWithDeviceTlb,
            Gpa::new(0x7_7000),
            AddressWidth::FourLevel,
            DomainId::new(0xbeef),
        );
        assert_eq!(entry.to_words(), [0x7_7005, 0xbe_ef02]);
        assert_eq!(entry.domain(), DomainId::new(0xbeef));
        assert!(entry.reserved_is_zero());
    }
}
