//! PASID_REQUEST.

use palisade_units::layout;
use zerocopy::little_endian::U32;

/// PASID_REQUEST: take one.
pub const PASID_ALLOCATE: u32 = 1;
/// PASID_REQUEST: free.
pub const PASID_FREE: u32 = 2;

layout! {
    /// PASID_REQUEST of version 1, to take one.
    PasidAllocateV1, 20, {
        /// The size.
        argsz: U32 = 0,
        /// [`PASID_ALLOCATE`].
        flags: U32 = 4,
        /// The lowest number that is wanted.
        min: U32 = 8,
        /// The highest.
        max: U32 = 12,
        /// Written back: the number.
        result: U32 = 16,
    }
}

layout! {
    /// PASID_REQUEST of version 1, to free one.
    PasidFreeV1, 12, {
        /// The size.
        argsz: U32 = 0,
        /// [`PASID_FREE`].
        flags: U32 = 4,
        /// The number.
        free_pasid: U32 = 8,
    }
}

layout! {
    /// PASID_REQUEST of version 7. What is taken is the value of the call; what is freed is the range.
    PasidRequestV7, 16, {
        /// The size.
        argsz: U32 = 0,
        /// [`PASID_ALLOCATE`] or [`PASID_FREE`].
        flags: U32 = 4,
        /// The lowest number.
        min: U32 = 8,
        /// The highest.
        max: U32 = 12,
    }
}
