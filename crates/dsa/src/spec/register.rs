//! The registers of BAR 0 (DSA §9.2).

use bitfield_struct::bitfield;

/// VERSION, 32 bits, read-only.
pub const VERSION: u64 = 0x00;
/// GENCAP, 64 bits, read-only.
pub const GENCAP: u64 = 0x10;
/// WQCAP, 64 bits, read-only.
pub const WQCAP: u64 = 0x20;
/// GRPCAP, 64 bits, read-only.
pub const GRPCAP: u64 = 0x30;
/// ENGCAP, 64 bits, read-only.
pub const ENGCAP: u64 = 0x38;
/// OPCAP, 256 bits, read-only.
pub const OPCAP: u64 = 0x40;
/// Table offsets, 128 bits, read-only.
pub const OFFSETS: u64 = 0x60;
/// GENCFG, 32 bits, read-write while the device is disabled.
pub const GENCFG: u64 = 0x80;
/// GENCTRL, 32 bits, read-write.
pub const GENCTRL: u64 = 0x88;
/// GENSTS, 32 bits, read-only.
pub const GENSTS: u64 = 0x90;
/// INTCAUSE, 32 bits, write one to clear.
pub const INTCAUSE: u64 = 0x98;
/// CMD, 32 bits: writing it runs a command.
pub const CMD: u64 = 0xa0;
/// CMDSTS, 32 bits, read-only.
pub const CMDSTS: u64 = 0xa8;
/// CMDCAP, 32 bits, read-only.
pub const CMDCAP: u64 = 0xb0;
/// SWERR, 256 bits; bits 0 and 1 are write one to clear, the others read-only.
pub const SWERR: u64 = 0xc0;

/// VERSION of the first generation: major 1, minor 0.
pub const VERSION_1_0: u32 = 0x100;

/// GENCAP: what the device can do.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct GeneralCapability {
    /// Descriptors may wait for a page instead of failing.
    pub block_on_fault: bool,
    /// Source and destination of a move may overlap.
    pub overlapping_copy: bool,
    /// Cache control for writes to memory.
    pub cache_control_memory: bool,
    /// Cache control for cache flushes.
    pub cache_control_flush: bool,
    /// CMDCAP says which commands there are.
    pub command_capability: bool,
    #[bits(3)]
    __: u8,
    /// Destinations can be read back.
    pub destination_readback: bool,
    /// Drains can read back.
    pub drain_readback: bool,
    #[bits(3)]
    __: u8,
    /// Event log: 0 none.
    #[bits(2)]
    pub event_log: u8,
    /// Batches can go on after an error.
    pub batch_continuation: bool,
    /// Largest transfer, as a power of two of bytes.
    #[bits(5)]
    pub max_transfer_shift: u8,
    /// Largest batch, as a power of two of descriptors.
    #[bits(4)]
    pub max_batch_shift: u8,
    /// Size of the interrupt message store, in multiples of 256 entries.
    #[bits(6)]
    pub interrupt_store_multiple: u8,
    /// Software may configure queues and groups.
    pub configurable: bool,
    #[bits(32)]
    __: u32,
}

/// WQCAP: what the work queues can do.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct QueueCapability {
    /// The sum of the sizes of all queues, in descriptors.
    #[bits(16)]
    pub total_size: u16,
    /// How many queues there are.
    #[bits(8)]
    pub queues: u8,
    /// The size of a WQCFG entry: 2 to the power of 5 plus this, in bytes.
    #[bits(4)]
    pub config_size: u8,
    #[bits(20)]
    __: u32,
    /// Queues can be shared.
    pub shared_mode: bool,
    /// Queues can be dedicated.
    pub dedicated_mode: bool,
    /// ATS can be turned off by queue.
    pub ats_control: bool,
    /// Queues have priorities.
    pub priority: bool,
    /// Occupancy can be read.
    pub occupancy: bool,
    /// Occupancy can interrupt.
    pub occupancy_interrupt: bool,
    /// Operations can be chosen by queue.
    pub operation_config: bool,
    /// Page requests can be turned off by queue.
    pub page_request_control: bool,
    #[bits(8)]
    __: u8,
}

/// GRPCAP: what the groups can do.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct GroupCapability {
    /// How many groups there are.
    #[bits(8)]
    pub groups: u8,
    /// How many read buffers there are.
    #[bits(8)]
    pub read_buffers: u8,
    /// Read buffers can be given to groups.
    pub read_buffer_control: bool,
    /// A global limit of read buffers can be set.
    pub read_buffer_limit: bool,
    /// Work in progress can be limited by group.
    pub progress_limit: bool,
    #[bits(45)]
    __: u64,
}

/// ENGCAP: how many engines there are.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct EngineCapability {
    /// How many engines there are.
    #[bits(8)]
    pub engines: u8,
    #[bits(56)]
    __: u64,
}

/// OPCAP: bit n says that operation n exists; 256 bits, least significant quadword first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationCapability(pub [u64; 4]);

impl OperationCapability {
    /// The set that has these operations.
    #[must_use]
    pub const fn of(opcodes: &[super::Opcode]) -> Self {
        let mut words = [0; 4];
        let mut i = 0;
        while i < opcodes.len() {
            let number = opcodes[i].0 as usize;
            words[number / 64] |= 1 << (number % 64);
            i += 1;
        }
        Self(words)
    }

    /// Whether the operation is in the set.
    #[must_use]
    pub const fn contains(&self, opcode: super::Opcode) -> bool {
        let number = opcode.0 as usize;
        self.0[number / 64] & (1 << (number % 64)) != 0
    }
}

/// OFFSETS: where the tables stand, in units of 256 bytes; 0 means that there is none.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct TableOffsets {
    /// Group configuration.
    #[bits(16)]
    pub groups: u16,
    /// Work queue configuration.
    #[bits(16)]
    pub queues: u16,
    /// MSI-X permissions.
    #[bits(16)]
    pub interrupt_permissions: u16,
    /// Interrupt message store.
    #[bits(16)]
    pub interrupt_store: u16,
    /// Performance monitor.
    #[bits(16)]
    pub performance_monitor: u16,
    #[bits(48)]
    __: u64,
}

/// The unit of [`TableOffsets`] in bytes.
pub const TABLE_UNIT_BYTES: u64 = 0x100;

/// GENCFG.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GeneralConfig {
    /// The global limit of read buffers.
    #[bits(8)]
    pub read_buffer_limit: u8,
    #[bits(4)]
    __: u8,
    /// User-mode interrupts may be asked for.
    pub user_interrupts: bool,
    /// The event log is on.
    pub event_log: bool,
    #[bits(18)]
    __: u32,
}

/// GENCTRL.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GeneralControl {
    /// Vector 0 fires for software errors.
    pub software_error_interrupt: bool,
    /// Vector 0 fires when the device halts.
    pub halt_interrupt: bool,
    /// Vector 0 fires for the event log.
    pub event_log_interrupt: bool,
    #[bits(29)]
    __: u32,
}

/// The device's state in GENSTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// Takes no work; can be configured.
    Disabled,
    /// Takes work.
    Enabled,
    /// Finishes its work.
    Draining,
    /// Needs a reset.
    Halted,
}

impl DeviceState {
    const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Disabled,
            1 => Self::Enabled,
            2 => Self::Draining,
            _ => Self::Halted,
        }
    }

    const fn into_bits(self) -> u8 {
        self as u8
    }
}

/// What brings a halted device back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetType {
    /// The command that resets the device.
    Software,
    /// A function-level reset.
    Function,
    /// A warm reset of the platform.
    Warm,
    /// A cold reset of the platform.
    Cold,
}

impl ResetType {
    const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Software,
            1 => Self::Function,
            2 => Self::Warm,
            _ => Self::Cold,
        }
    }

    const fn into_bits(self) -> u8 {
        self as u8
    }
}

/// GENSTS.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GeneralStatus {
    /// Where the device is in its life.
    #[bits(2)]
    pub state: DeviceState,
    /// What kind of reset a halted device needs.
    #[bits(2)]
    pub reset_type: ResetType,
    #[bits(28)]
    __: u32,
}

/// INTCAUSE: why vector 0 fired; write one to clear.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct InterruptCause {
    /// SWERR has an error.
    pub software_error: bool,
    /// A command completed.
    pub command: bool,
    /// A queue's occupancy fell below its limit.
    pub occupancy: bool,
    /// A performance counter overflowed.
    pub performance_monitor: bool,
    /// The device halted.
    pub halted: bool,
    /// The event log has an entry.
    pub event_log: bool,
    #[bits(25)]
    __: u32,
    /// Interrupt handles were revoked.
    pub handles_revoked: bool,
}
