//! IOMMU_HWPT_ALLOC.

use palisade_units::layout;
use zerocopy::little_endian::{U32, U64};

/// IOMMU_HWPT_ALLOC: nested ones may be made of it.
pub const HWPT_NEST_PARENT: u32 = 1;
/// IOMMU_HWPT_ALLOC: devices log what they write. Not offered.
pub const HWPT_DIRTY_TRACKING: u32 = 2;
/// IOMMU_HWPT_ALLOC: `fault_id` is valid.
pub const HWPT_FAULT_ID_VALID: u32 = 4;
/// IOMMU_HWPT_ALLOC: it may be attached to PASIDs.
pub const HWPT_PASID: u32 = 8;

/// The data: none.
pub const HWPT_DATA_NONE: u32 = 0;
/// The data: a [`HwptVtdStage1`].
pub const HWPT_DATA_VTD_S1: u32 = 1;

layout! {
    /// IOMMU_HWPT_ALLOC. What stands from `data_type` on may be left out.
    HwptAlloc, 48, {
        /// The size.
        size: U32 = 0,
        /// `HWPT_NEST_PARENT` and those after it.
        flags: U32 = 4,
        /// The id of the device.
        dev_id: U32 = 8,
        /// The id of an IOAS; for a nested one of a parent or a virtual unit.
        pt_id: U32 = 12,
        /// Written back: the id of the HWPT.
        out_hwpt_id: U32 = 16,
        /// Zero.
        reserved: U32 = 20,
        /// [`HWPT_DATA_VTD_S1`] for a nested one, else none.
        data_type: U32 = 24,
        /// The size of the data.
        data_len: U32 = 28,
        /// Where the data stands in the message.
        data_uptr: U64 = 32,
        /// The id of a fault queue, where the flags say so.
        fault_id: U32 = 40,
        /// Zero.
        reserved_2: U32 = 44,
    }
}

/// A first stage: privileged requests are allowed (SRE).
pub const VTD_S1_SRE: u64 = 1;
/// A first stage: the extended accessed flag is set (EAFE).
pub const VTD_S1_EAFE: u64 = 2;
/// A first stage: privileged requests heed write protection, too (WPE).
pub const VTD_S1_WPE: u64 = 4;

layout! {
    /// A guest's first stage in VT-d's format.
    HwptVtdStage1, 24, {
        /// `VTD_S1_SRE` and those after it.
        flags: U64 = 0,
        /// The address of the top table, in the parent's IOAS.
        pgtbl_addr: U64 = 8,
        /// How many bits of an address are translated: 48 or 57.
        addr_width: U32 = 16,
        /// Zero.
        reserved: U32 = 20,
    }
}
