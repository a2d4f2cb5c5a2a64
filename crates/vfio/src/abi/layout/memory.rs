//! MAP_DMA and UNMAP_DMA.

use palisade_units::layout;
use zerocopy::little_endian::{U32, U64};

/// MAP_DMA: functions may read.
pub const MAP_READ: u32 = 1;
/// MAP_DMA: functions may write, too.
pub const MAP_WRITE: u32 = 2;

layout! {
    /// MAP_DMA. The file comes beside it.
    MapDma, 32, {
        /// The size.
        argsz: U32 = 0,
        /// [`MAP_READ`], or both.
        flags: U32 = 4,
        /// Where the memory starts in the file: a multiple of 4 KiB.
        vaddr: U64 = 8,
        /// The guest physical address where it starts: a multiple of 4 KiB.
        iova: U64 = 16,
        /// Its length in bytes: a multiple of 4 KiB.
        size: U64 = 24,
    }
}

/// UNMAP_DMA: all memory; address and length are zero.
pub const UNMAP_ALL: u32 = 2;

layout! {
    /// UNMAP_DMA.
    UnmapDma, 24, {
        /// The size.
        argsz: U32 = 0,
        /// [`UNMAP_ALL`] or nothing.
        flags: U32 = 4,
        /// Where the memory starts.
        iova: U64 = 8,
        /// Its length in bytes; written back: how much was unmapped.
        size: U64 = 16,
    }
}
