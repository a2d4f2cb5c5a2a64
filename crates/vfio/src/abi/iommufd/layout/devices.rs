//! VFIO_DEVICE_BIND_IOMMUFD, and those that attach and detach.

use palisade_units::layout;
use zerocopy::little_endian::U32;

layout! {
    /// VFIO_DEVICE_BIND_IOMMUFD.
    BindIommufd, 16, {
        /// The size.
        argsz: U32 = 0,
        /// Zero.
        flags: U32 = 4,
        /// Zero: the connection itself.
        iommufd: U32 = 8,
        /// Written back: the id of the device.
        out_devid: U32 = 12,
    }
}

/// VFIO_DEVICE_ATTACH_IOMMUFD_PT: `pasid` is valid.
pub const DEVICE_ATTACH_PASID: u32 = 1;
/// VFIO_DEVICE_DETACH_IOMMUFD_PT: `pasid` is valid.
pub const DEVICE_DETACH_PASID: u32 = 1;

layout! {
    /// VFIO_DEVICE_ATTACH_IOMMUFD_PT. The last field is there where the flags say so.
    DeviceAttach, 16, {
        /// The size: 12, or 16 with a PASID.
        argsz: U32 = 0,
        /// [`DEVICE_ATTACH_PASID`] or nothing.
        flags: U32 = 4,
        /// The id of an IOAS or a HWPT; written back: the id of the HWPT.
        pt_id: U32 = 8,
        /// The PASID, as the guest names it.
        pasid: U32 = 12,
    }
}

layout! {
    /// VFIO_DEVICE_DETACH_IOMMUFD_PT. The last field is there where the flags say so.
    DeviceDetach, 12, {
        /// The size: 8, or 12 with a PASID.
        argsz: U32 = 0,
        /// [`DEVICE_DETACH_PASID`] or nothing.
        flags: U32 = 4,
        /// The PASID, as the guest names it.
        pasid: U32 = 8,
    }
}
