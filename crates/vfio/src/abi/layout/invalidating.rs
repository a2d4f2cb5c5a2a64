//! CACHE_INVALIDATE.

use palisade_units::layout;
use zerocopy::little_endian::{U32, U64};

/// The version of the invalidation data, in version 1.
pub const INVALIDATE_VERSION: u32 = 1;
/// Invalidates translations.
pub const CACHE_IOTLB: u8 = 1;
/// Invalidates translations that devices keep.
pub const CACHE_DEVICE_IOTLB: u8 = 2;
/// Invalidates entries of PASIDs.
pub const CACHE_PASID: u8 = 4;
/// All of a container.
pub const GRANULARITY_DOMAIN: u8 = 0;
/// One PASID.
pub const GRANULARITY_PASID: u8 = 1;
/// A range of addresses.
pub const GRANULARITY_ADDRESS: u8 = 2;

layout! {
    /// What is to be forgotten, after the head of CACHE_INVALIDATE or NESTING_OP; then comes the form that
    /// the granularity says.
    InvalidateData, 8, {
        /// Version 1: [`INVALIDATE_VERSION`]. Version 7: the size of this and what follows, in bytes.
        version_or_argsz: U32 = 0,
        /// `CACHE_IOTLB` and those after it.
        cache: u8 = 4,
        /// `GRANULARITY_DOMAIN` and those after it.
        granularity: u8 = 5,
        /// Zero.
        padding: [u8; 2] = 6,
    }
}

/// Both forms: `pasid` is valid.
pub const INVALIDATE_HAS_PASID: u32 = 1;
/// Both forms: `archid` is valid.
pub const INVALIDATE_HAS_ARCHID: u32 = 2;
/// The address form: nothing but leaves has changed.
pub const INVALIDATE_LEAF: u32 = 4;

layout! {
    /// The form of one PASID.
    InvalidatePasid, 16, {
        /// `INVALIDATE_HAS_PASID` and the one after it.
        flags: U32 = 0,
        /// The id of a domain.
        archid: U32 = 4,
        /// The PASID.
        pasid: U64 = 8,
    }
}

layout! {
    /// The form of a range of addresses.
    InvalidateAddress, 40, {
        /// `INVALIDATE_HAS_PASID` and those after it.
        flags: U32 = 0,
        /// The id of a domain.
        archid: U32 = 4,
        /// The PASID; without one, requests without a PASID are meant.
        pasid: U64 = 8,
        /// Where the range starts: a multiple of `granule_size`.
        addr: U64 = 16,
        /// A power of two, 4 KiB at least.
        granule_size: U64 = 24,
        /// How many of them, one at least.
        nb_granules: U64 = 32,
    }
}
