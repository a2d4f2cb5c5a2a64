//! The fixed parts of the messages, in the order of their commands.

use palisade_units::layout;
use zerocopy::native_endian::{U16, U32, U64};

layout! {
    /// VERSION, before the JSON text (vfio-user, VFIO_USER_VERSION).
    Version, 4, {
        /// The major version, 0.
        major: U16 = 0,
        /// The minor version.
        minor: U16 = 2,
    }
}

layout! {
    /// DMA_MAP (vfio-user, VFIO_USER_DMA_MAP).
    DmaMap, 32, {
        /// The size of this structure in bytes.
        argsz: U32 = 0,
        /// [`DmaMapFlags`].
        flags: U32 = 4,
        /// Where the range starts in the file that comes with the message.
        offset_bytes: U64 = 8,
        /// Where the range starts for the device.
        address: U64 = 16,
        /// The length.
        len_bytes: U64 = 24,
    }
}

bitflags::bitflags! {
    /// What a device may do in a range.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DmaMapFlags: u32 {
        /// Read.
        const READ = 1;
        /// Write.
        const WRITE = 2;
        /// The descriptor is to be mapped, as it is without this flag too. Beyond the revision that is followed
        /// here; libvfio-user has it.
        const MAP = 4;
        /// The descriptor is to be read and written; not offered.
        const FILE_IO = 8;
    }
}

layout! {
    /// DMA_UNMAP, and its reply (vfio-user, VFIO_USER_DMA_UNMAP).
    DmaUnmap, 24, {
        /// The most that the reply may take.
        argsz: U32 = 0,
        /// [`DmaUnmapFlags`].
        flags: U32 = 4,
        /// Where the range starts for the device.
        address: U64 = 8,
        /// The length.
        len_bytes: U64 = 16,
    }
}

bitflags::bitflags! {
    /// How to unmap.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DmaUnmapFlags: u32 {
        /// Report which pages were written; not offered.
        const GET_DIRTY_BITMAP = 1;
        /// Everything; the range is empty and at 0.
        const ALL = 2;
    }
}

layout! {
    /// DEVICE_GET_INFO and its reply (vfio-user, VFIO_USER_DEVICE_GET_INFO).
    DeviceInfo, 16, {
        /// The most that the reply may take; in the reply, what it takes.
        argsz: U32 = 0,
        /// [`DEVICE_RESETS`], [`DEVICE_IS_PCI`].
        flags: U32 = 4,
        /// The number of regions.
        regions: U32 = 8,
        /// The number of interrupt types.
        irqs: U32 = 12,
    }
}

/// DEVICE_RESET is there.
pub const DEVICE_RESETS: u32 = 1;
/// The device is a PCI function.
pub const DEVICE_IS_PCI: u32 = 2;

layout! {
    /// DEVICE_GET_REGION_INFO and its reply (vfio-user, VFIO_USER_DEVICE_GET_REGION_INFO).
    RegionInfo, 32, {
        /// The most that the reply may take; in the reply, what it takes.
        argsz: U32 = 0,
        /// [`REGION_READS`], [`REGION_WRITES`].
        flags: U32 = 4,
        /// The region.
        index: U32 = 8,
        /// Where capabilities start; there are none.
        cap_offset: U32 = 12,
        /// The size of the region.
        len_bytes: U64 = 16,
        /// Where to map it; it cannot be mapped.
        offset_bytes: U64 = 24,
    }
}

layout! {
    /// DEVICE_GET_REGION_IO_FDS and its reply, which names no descriptor (vfio-user,
    /// VFIO_USER_DEVICE_GET_REGION_IO_FDS).
    RegionIoFds, 16, {
        /// The most that the reply may take; in the reply, what it takes.
        argsz: U32 = 0,
        /// Nothing.
        flags: U32 = 4,
        /// The region.
        index: U32 = 8,
        /// How many descriptions follow: none.
        count: U32 = 12,
    }
}

/// The region can be read.
pub const REGION_READS: u32 = 1;
/// The region can be written.
pub const REGION_WRITES: u32 = 2;

layout! {
    /// DEVICE_GET_IRQ_INFO and its reply (vfio-user, VFIO_USER_DEVICE_GET_IRQ_INFO).
    IrqInfo, 16, {
        /// The most that the reply may take; in the reply, what it takes.
        argsz: U32 = 0,
        /// [`IRQ_IS_EVENTFD`].
        flags: U32 = 4,
        /// The interrupt type.
        index: U32 = 8,
        /// The number of interrupts of that type.
        count: U32 = 12,
    }
}

/// The interrupts can be signalled through eventfds.
pub const IRQ_IS_EVENTFD: u32 = 1;

layout! {
    /// DEVICE_SET_IRQS, before its array (vfio-user, VFIO_USER_DEVICE_SET_IRQS).
    IrqSet, 20, {
        /// The size of the payload in bytes, the array included.
        argsz: U32 = 0,
        /// [`IrqSetFlags`].
        flags: U32 = 4,
        /// The interrupt type.
        index: U32 = 8,
        /// The first interrupt.
        start: U32 = 12,
        /// How many.
        count: U32 = 16,
    }
}

bitflags::bitflags! {
    /// What SET_IRQS does, and with what. One of each three.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct IrqSetFlags: u32 {
        /// For all interrupts of the range.
        const DATA_NONE = 1;
        /// For those whose byte in the array is not zero.
        const DATA_BOOL = 2;
        /// With the descriptors that come with the message.
        const DATA_EVENTFD = 4;
        /// Mask.
        const MASK = 8;
        /// Unmask.
        const UNMASK = 16;
        /// Fire, or say what to do on firing.
        const TRIGGER = 32;
    }
}

layout! {
    /// REGION_READ, REGION_WRITE and their replies, before the data (vfio-user, VFIO_USER_REGION_READ).
    RegionAccess, 16, {
        /// Where in the region.
        offset_bytes: U64 = 0,
        /// The region.
        region: U32 = 8,
        /// How many bytes.
        count: U32 = 12,
    }
}

layout! {
    /// DMA_READ, DMA_WRITE and their replies, before the data (vfio-user, VFIO_USER_DMA_READ).
    DmaAccess, 16, {
        /// Where in the client's memory.
        address: U64 = 0,
        /// How many bytes.
        count: U64 = 8,
    }
}

layout! {
    /// REGION_WRITE_MULTI and its reply, before the writes (vfio-user, VFIO_USER_REGION_WRITE_MULTI).
    WriteMultiHeader, 8, {
        /// How many writes.
        count: U64 = 0,
    }
}

layout! {
    /// One write of REGION_WRITE_MULTI.
    SingleWrite, 24, {
        /// Where in the region.
        offset_bytes: U64 = 0,
        /// The region.
        region: U32 = 8,
        /// How many of the data's bytes are meant, 8 at most.
        count: U32 = 12,
        /// The bytes.
        data: [u8; 8] = 16,
    }
}
