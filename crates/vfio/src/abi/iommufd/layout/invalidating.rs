//! IOMMU_HWPT_INVALIDATE.

use palisade_units::layout;
use zerocopy::little_endian::{U32, U64};

/// The entries are of [`VtdStage1Invalidate`].
pub const INVALIDATE_DATA_VTD_S1: u32 = 0;
/// Nothing but leaves of the table has changed.
pub const VTD_INV_LEAF: u32 = 1;

layout! {
    /// IOMMU_HWPT_INVALIDATE.
    HwptInvalidate, 32, {
        /// The size.
        size: U32 = 0,
        /// The id of a nested HWPT, or of a virtual unit.
        hwpt_id: U32 = 4,
        /// Where the entries stand in the message.
        data_uptr: U64 = 8,
        /// [`INVALIDATE_DATA_VTD_S1`].
        data_type: U32 = 16,
        /// The size of one entry.
        entry_len: U32 = 20,
        /// How many there are; written back: how many were done, also with an errno.
        entry_num: U32 = 24,
        /// Zero.
        reserved: U32 = 28,
    }
}

layout! {
    /// An entry: a range of a first stage. With address 0 and all bits set in `npages` it is all of it.
    VtdStage1Invalidate, 24, {
        /// Where the range starts: a multiple of 4 KiB.
        addr: U64 = 0,
        /// How many pages of 4 KiB it has. From 0 with all bits set it is all of the table.
        npages: U64 = 8,
        /// [`VTD_INV_LEAF`] or nothing.
        flags: U32 = 16,
        /// Zero.
        reserved: U32 = 20,
    }
}
