//! Data integrity fields: eight bytes behind each block of data (T10 DIF; DSA §8.3).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The size of blocks, without their fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DifBlock {
    /// 512 bytes.
    Of512,
    /// 520 bytes.
    Of520,
    /// 4096 bytes.
    Of4096,
    /// 4104 bytes.
    Of4104,
}

impl DifBlock {
    /// All sizes.
    pub const ALL: [Self; 4] = [Self::Of512, Self::Of520, Self::Of4096, Self::Of4104];

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        match self {
            Self::Of512 => 512,
            Self::Of520 => 520,
            Self::Of4096 => 4096,
            Self::Of4104 => 4104,
        }
    }

    /// The size in bytes together with the field.
    #[must_use]
    pub const fn bytes_with_field(self) -> u32 {
        self.bytes() + Dif::BYTES
    }

    /// Bits 1:0 of the DIF flags.
    pub(crate) const fn number(self) -> u8 {
        self as u8
    }

    pub(crate) const fn of_number(number: u8) -> Self {
        match number & 3 {
            0 => Self::Of512,
            1 => Self::Of520,
            2 => Self::Of4096,
            _ => Self::Of4104,
        }
    }
}

bitflags::bitflags! {
    /// How guards are computed: bits 3:2 of the DIF flags.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct DifFlags: u8 {
        /// The CRC starts from all ones, not from 0.
        const INVERT_SEED = 0x04;
        /// The guard is the CRC's complement.
        const INVERT_RESULT = 0x08;
    }

    /// How the source's fields are checked.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct DifSource: u8 {
        /// A field of all ones is an error, where [`DifSource::ALL_ONES`] looks for it.
        const ALL_ONES_IS_ERROR = 0x01;
        /// A field of all ones turns the checks of its block off.
        const ALL_ONES = 0x02;
        /// An application tag of all ones turns the checks of its block off.
        const APPLICATION_ONES = 0x04;
        /// An application and a reference tag of all ones turn the checks of their block off.
        const TAGS_ONES = 0x08;
        /// The application tag increases with each block, instead of being the same for all.
        const APPLICATION_INCREASES = 0x10;
        /// Guards are not checked.
        const IGNORE_GUARD = 0x20;
        /// Reference tags are not checked.
        const IGNORE_REFERENCE = 0x40;
        /// The reference tag is the same for all blocks, instead of increasing with each.
        const REFERENCE_FIXED = 0x80;
    }

    /// How the destination's fields come about. What is passed on comes from the source's field: only an update has
    /// one.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct DifDestination: u8 {
        /// The application tag is passed on.
        const PASS_APPLICATION = 0x08;
        /// The application tag increases with each block, instead of being the same for all.
        const APPLICATION_INCREASES = 0x10;
        /// The guard is passed on.
        const PASS_GUARD = 0x20;
        /// The reference tag is passed on.
        const PASS_REFERENCE = 0x40;
        /// The reference tag is the same for all blocks, instead of increasing with each.
        const REFERENCE_FIXED = 0x80;
    }

    /// In what a block and its field do not agree: the result of a check that failed.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct DifMismatch: u8 {
        /// The guard is not the data's CRC.
        const GUARD = 0x01;
        /// The application tag is another.
        const APPLICATION = 0x02;
        /// The reference tag is another.
        const REFERENCE = 0x04;
        /// The field is all ones, and that is an error.
        const ALL_ONES = 0x08;
    }
}

/// Tags, as descriptors and records have them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct DifTags {
    /// The reference tag.
    pub reference: u32,
    /// Which bits of the application tag do not count: none of them is checked, and all are written as 0.
    pub application_mask: u16,
    /// The application tag.
    pub application: u16,
}

impl DifTags {
    /// All zero.
    pub const ZERO: Self = Self {
        reference: 0,
        application_mask: 0,
        application: 0,
    };
}

/// A data integrity field. It stands in memory with its highest bytes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dif {
    /// CRC-16/T10-DIF of the block.
    pub guard: u16,
    /// The application tag.
    pub application: u16,
    /// The reference tag.
    pub reference: u32,
}

impl Dif {
    /// Its size in memory.
    pub const BYTES: u32 = 8;

    /// As it stands in memory.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        let [a, b] = self.guard.to_be_bytes();
        let [c, d] = self.application.to_be_bytes();
        let [e, f, g, h] = self.reference.to_be_bytes();
        [a, b, c, d, e, f, g, h]
    }

    /// From memory.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        let [a, b, c, d, e, f, g, h] = bytes;
        Self {
            guard: u16::from_be_bytes([a, b]),
            application: u16::from_be_bytes([c, d]),
            reference: u32::from_be_bytes([e, f, g, h]),
        }
    }
}

const _: () = assert!(size_of::<DifTags>() == 8);
