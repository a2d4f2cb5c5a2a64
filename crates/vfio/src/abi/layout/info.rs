//! GET_INFO and its capabilities.

use palisade_units::layout;
use zerocopy::little_endian::{U16, U32, U64};

/// GET_INFO: `iova_pgsizes` is valid.
pub const INFO_PAGE_SIZES: u32 = 1;
/// GET_INFO: there are capabilities.
pub const INFO_CAPABILITIES: u32 = 2;

layout! {
    /// GET_INFO.
    Info, 24, {
        /// The size; written back: the size with all capabilities.
        argsz: U32 = 0,
        /// Written back: `INFO_PAGE_SIZES` and the one after it.
        flags: U32 = 4,
        /// Written back: the sizes of pages that memory may be mapped in, or'ed together.
        iova_pgsizes: U64 = 8,
        /// Written back: where the first capability stands, or 0 where the argument has no room for them.
        cap_offset: U32 = 16,
        /// Zero.
        padding: U32 = 20,
    }
}

/// The capability of version 1.
pub const CAPABILITY_V1: u16 = 2;
/// The capability of version 7.
pub const CAPABILITY_V7: u16 = 3;
/// The version of either.
pub const CAPABILITY_VERSION: u16 = 1;
/// Version 1, nesting capabilities: PASIDs may be asked for.
pub const V1_PASID_REQUESTS: u32 = 1;
/// Version 1, formats of first stages: VT-d.
pub const V1_STAGE1_VTD: u32 = 1;

layout! {
    /// The capability of version 1.
    NestingCapabilityV1, 16, {
        /// [`CAPABILITY_V1`].
        id: U16 = 0,
        /// [`CAPABILITY_VERSION`].
        version: U16 = 2,
        /// Where the next one stands; 0 after the last.
        next: U32 = 4,
        /// [`V1_PASID_REQUESTS`] or nothing.
        nesting_capabilities: U32 = 8,
        /// [`V1_STAGE1_VTD`] or nothing.
        stage1_formats: U32 = 12,
    }
}

/// Version 7, features: PASIDs are of the whole system and have to be asked for.
pub const FEATURE_SYSTEM_WIDE_PASID: u32 = 1;
/// Version 7, features: page tables may be bound.
pub const FEATURE_BIND: u32 = 2;
/// Version 7, features: caches may be invalidated.
pub const FEATURE_INVALIDATE: u32 = 4;

layout! {
    /// The capability of version 7.
    NestingCapabilityV7, 56, {
        /// [`CAPABILITY_V7`].
        id: U16 = 0,
        /// [`CAPABILITY_VERSION`].
        version: U16 = 2,
        /// Where the next one stands; 0 after the last.
        next: U32 = 4,
        /// The size from this field on: 48.
        size: U32 = 8,
        /// `FORMAT_VTD`; 0 where the units differ.
        format: U32 = 12,
        /// `FEATURE_SYSTEM_WIDE_PASID` and those after it.
        features: U32 = 16,
        /// Zero.
        flags: U32 = 20,
        /// How many bits of an address a first stage translates.
        addr_width: U16 = 24,
        /// How many bits a PASID has.
        pasid_bits: U16 = 26,
        /// Zero.
        padding: U32 = 28,
        /// Zero.
        vtd_flags: U32 = 32,
        /// Zero.
        vtd_padding: U32 = 36,
        /// CAP_REG (VT-d §11.4.2).
        vtd_cap: U64 = 40,
        /// ECAP_REG (VT-d §11.4.3).
        vtd_ecap: U64 = 48,
    }
}
