//! IOMMU_DESTROY, and the requests for an IOAS.

use palisade_units::layout;
use zerocopy::little_endian::{U32, U64};

layout! {
    /// IOMMU_DESTROY.
    Destroy, 8, {
        /// The size.
        size: U32 = 0,
        /// The id.
        id: U32 = 4,
    }
}

layout! {
    /// IOMMU_IOAS_ALLOC.
    IoasAlloc, 12, {
        /// The size.
        size: U32 = 0,
        /// Zero.
        flags: U32 = 4,
        /// Written back: the id of the IOAS.
        out_ioas_id: U32 = 8,
    }
}

layout! {
    /// IOMMU_IOAS_IOVA_RANGES.
    IoasIovaRanges, 32, {
        /// The size.
        size: U32 = 0,
        /// The id of the IOAS.
        ioas_id: U32 = 4,
        /// How many ranges there is room for; written back: how many there are, also with an errno.
        num_iovas: U32 = 8,
        /// Zero.
        reserved: U32 = 12,
        /// Where the ranges are to stand in the answer.
        allowed_iovas: U64 = 16,
        /// Written back: what the ends of a map are a multiple of.
        out_iova_alignment: U64 = 24,
    }
}

layout! {
    /// A range of addresses, both ends included.
    IovaRange, 16, {
        /// The first address.
        start: U64 = 0,
        /// The last.
        last: U64 = 8,
    }
}

/// IOMMU_IOAS_MAP_FILE: the address is the one that is given.
pub const IOAS_MAP_FIXED_IOVA: u32 = 1;
/// IOMMU_IOAS_MAP_FILE: devices may write.
pub const IOAS_MAP_WRITEABLE: u32 = 2;
/// IOMMU_IOAS_MAP_FILE: devices may read.
pub const IOAS_MAP_READABLE: u32 = 4;

layout! {
    /// IOMMU_IOAS_MAP_FILE. The file comes beside it.
    IoasMapFile, 40, {
        /// The size.
        size: U32 = 0,
        /// [`IOAS_MAP_FIXED_IOVA`] and `IOAS_MAP_READABLE`, with or without `IOAS_MAP_WRITEABLE`.
        flags: U32 = 4,
        /// The id of the IOAS.
        ioas_id: U32 = 8,
        /// Zero: the place of the file among the message's descriptors.
        fd: U32 = 12,
        /// Where the memory starts in the file: a multiple of 4 KiB.
        start: U64 = 16,
        /// Its length in bytes: a multiple of 4 KiB.
        length: U64 = 24,
        /// The address where it starts: a multiple of 4 KiB.
        iova: U64 = 32,
    }
}

layout! {
    /// IOMMU_IOAS_UNMAP.
    IoasUnmap, 24, {
        /// The size.
        size: U32 = 0,
        /// The id of the IOAS.
        ioas_id: U32 = 4,
        /// Where the memory starts.
        iova: U64 = 8,
        /// Its length in bytes; written back: how much was unmapped. From 0 with all bits set it is everything.
        length: U64 = 16,
    }
}
