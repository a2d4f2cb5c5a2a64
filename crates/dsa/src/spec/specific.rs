//! The bytes of a descriptor whose meaning depends on its operation (DSA §8.3).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{DifBlock, DifDestination, DifFlags, DifSource, DifTags};

/// The size of an entry of a delta record: where, in words of eight bytes from the start, in two bytes; and
/// the eight bytes that stand there.
pub const DELTA_ENTRY_BYTES: u32 = 10;

/// What came of the creation of a delta record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeltaResult(pub u8);

impl DeltaResult {
    /// There is no difference.
    pub const EQUAL: Self = Self(0);
    /// All differences are in the record.
    pub const COMPLETE: Self = Self(1);
    /// The record has no room for all.
    pub const OVERFLOWED: Self = Self(2);

    /// Its bit in [`CreateDelta::expected`].
    #[must_use]
    pub const fn mask(self) -> u8 {
        1 << (self.0 & 7)
    }
}

/// What the creation of a delta record takes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct CreateDelta {
    /// Where the record goes.
    pub record: u64,
    /// How large it may become: a multiple of 10, 80 at least.
    pub max_bytes: u32,
    /// Zero.
    pub reserved: u32,
    /// With [`Flags::CHECK_RESULT`](super::Flags::CHECK_RESULT): the results that are expected, a bit for each.
    pub expected: u8,
    /// Zero.
    pub reserved_2: [u8; 7],
}

/// What a CRC operation takes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct CrcSeed {
    /// The CRC of what came before; 0 for nothing.
    pub seed: u32,
    /// Zero.
    pub reserved: u32,
    /// With [`Flags::READ_CRC_SEED`](super::Flags::READ_CRC_SEED): where the seed is, instead.
    pub address: u64,
    /// Zero.
    pub reserved_2: u64,
}

/// What a DIF operation takes. A check and a strip have no destination's tags, an insert none of a source.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct DifFields {
    /// [`DifSource`].
    pub source_flags: u8,
    /// [`DifDestination`].
    pub destination_flags: u8,
    /// [`DifFlags`] and [`DifBlock`].
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 5],
    /// The tags of the source's first block.
    pub source: DifTags,
    /// The tags of the destination's first block.
    pub destination: DifTags,
}

impl DifFields {
    /// Blocks of this size, everything of them checked and computed, with tags of 0.
    #[must_use]
    pub const fn of(block: DifBlock) -> Self {
        Self {
            source_flags: 0,
            destination_flags: 0,
            flags: block.number(),
            reserved: [0; 5],
            source: DifTags::ZERO,
            destination: DifTags::ZERO,
        }
    }

    /// The size of blocks.
    #[must_use]
    pub const fn block(&self) -> DifBlock {
        DifBlock::of_number(self.flags)
    }

    /// How guards are computed.
    #[must_use]
    pub const fn guards(&self) -> DifFlags {
        DifFlags::from_bits_truncate(self.flags)
    }

    /// How the source's fields are checked.
    #[must_use]
    pub const fn source_rules(&self) -> DifSource {
        DifSource::from_bits_retain(self.source_flags)
    }

    /// How the destination's fields come about.
    #[must_use]
    pub const fn destination_rules(&self) -> DifDestination {
        DifDestination::from_bits_retain(self.destination_flags)
    }
}

const _: () = assert!(size_of::<CreateDelta>() == 24);
const _: () = assert!(size_of::<CrcSeed>() == 24);
const _: () = assert!(size_of::<DifFields>() == 24);
