//! The tables of BAR 0 whose places OFFSETS names (DSA §9.2).

use bitfield_struct::bitfield;

/// The size of a GRPCFG entry in bytes.
pub const GRPCFG_BYTES: u64 = 64;
/// GRPCFG: bits of the group's queues, 256 of them, from the entry's start.
pub const GRPCFG_QUEUES: u64 = 0;
/// GRPCFG: bits of the group's engines, 64 of them, from the entry's start.
pub const GRPCFG_ENGINES: u64 = 32;
/// GRPCFG: traffic classes and read buffers ([`GroupFlags`]), from the entry's start.
pub const GRPCFG_FLAGS: u64 = 40;

/// The size of a WQCFG entry in bytes.
pub const WQCFG_BYTES: u64 = 32;
/// WQCFG: the size word, from the entry's start; it can be written while the device is disabled.
pub const WQCFG_SIZE: u64 = 0;
/// WQCFG: the threshold word.
pub const WQCFG_THRESHOLD: u64 = 4;
/// WQCFG: the word with mode, priority and PASID ([`QueueMode`]).
pub const WQCFG_MODE: u64 = 8;
/// WQCFG: the word with the largest transfer and batch ([`QueueLimits`]).
pub const WQCFG_LIMITS: u64 = 12;
/// WQCFG: the word with occupancy and state ([`QueueState`]), read-only.
pub const WQCFG_STATE: u64 = 24;

/// The size of an entry of the MSI-X permission table in bytes; the upper half is reserved.
pub const MSIXPERM_BYTES: u64 = 8;

/// WQCFG bytes 8 to 11.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct QueueMode {
    /// One user who counts for himself, with the PASID that stands here; otherwise each descriptor has its own.
    pub dedicated: bool,
    /// Descriptors may ask to wait for pages.
    pub block_on_fault: bool,
    /// No ATS; reserved unless WQCAP says otherwise.
    pub ats_disable: bool,
    /// No page requests; reserved unless WQCAP says otherwise.
    pub page_request_disable: bool,
    /// 1 to 15, the greater the more.
    #[bits(4)]
    pub priority: u8,
    /// The PASID of a dedicated queue.
    #[bits(20)]
    pub pasid: u32,
    /// Requests carry a PASID.
    pub pasid_enable: bool,
    /// Requests of a dedicated queue are privileged.
    pub privileged: bool,
    #[bits(2)]
    __: u8,
}

/// WQCFG bytes 12 to 15.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct QueueLimits {
    /// Largest transfer, as a power of two of bytes.
    #[bits(5)]
    pub max_transfer_shift: u8,
    /// Largest batch, as a power of two of descriptors.
    #[bits(4)]
    pub max_batch_shift: u8,
    #[bits(23)]
    __: u32,
}

/// WQCFG bytes 24 to 27.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct QueueState {
    /// How many descriptors are in the queue; 0 unless WQCAP says that it can be read.
    #[bits(16)]
    pub occupancy: u16,
    #[bits(13)]
    __: u16,
    /// Only the mode that is configured is possible.
    pub mode_fixed: bool,
    /// The queue is enabled.
    pub enabled: bool,
    #[bits(1)]
    __: u8,
}

/// GRPCFG bytes 40 to 43.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GroupFlags {
    /// The first traffic class.
    #[bits(3)]
    pub traffic_class_a: u8,
    /// The second traffic class.
    #[bits(3)]
    pub traffic_class_b: u8,
    #[bits(1)]
    __: u8,
    /// The global limit of GENCFG holds for the group, too.
    pub use_read_buffer_limit: bool,
    /// How many read buffers are the group's alone.
    #[bits(8)]
    pub read_buffers_reserved: u8,
    #[bits(4)]
    __: u8,
    /// The most read buffers that the group may use at a time.
    #[bits(8)]
    pub read_buffers_allowed: u8,
    #[bits(4)]
    __: u8,
}

/// The writable part of a WQCFG entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueConfig {
    /// How many descriptors the queue holds.
    pub size: u16,
    /// Up to how many descriptors the limited portal of a shared queue takes, of those that wait for an engine or a page.
    pub threshold: u16,
    /// Mode, priority, PASID.
    pub mode: QueueMode,
    /// Largest transfer and batch.
    pub limits: QueueLimits,
}

impl QueueConfig {
    /// The entry's first four words.
    #[must_use]
    pub fn words(&self) -> [u32; 4] {
        [
            self.size.into(),
            self.threshold.into(),
            self.mode.into_bits(),
            self.limits.into_bits(),
        ]
    }
}

/// An entry of the MSI-X permission table: which PASID may ask for the vector.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct InterruptPermission {
    #[bits(2)]
    __: u8,
    /// Nothing is checked.
    pub ignore: bool,
    /// The descriptor's PASID must be the one here; otherwise it must have none.
    pub pasid_enable: bool,
    #[bits(8)]
    __: u8,
    /// The PASID.
    #[bits(20)]
    pub pasid: u32,
}
