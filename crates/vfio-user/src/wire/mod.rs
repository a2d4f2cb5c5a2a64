//! Bytes of the protocol: headers, payloads, capabilities, and the cutting of a stream into frames. No
//! input or output happens here.

mod capabilities;
mod command;
mod feature;
mod frame;
mod header;
mod migration;
pub mod pasid;
mod payload;

pub use capabilities::{BadCapabilities, Capabilities};
pub use command::Command;
pub use feature::{
    Feature, FeatureFlags, FeatureRequest, LoggingControl, LoggingRange, LoggingReport,
    MAX_LOGGING_RANGES, Methods,
};
pub use frame::{Cut, Frame, FrameError, MAX_FRAME_BYTES, cut, push_frame};
pub use header::{HEADER_BYTES, Header, Kind, ReplyWanted};
pub use migration::{DeviceState, MigrationData, MigrationFlags, MigrationState, MigrationSupport};
pub use payload::{
    DEVICE_IS_PCI, DEVICE_RESETS, DeviceInfo, DmaAccess, DmaMap, DmaMapFlags, DmaUnmap,
    DmaUnmapFlags, IRQ_IS_EVENTFD, IrqInfo, IrqSet, IrqSetFlags, REGION_READS, REGION_WRITES,
    RegionAccess, RegionInfo, RegionIoFds, SingleWrite, Version, WriteMultiHeader,
};

/// The most bytes that one read or write may carry, which each side says in its capabilities.
pub const MAX_DATA_BYTES: u32 = 64 << 10;
/// The most descriptors that one message may carry.
pub const MAX_DESCRIPTORS: usize = 16;
/// The page size that addresses and lengths of maps are multiples of.
pub const MAP_PAGE_BYTES: u64 = 4096;
