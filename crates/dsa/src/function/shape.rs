//! What a function offers: its capability registers and configuration space, computed from its shape.

use palisade_pci::capability::{
    BarOffset, MsixLayout, PasidPermissions, ats, msix, pasid, pri, root_complex_endpoint,
};
use palisade_pci::{Bar, BarSpec, ConfigError, ConfigSpace, Identity};

use super::map::{GROUPS_AT, PENDING_AT, PERMISSIONS_AT, QUEUES_AT, VECTORS_AT};
use crate::lane::TURN_TASKS;
use crate::spec::{
    self, CLASS_CODE, Command, DEVICE_ID, EngineCapability, GeneralCapability, GroupCapability,
    PORTAL_BYTES, PORTALS_PER_QUEUE, QueueCapability, REGISTERS_BYTES, TableOffsets, VENDOR_ID,
    VERSION_1_0, register,
};
use crate::{MAX_QUEUES, OPERATIONS, Switch};

/// Largest transfer: 2 GiB.
pub(crate) const MAX_TRANSFER_SHIFT: u8 = 31;
/// Largest batch: 1024 descriptors.
pub(crate) const MAX_BATCH_SHIFT: u8 = 10;
/// How many read buffers a driver may give to its groups, as the device of the first generation has them. They are
/// configuration alone: engines read without them.
pub(crate) const READ_BUFFERS: u8 = 96;
/// The most groups that the tables have room for.
const MAX_GROUPS: u8 = 16;
/// The most engines that a group's mask has bits for.
const MAX_ENGINES: u8 = 64;
/// How many page requests the function may have out: all groups.
const PAGE_REQUESTS: u32 = 512;

/// The shape of a function, besides its queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Queues may be dedicated.
    pub dedicated: Switch,
    /// Queues may be shared.
    pub shared: Switch,
    /// The sizes of all queues together, in descriptors.
    pub total_size: u16,
    /// How many groups there are: 1 to 16.
    pub groups: u8,
    /// How many engines there are: 1 to 64. Which one runs a descriptor is the accelerator's business, whatever the
    /// groups say.
    pub engines: u8,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            dedicated: Switch::On,
            shared: Switch::On,
            total_size: 1024,
            groups: 4,
            engines: 4,
        }
    }
}

/// The shape of a function with its queues, within the limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) shape: Shape,
    pub(crate) queues: u8,
}

impl Layout {
    pub(crate) fn new(shape: Shape, queues: usize) -> Self {
        let shape = Shape {
            groups: shape.groups.clamp(1, MAX_GROUPS),
            engines: shape.engines.clamp(1, MAX_ENGINES),
            ..shape
        };
        let queues = u8::try_from(queues).unwrap_or(MAX_QUEUES).min(MAX_QUEUES);
        Self { shape, queues }
    }

    /// Vector 0 for the device, one for each queue's completions.
    pub(crate) fn vectors(&self) -> u16 {
        u16::from(self.queues) + 1
    }

    /// How many descriptors of one queue engines have in hand at most, beside those that have a place in it.
    pub(crate) fn in_hand_of_queue(&self) -> usize {
        TURN_TASKS * usize::from(self.shape.engines)
    }

    /// How many descriptors all queues and engines have at most.
    pub(crate) fn max_descriptors(&self) -> usize {
        let in_hand = self.in_hand_of_queue() * usize::from(self.queues);
        usize::from(self.shape.total_size) + in_hand
    }

    pub(crate) fn portals_bytes(&self) -> u64 {
        (u64::from(self.queues) * PORTALS_PER_QUEUE * PORTAL_BYTES).next_power_of_two()
    }

    pub(crate) fn config_space(&self) -> Result<ConfigSpace, ConfigError> {
        let in_registers = |offset_bytes| BarOffset {
            bar: Bar::Bar0,
            offset_bytes,
        };
        ConfigSpace::builder(Identity {
            vendor: VENDOR_ID,
            device: DEVICE_ID,
            revision: 0,
            class: CLASS_CODE,
            subsystem_vendor: VENDOR_ID,
            subsystem: 0,
        })
        .bar(Bar::Bar0, BarSpec::memory64(REGISTERS_BYTES))
        .bar(Bar::Bar2, BarSpec::memory64(self.portals_bytes()))
        .capability(root_complex_endpoint())
        .capability(msix(MsixLayout {
            vectors: self.vectors(),
            table: in_registers(VECTORS_AT),
            pending: in_registers(PENDING_AT),
        }))
        .extended_capability(pasid(PasidPermissions::PRIVILEGED))
        .extended_capability(ats())
        .extended_capability(pri(PAGE_REQUESTS))
        .build()
    }

    /// The read-only words below GENCFG.
    pub(crate) fn capability_words(&self) -> [u32; 32] {
        let mut words = [0; 32];
        let mut put = |offset: u64, value: u64| {
            let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
            let at = usize::try_from(offset / 4).unwrap_or(0);
            words[at] = u32::from_le_bytes([a, b, c, d]);
            words[at + 1] = u32::from_le_bytes([e, f, g, h]);
        };
        let Shape {
            dedicated,
            shared,
            total_size,
            groups,
            engines,
        } = self.shape;
        put(register::VERSION, VERSION_1_0.into());
        let general = GeneralCapability::new()
            .with_block_on_fault(true)
            .with_overlapping_copy(true)
            .with_cache_control_memory(true)
            .with_command_capability(true)
            .with_max_transfer_shift(MAX_TRANSFER_SHIFT)
            .with_max_batch_shift(MAX_BATCH_SHIFT)
            .with_configurable(true);
        put(register::GENCAP, general.into_bits());
        let queues = QueueCapability::new()
            .with_total_size(total_size)
            .with_queues(self.queues)
            .with_shared_mode(shared.is_on())
            .with_dedicated_mode(dedicated.is_on())
            .with_ats_control(true)
            .with_priority(true)
            .with_occupancy(true);
        put(register::WQCAP, queues.into_bits());
        put(
            register::GRPCAP,
            GroupCapability::new()
                .with_groups(groups)
                .with_read_buffers(READ_BUFFERS)
                .with_read_buffer_control(true)
                .with_read_buffer_limit(true)
                .into_bits(),
        );
        put(
            register::ENGCAP,
            EngineCapability::new().with_engines(engines).into_bits(),
        );
        for (offset, word) in (register::OPCAP..).step_by(8).zip(OPERATIONS.0) {
            put(offset, word);
        }
        let unit = |at: u32| u16::try_from(u64::from(at) / register::TABLE_UNIT_BYTES).unwrap_or(0);
        let offsets = TableOffsets::new()
            .with_groups(unit(GROUPS_AT))
            .with_queues(unit(QUEUES_AT))
            .with_interrupt_permissions(unit(PERMISSIONS_AT))
            .into_bits();
        let [low @ .., _, _, _, _, _, _, _, _] = offsets.to_le_bytes();
        put(register::OFFSETS, u64::from_le_bytes(low));
        words
    }
}

/// The commands that exist: CMDCAP.
pub(crate) fn command_capability() -> u32 {
    let codes = Command::ENABLE_DEVICE.0..=Command::ABORT_PASID.0;
    codes.fold(0, |bits, code| bits | (1 << code))
}

const _: () = assert!(
    spec::table::WQCFG_BYTES == 32,
    "WQCAP says that entries have the least size"
);
