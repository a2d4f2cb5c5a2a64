//! The context table of scalable mode (VT-d §9.4).

use bitfield_struct::bitfield;
use palisade_units::{Bdf, Gpa, GuestPasid, PASID_BITS};

use super::{page_address, page_number, words_to_bytes};

/// AW: the width of a second stage (VT-d §9.3, §9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressWidth {
    /// 001b: 39 bits, three levels.
    ThreeLevel,
    /// 010b: 48 bits, four levels.
    FourLevel,
    /// 011b: 57 bits, five levels.
    FiveLevel,
    /// A reserved value.
    Reserved(u8),
}

impl AddressWidth {
    pub(super) const fn from_bits(bits: u8) -> Self {
        match bits {
            1 => Self::ThreeLevel,
            2 => Self::FourLevel,
            3 => Self::FiveLevel,
            other => Self::Reserved(other),
        }
    }

    pub(super) const fn into_bits(self) -> u8 {
        match self {
            Self::ThreeLevel => 1,
            Self::FourLevel => 2,
            Self::FiveLevel => 3,
            Self::Reserved(other) => other,
        }
    }

    /// The address bits; 0 for a reserved value.
    #[must_use]
    pub const fn address_bits(self) -> u32 {
        match self {
            Self::ThreeLevel => 39,
            Self::FourLevel => 48,
            Self::FiveLevel => 57,
            Self::Reserved(_) => 0,
        }
    }
}

/// The first word of a scalable-mode context entry (VT-d §9.4).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
struct ContextLow {
    present: bool,
    fault_processing_disable: bool,
    device_tlb_enable: bool,
    pasid_enable: bool,
    page_request_enable: bool,
    /// HPTE and EPTR, which the unit does not offer, and two reserved bits.
    #[bits(4, access = RO)]
    reserved_low: u8,
    #[bits(3)]
    directory_size: u8,
    #[bits(40)]
    directory_page: u64,
    #[bits(12, access = RO)]
    reserved_high: u16,
}

/// The second word of a scalable-mode context entry (VT-d §9.4).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
struct ContextHigh {
    #[bits(20)]
    rid_pasid: u32,
    /// RID_PRIV, which the unit does not offer, among them.
    #[bits(44, access = RO)]
    reserved: u64,
}

bitflags::bitflags! {
    /// The switches of a scalable-mode context entry (VT-d §9.4).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ContextFlags: u8 {
        /// FPD: qualified faults of this function are not reported.
        const FAULT_PROCESSING_DISABLE = 1 << 1;
        /// DTE: the function may have a device TLB.
        const DEVICE_TLB = 1 << 2;
        /// PASIDE: requests with a PASID are translated.
        const PASID = 1 << 3;
        /// PRE: the function may ask for pages.
        const PAGE_REQUESTS = 1 << 4;
    }
}

/// PDTS: the size of a PASID directory (VT-d §9.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectorySize(u8);

impl DirectorySize {
    /// The size that holds every PASID: 2^14 entries.
    pub const ALL_PASIDS: Self = Self(7);

    /// A directory of 2^(order + 7) entries; `None` from 8 on.
    #[must_use]
    pub const fn new(order: u8) -> Option<Self> {
        if order < 8 { Some(Self(order)) } else { None }
    }

    /// How many entries there are: 128 to 16384.
    #[must_use]
    pub const fn entries(self) -> u32 {
        1 << (self.0 + 7)
    }

    /// How many PASIDs those entries reach.
    #[must_use]
    pub const fn pasids(self) -> u32 {
        self.entries() << super::pasid_table::PASIDS_OF_TABLE_BITS
    }

    /// Whether the directory reaches a PASID.
    #[must_use]
    pub const fn reaches(self, pasid: GuestPasid) -> bool {
        pasid.get() < self.pasids()
    }
}

/// An entry of a scalable-mode context table, of one function (VT-d §9.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContextEntry {
    low: ContextLow,
    high: ContextHigh,
    reserved: [u64; 2],
}

impl ContextEntry {
    /// The size in bytes. A table has 128.
    pub const BYTES: u64 = 32;

    /// A present entry.
    #[must_use]
    pub const fn new(
        directory: Gpa,
        size: DirectorySize,
        rid_pasid: GuestPasid,
        flags: ContextFlags,
    ) -> Self {
        let low = ContextLow::new()
            .with_present(true)
            .with_directory_size(size.0)
            .with_directory_page(page_number(directory));
        Self {
            low: ContextLow::from_bits(low.into_bits() | flags.bits() as u64),
            high: ContextHigh::new().with_rid_pasid(rid_pasid.get()),
            reserved: [0; 2],
        }
    }

    /// Where the entry of a function stands, from the start of its context table, in bytes.
    #[must_use]
    pub fn offset_of(function: Bdf) -> u64 {
        u64::from(function.devfn() & 0x7f) * Self::BYTES
    }

    /// From the words as they stand in memory.
    #[must_use]
    pub const fn from_words(words: [u64; 4]) -> Self {
        let [low, high, third, fourth] = words;
        Self {
            low: ContextLow::from_bits(low),
            high: ContextHigh::from_bits(high),
            reserved: [third, fourth],
        }
    }

    /// The words as they stand in memory.
    #[must_use]
    pub const fn to_words(self) -> [u64; 4] {
        let [third, fourth] = self.reserved;
        [self.low.into_bits(), self.high.into_bits(), third, fourth]
    }

    /// The bytes as they stand in memory.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        words_to_bytes!(self.to_words(), 4)
    }

    /// P.
    #[must_use]
    pub const fn present(self) -> bool {
        self.low.present()
    }

    /// FPD, DTE, PASIDE and PRE.
    #[must_use]
    pub const fn flags(self) -> ContextFlags {
        ContextFlags::from_bits_truncate(self.low.into_bits().to_le_bytes()[0])
    }

    /// PDTS.
    #[must_use]
    pub const fn directory_size(self) -> DirectorySize {
        DirectorySize(self.low.directory_size())
    }

    /// PASIDDIRPTR.
    #[must_use]
    pub const fn directory(self) -> Gpa {
        page_address(self.low.directory_page())
    }

    /// RID_PASID: the PASID by which requests without one are translated.
    #[must_use]
    pub const fn rid_pasid(self) -> GuestPasid {
        match GuestPasid::new(self.high.rid_pasid()) {
            Ok(pasid) => pasid,
            // The field has the 20 bits of a PASID; this is its zero.
            Err(_) => GUEST_PASID_ZERO,
        }
    }

    /// Whether every reserved bit is zero.
    #[must_use]
    pub const fn reserved_is_zero(self) -> bool {
        self.low.reserved_low() == 0
            && self.low.reserved_high() == 0
            && self.high.reserved() == 0
            && self.reserved[0] == 0
            && self.reserved[1] == 0
    }
}

/// The PASID that Linux uses for requests without one.
pub const GUEST_PASID_ZERO: GuestPasid = match GuestPasid::new(0) {
    Ok(pasid) => pasid,
    Err(_) => unreachable!(),
};

const _: () = {
    assert!(size_of::<ContextEntry>() as u64 == ContextEntry::BYTES);
    assert!(DirectorySize::ALL_PASIDS.pasids() == 1 << PASID_BITS);
};

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTION: Bdf = Bdf::new(3, 0x11, 2);

    #[test]
    fn a_context_entry_is_its_bits() {
        let entry = ContextEntry::new(
            Gpa::new(0x9_a000),
            DirectorySize::ALL_PASIDS,
            GuestPasid::new(0x12345).unwrap(),
            ContextFlags::DEVICE_TLB | ContextFlags::PASID | ContextFlags::PAGE_REQUESTS,
        );
        assert_eq!(entry.to_words(), [0x9_ae1d, 0x1_2345, 0, 0]);
        assert_eq!(ContextEntry::offset_of(FUNCTION), 0x0a * 32);
        assert_eq!(ContextEntry::from_words(entry.to_words()), entry);
        assert!(entry.reserved_is_zero());
        assert_eq!(entry.rid_pasid().get(), 0x1_2345);
        assert_eq!(entry.directory(), Gpa::new(0x9_a000));
    }

    #[test]
    fn reserved_bits_of_a_context_entry_are_seen() {
        for (word, bit) in [(0, 5), (0, 8), (0, 52), (1, 20), (1, 63), (2, 0), (3, 63)] {
            let mut words = [1, 0, 0, 0];
            words[word] |= 1 << bit;
            let entry = ContextEntry::from_words(words);
            assert!(!entry.reserved_is_zero(), "word {word} bit {bit}");
        }
    }

    #[test]
    fn a_directory_reaches_what_its_size_says() {
        let smallest = DirectorySize::new(0).unwrap();
        assert_eq!(smallest.entries(), 128);
        assert!(smallest.reaches(GuestPasid::new(8191).unwrap()));
        assert!(!smallest.reaches(GuestPasid::new(8192).unwrap()));
        assert_eq!(DirectorySize::new(8), None);
    }
}
