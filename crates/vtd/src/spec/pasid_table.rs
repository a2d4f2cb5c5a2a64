//! PASID directory and PASID table of scalable mode (VT-d §9.5, §9.6).

use bitfield_struct::bitfield;
use palisade_units::{Gpa, GuestPasid};

use super::{DomainId, context::AddressWidth, page_address, page_number, words_to_bytes};

/// A PASID table has 2^6 entries; the bits of a PASID above those index the directory.
pub const PASIDS_OF_TABLE_BITS: u32 = 6;
/// How many entries a PASID table has.
pub const PASIDS_OF_TABLE: u32 = 1 << PASIDS_OF_TABLE_BITS;

/// An entry of a PASID directory (VT-d §9.5).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct DirectoryEntry {
    /// P.
    pub present: bool,
    /// FPD: qualified faults of this table's PASIDs are not reported. Read whether present or not.
    pub fault_processing_disable: bool,
    #[bits(10, access = RO)]
    reserved_low: u16,
    #[bits(40)]
    page: u64,
    #[bits(12, access = RO)]
    reserved_high: u16,
}

impl DirectoryEntry {
    /// The size in bytes.
    pub const BYTES: u64 = 8;

    /// A present entry.
    #[must_use]
    pub const fn to(table: Gpa) -> Self {
        Self::new().with_present(true).with_page(page_number(table))
    }

    /// Where the entry for a PASID stands, from the start of the directory, in bytes.
    #[must_use]
    pub fn offset_of(pasid: GuestPasid) -> u64 {
        u64::from(pasid.get() >> PASIDS_OF_TABLE_BITS) * Self::BYTES
    }

    /// SMPTBLPTR: the address of the PASID table.
    #[must_use]
    pub const fn table(self) -> Gpa {
        page_address(self.page())
    }

    /// Whether every reserved bit is zero.
    #[must_use]
    pub const fn reserved_is_zero(self) -> bool {
        self.reserved_low() == 0 && self.reserved_high() == 0
    }
}

/// PGTT (VT-d §9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TranslationType {
    FirstStage,
    SecondStage,
    Nested,
    PassThrough,
    Reserved(u8),
}

impl TranslationType {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            1 => Self::FirstStage,
            2 => Self::SecondStage,
            3 => Self::Nested,
            4 => Self::PassThrough,
            other => Self::Reserved(other),
        }
    }

    const fn into_bits(self) -> u8 {
        match self {
            Self::FirstStage => 1,
            Self::SecondStage => 2,
            Self::Nested => 3,
            Self::PassThrough => 4,
            Self::Reserved(other) => other,
        }
    }
}

/// FSPM: the levels of a first stage (VT-d §9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PagingMode {
    /// 00b: four levels.
    FourLevel,
    /// 01b: five levels.
    FiveLevel,
    /// A reserved value.
    Reserved(u8),
}

impl PagingMode {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::FourLevel,
            1 => Self::FiveLevel,
            other => Self::Reserved(other),
        }
    }

    const fn into_bits(self) -> u8 {
        match self {
            Self::FourLevel => 0,
            Self::FiveLevel => 1,
            Self::Reserved(other) => other,
        }
    }
}

#[bitfield(u64)]
#[derive(PartialEq, Eq)]
struct Word0 {
    present: bool,
    fault_processing_disable: bool,
    #[bits(3)]
    width: AddressWidth,
    #[bits(1, access = RO)]
    reserved_5: u8,
    #[bits(3)]
    translation: TranslationType,
    second_stage_marks: bool,
    #[bits(2, access = RO)]
    reserved_11_10: u8,
    #[bits(40)]
    second_stage_page: u64,
    #[bits(12, access = RO)]
    reserved_63_52: u16,
}

#[bitfield(u64)]
#[derive(PartialEq, Eq)]
struct Word1 {
    domain: u16,
    #[bits(7, access = RO)]
    reserved_22_16: u8,
    walk_snoops: bool,
    page_snoops: bool,
    /// CD, EMTE and PAT, which the unit does not offer, among them.
    #[bits(39, access = RO)]
    reserved_63_25: u64,
}

#[bitfield(u64)]
#[derive(PartialEq, Eq)]
struct Word2 {
    supervisor_request_enable: bool,
    /// ERE of older revisions, which the unit does not offer.
    #[bits(1, access = RO)]
    reserved_1: u8,
    #[bits(2)]
    paging_mode: PagingMode,
    write_protect_enable: bool,
    /// NXE and SMEP of older revisions.
    #[bits(2)]
    ignored: u8,
    extended_accessed: bool,
    #[bits(4, access = RO)]
    reserved_11_8: u8,
    #[bits(40)]
    first_stage_page: u64,
    #[bits(12, access = RO)]
    reserved_63_52: u16,
}

bitflags::bitflags! {
    /// The switches of a first stage (VT-d §9.6).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct FirstStageFlags: u8 {
        /// SRE: privileged requests are translated.
        const SUPERVISOR_REQUESTS = 1 << 0;
        /// WPE: privileged requests do not write to read-only pages.
        const WRITE_PROTECT = 1 << 4;
        /// EAFE: bit 10 of every entry that is used is set.
        const EXTENDED_ACCESSED = 1 << 7;
    }
}

/// A first stage, as a PASID entry describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstStage {
    /// FSPTPTR: the top table.
    pub root: Gpa,
    /// FSPM.
    pub mode: PagingMode,
    /// SRE, WPE and EAFE.
    pub flags: FirstStageFlags,
}

/// A second stage, as a PASID entry describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecondStage {
    /// SSPTPTR: the top table.
    pub root: Gpa,
    /// AW.
    pub width: AddressWidth,
}

/// How a PASID entry translates (VT-d §9.6: PGTT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translation {
    /// 001b.
    FirstStage(FirstStage),
    /// 010b.
    SecondStage(SecondStage),
    /// 011b.
    Nested(FirstStage, SecondStage),
    /// 100b.
    PassThrough,
    /// A reserved type.
    Reserved,
}

/// An entry of a PASID table (VT-d §9.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PasidEntry {
    word0: Word0,
    word1: Word1,
    word2: Word2,
    reserved: [u64; 5],
}

impl PasidEntry {
    /// The size in bytes. A table has [`PASIDS_OF_TABLE`].
    pub const BYTES: u64 = 64;

    /// SRE, which is of every type of translation.
    #[must_use]
    pub const fn supervisor_requests(self) -> bool {
        self.word2.supervisor_request_enable()
    }

    /// The entry with SRE set, as Linux has it in those of its own second stages.
    #[must_use]
    pub const fn with_supervisor_requests(self) -> Self {
        Self {
            word2: self.word2.with_supervisor_request_enable(true),
            ..self
        }
    }

    /// An entry that translates nothing.
    #[must_use]
    pub const fn not_present() -> Self {
        Self::from_words([0; 8])
    }

    const fn of(translation: TranslationType, domain: DomainId) -> Self {
        let mut entry = Self::not_present();
        entry.word0 = Word0::new()
            .with_present(true)
            .with_translation(translation)
            .with_width(super::capability::WIDEST_SECOND_STAGE);
        entry.word1 = Word1::new()
            .with_domain(domain.get())
            .with_walk_snoops(true);
        entry
    }

    /// A present entry that translates by a first stage, a process's page table.
    #[must_use]
    pub const fn first_stage(
        root: Gpa,
        mode: PagingMode,
        domain: DomainId,
        flags: FirstStageFlags,
    ) -> Self {
        Self::of(TranslationType::FirstStage, domain).with_first_stage(FirstStage {
            root,
            mode,
            flags,
        })
    }

    /// A present entry that translates by a second stage.
    #[must_use]
    pub const fn second_stage(root: Gpa, width: AddressWidth, domain: DomainId) -> Self {
        Self::of(TranslationType::SecondStage, domain)
            .with_second_stage(SecondStage { root, width })
    }

    /// A present entry that translates by a first stage, whose addresses a second stage translates.
    #[must_use]
    pub const fn nested(first: FirstStage, second: SecondStage, domain: DomainId) -> Self {
        Self::of(TranslationType::Nested, domain)
            .with_first_stage(first)
            .with_second_stage(second)
    }

    /// A present entry that translates nothing and lets everything pass.
    #[must_use]
    pub const fn pass_through(domain: DomainId) -> Self {
        Self::of(TranslationType::PassThrough, domain)
    }

    const fn with_first_stage(mut self, first: FirstStage) -> Self {
        let word = Word2::new()
            .with_first_stage_page(page_number(first.root))
            .with_paging_mode(first.mode);
        self.word2 = Word2::from_bits(word.into_bits() | first.flags.bits() as u64);
        self
    }

    const fn with_second_stage(mut self, second: SecondStage) -> Self {
        self.word0 = self
            .word0
            .with_second_stage_page(page_number(second.root))
            .with_width(second.width);
        self
    }

    /// The same entry with FPD set, which counts whether present or not.
    #[must_use]
    pub const fn with_fault_processing_disabled(mut self) -> Self {
        self.word0 = self.word0.with_fault_processing_disable(true);
        self
    }

    /// The same entry with SSADE set: the second stage is marked where it is used and written through.
    #[must_use]
    pub const fn with_second_stage_marks(mut self) -> Self {
        self.word0 = self.word0.with_second_stage_marks(true);
        self
    }

    /// The same entry with PWSNP clear: its tables are walked without snooping.
    #[must_use]
    pub const fn without_walk_snoops(mut self) -> Self {
        self.word1 = self.word1.with_walk_snoops(false);
        self
    }

    /// Where the entry of a PASID stands, from the start of its table, in bytes.
    #[must_use]
    pub fn offset_of(pasid: GuestPasid) -> u64 {
        u64::from(pasid.get() % PASIDS_OF_TABLE) * Self::BYTES
    }

    /// From the words as they stand in memory.
    #[must_use]
    pub const fn from_words(words: [u64; 8]) -> Self {
        let [word0, word1, word2, a, b, c, d, e] = words;
        Self {
            word0: Word0::from_bits(word0),
            word1: Word1::from_bits(word1),
            word2: Word2::from_bits(word2),
            reserved: [a, b, c, d, e],
        }
    }

    /// The words as they stand in memory. Software writes the first one last, for it makes the entry
    /// present.
    #[must_use]
    pub const fn to_words(self) -> [u64; 8] {
        let [a, b, c, d, e] = self.reserved;
        [
            self.word0.into_bits(),
            self.word1.into_bits(),
            self.word2.into_bits(),
            a,
            b,
            c,
            d,
            e,
        ]
    }

    /// The bytes as they stand in memory.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 64] {
        words_to_bytes!(self.to_words(), 8)
    }

    /// P.
    #[must_use]
    pub const fn present(self) -> bool {
        self.word0.present()
    }

    /// FPD.
    #[must_use]
    pub const fn fault_processing_disabled(self) -> bool {
        self.word0.fault_processing_disable()
    }

    /// DID.
    #[must_use]
    pub const fn domain(self) -> DomainId {
        DomainId::new(self.word1.domain())
    }

    /// SSADE.
    #[must_use]
    pub const fn second_stage_marks(self) -> bool {
        self.word0.second_stage_marks()
    }

    /// PWSNP.
    #[must_use]
    pub const fn walk_snoops(self) -> bool {
        self.word1.walk_snoops()
    }

    /// PGTT with what belongs to it.
    #[must_use]
    pub const fn translation(self) -> Translation {
        let first = FirstStage {
            root: page_address(self.word2.first_stage_page()),
            mode: self.word2.paging_mode(),
            flags: FirstStageFlags::from_bits_truncate(self.word2.into_bits().to_le_bytes()[0]),
        };
        let second = SecondStage {
            root: page_address(self.word0.second_stage_page()),
            width: self.word0.width(),
        };
        match self.word0.translation() {
            TranslationType::FirstStage => Translation::FirstStage(first),
            TranslationType::SecondStage => Translation::SecondStage(second),
            TranslationType::Nested => Translation::Nested(first, second),
            TranslationType::PassThrough => Translation::PassThrough,
            TranslationType::Reserved(_) => Translation::Reserved,
        }
    }

    /// Whether every reserved bit is zero, those of features that the unit does not offer among them.
    #[must_use]
    pub fn reserved_is_zero(self) -> bool {
        self.word0.reserved_5() == 0
            && self.word0.reserved_11_10() == 0
            && self.word0.reserved_63_52() == 0
            && self.word1.reserved_22_16() == 0
            && self.word1.reserved_63_25() == 0
            && self.word2.reserved_1() == 0
            && self.word2.reserved_11_8() == 0
            && self.word2.reserved_63_52() == 0
            && self.reserved == [0; 5]
    }
}

const _: () = {
    assert!(size_of::<DirectoryEntry>() as u64 == DirectoryEntry::BYTES);
    assert!(size_of::<PasidEntry>() as u64 == PasidEntry::BYTES);
    assert!(PasidEntry::BYTES * PASIDS_OF_TABLE as u64 == palisade_units::PAGE_BYTES);
};

#[cfg(test)]
mod tests;
