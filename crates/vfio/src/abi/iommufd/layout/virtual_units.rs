//! IOMMU_VIOMMU_ALLOC, IOMMU_VDEVICE_ALLOC and IOMMU_VEVENTQ_ALLOC, and what goes through the file of a queue of events.

use palisade_units::layout;
use zerocopy::little_endian::{U32, U64};

/// The type of a virtual unit: VT-d. Not one of Linux's, which has none for VT-d.
pub const VIOMMU_TYPE_VTD: u32 = 0x8000_0001;
/// The type of a queue of events: VT-d. Not one of Linux's, which has none for VT-d.
pub const VEVENTQ_TYPE_VTD: u32 = 0x8000_0001;

layout! {
    /// IOMMU_VIOMMU_ALLOC. What stands from `data_len` on may be left out.
    ViommuAlloc, 40, {
        /// The size.
        size: U32 = 0,
        /// Zero.
        flags: U32 = 4,
        /// [`VIOMMU_TYPE_VTD`].
        viommu_type: U32 = 8,
        /// The id of the device.
        dev_id: U32 = 12,
        /// The id of a HWPT that is a parent.
        hwpt_id: U32 = 16,
        /// Written back: the id of the virtual unit.
        out_viommu_id: U32 = 20,
        /// Zero.
        data_len: U32 = 24,
        /// Zero.
        reserved: U32 = 28,
        /// Zero.
        data_uptr: U64 = 32,
    }
}

layout! {
    /// IOMMU_VDEVICE_ALLOC.
    VdeviceAlloc, 24, {
        /// The size.
        size: U32 = 0,
        /// The id of the virtual unit.
        viommu_id: U32 = 4,
        /// The id of the device.
        dev_id: U32 = 8,
        /// Written back: the id of the virtual device.
        out_vdevice_id: U32 = 12,
        /// What the guest calls the device: bus in bits 15:8, device in 7:3, function in 2:0.
        virt_id: U64 = 16,
    }
}

layout! {
    /// IOMMU_VEVENTQ_ALLOC. The file comes beside the answer.
    VeventqAlloc, 32, {
        /// The size.
        size: U32 = 0,
        /// Zero.
        flags: U32 = 4,
        /// The id of the virtual unit.
        viommu_id: U32 = 8,
        /// [`VEVENTQ_TYPE_VTD`].
        veventq_type: U32 = 12,
        /// Not 0. The file has room for some hundreds, whatever stands here.
        veventq_depth: U32 = 16,
        /// Written back: the id of the queue.
        out_veventq_id: U32 = 20,
        /// Written back: 0, the place of the file among the answer's descriptors.
        out_veventq_fd: U32 = 24,
        /// Zero.
        reserved: U32 = 28,
    }
}

/// The header of an event: it stands alone, for events that found no room.
pub const VEVENTQ_LOST_EVENTS: u32 = 1;

layout! {
    /// What stands before each event in the file of a queue.
    VeventHeader, 8, {
        /// [`VEVENTQ_LOST_EVENTS`] or nothing.
        flags: U32 = 0,
        /// The number of the event, or of the last one that was lost; below 2^31, after which it begins again.
        sequence: U32 = 4,
    }
}

layout! {
    /// An event of a VT-d unit: a fault record as the guest's unit may take it (VT-d §11.4.7.6), with the device under
    /// the name that its virtual device gave it.
    VeventVtd, 16, {
        /// The page: bits 63:12 of the address.
        low: U64 = 0,
        /// The source in bits 15:0, T2 in 28, PRIV in 29, EXE in 30, PP in 31, the reason in 39:32, the PASID in 59:40, AT in 61:60, T1 in 62, F in 63.
        high: U64 = 8,
    }
}
