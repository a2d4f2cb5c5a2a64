//! IOMMU_GET_HW_INFO.

use palisade_units::layout;
use zerocopy::little_endian::{U32, U64};

/// IOMMU_GET_HW_INFO: `data_type` says which information is wanted.
pub const HW_INFO_INPUT_TYPE: u32 = 1;
/// No information; asked for: whatever there is.
pub const HW_INFO_NONE: u32 = 0;
/// The information is a [`HwInfoVtd`].
pub const HW_INFO_VTD: u32 = 1;

layout! {
    /// IOMMU_GET_HW_INFO.
    HwInfo, 40, {
        /// The size.
        size: U32 = 0,
        /// [`HW_INFO_INPUT_TYPE`] or nothing.
        flags: U32 = 4,
        /// The id of the device.
        dev_id: U32 = 8,
        /// How many bytes there is room for; written back: how many there are.
        data_len: U32 = 12,
        /// Where the information is to stand in the answer.
        data_uptr: U64 = 16,
        /// What is wanted; written back: what it is, [`HW_INFO_VTD`] or none.
        data_type: U32 = 24,
        /// Written back: how many bits a PASID has, 0 where there are none.
        out_max_pasid_log2: u8 = 28,
        /// Zero.
        reserved: [u8; 3] = 29,
        /// Written back: zero.
        out_capabilities: U64 = 32,
    }
}

layout! {
    /// What is told of a VT-d unit.
    HwInfoVtd, 24, {
        /// Zero.
        flags: U32 = 0,
        /// Zero.
        reserved: U32 = 4,
        /// CAP_REG (VT-d §11.4.2).
        cap_reg: U64 = 8,
        /// ECAP_REG (VT-d §11.4.3).
        ecap_reg: U64 = 16,
    }
}
