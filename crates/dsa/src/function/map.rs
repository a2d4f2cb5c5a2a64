//! The register map of BAR 0 as data: what stands where, and what a write does to it (R69).

use crate::spec::register as at;
use crate::spec::table::{GRPCFG_BYTES, MSIXPERM_BYTES, WQCFG_BYTES};

use super::shape::Layout;

/// What a write does to a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessClass {
    /// Nothing.
    ReadOnly,
    /// It changes the bits of the mask.
    ReadWrite(u32),
    /// It clears the bits of the mask that are written as one.
    WriteOneClears(u32),
    /// It changes the bits of the mask, unless the device is enabled.
    LockedByDevice(u32),
    /// It changes the bits of the mask, unless the queue is enabled.
    LockedByQueue(u32),
    /// It runs a command.
    Command,
    /// Nothing; it reads as zero.
    Reserved,
}

impl AccessClass {
    /// The bits that a driver may find set that it wrote there.
    pub(crate) const fn written(self) -> u32 {
        match self {
            ReadWrite(mask) | LockedByDevice(mask) | LockedByQueue(mask) => mask,
            ReadOnly | WriteOneClears(_) | Command | Reserved => 0,
        }
    }
}

/// A register of 32-bit words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// Its name in the specification.
    pub name: &'static str,
    /// Where it starts: in BAR 0, or in its table's entry.
    pub offset: u64,
    /// How many words it has.
    pub words: u64,
    /// What a write does to each.
    pub class: AccessClass,
}

const fn register(name: &'static str, offset: u64, words: u64, class: AccessClass) -> Register {
    Register {
        name,
        offset,
        words,
        class,
    }
}

use AccessClass::{
    Command, LockedByDevice, LockedByQueue, ReadOnly, ReadWrite, Reserved, WriteOneClears,
};

/// The registers at fixed offsets.
pub const REGISTERS: &[Register] = &[
    register("VERSION", at::VERSION, 1, ReadOnly),
    register("GENCAP", at::GENCAP, 2, ReadOnly),
    register("WQCAP", at::WQCAP, 2, ReadOnly),
    register("GRPCAP", at::GRPCAP, 2, ReadOnly),
    register("ENGCAP", at::ENGCAP, 2, ReadOnly),
    register("OPCAP", at::OPCAP, 8, ReadOnly),
    register("OFFSETS", at::OFFSETS, 4, ReadOnly),
    // The read buffer limit and user interrupts; there is no event log to turn on.
    register("GENCFG", at::GENCFG, 1, LockedByDevice(0x10ff)),
    register("GENCTRL", at::GENCTRL, 1, ReadWrite(0b11)),
    register("GENSTS", at::GENSTS, 1, ReadOnly),
    register("INTCAUSE", at::INTCAUSE, 1, WriteOneClears(u32::MAX)),
    register("CMD", at::CMD, 1, Command),
    register("CMDSTS", at::CMDSTS, 1, ReadOnly),
    register("CMDCAP", at::CMDCAP, 1, ReadOnly),
    register("SWERR", at::SWERR, 1, WriteOneClears(0b11)),
    register("SWERR", at::SWERR + 4, 7, ReadOnly),
];

/// An entry of WQCFG.
pub const QUEUE_REGISTERS: &[Register] = &[
    register("WQ size", 0, 1, LockedByDevice(0xffff)),
    register("WQ threshold", 4, 1, LockedByQueue(0xffff)),
    // Mode, block on fault, no ATS, priority, PASID, PASID enable, privileged.
    register("WQ mode", 8, 1, LockedByQueue(0x3fff_fff7)),
    register("WQ limits", 12, 1, LockedByQueue(0x1ff)),
    register("WQ occupancy interrupt", 16, 2, Reserved),
    register("WQ state", 24, 1, ReadOnly),
    register("WQ reserved", 28, 1, Reserved),
];

/// An entry of GRPCFG.
pub const GROUP_REGISTERS: &[Register] = &[
    register("GRPWQCFG", 0, 8, LockedByDevice(u32::MAX)),
    register("GRPENGCFG", 32, 2, LockedByDevice(u32::MAX)),
    // Traffic classes; use limit, reserved and allowed of read buffers.
    register("GRPFLAGS", 40, 1, LockedByDevice(0x0ff0_ffbf)),
    register("GRPCFG reserved", 44, 5, Reserved),
];

/// An entry of the MSI-X permission table.
pub const PERMISSION_REGISTERS: &[Register] = &[
    register("MSIXPERM", 0, 1, ReadWrite(0xffff_f00c)),
    register("MSIXPERM reserved", 4, 1, Reserved),
];

/// An entry of the MSI-X table (PCIe 7.7.2).
pub const VECTOR_REGISTERS: &[Register] = &[
    register("MSI-X address", 0, 2, ReadWrite(u32::MAX)),
    register("MSI-X data", 8, 1, ReadWrite(u32::MAX)),
    register("MSI-X control", 12, 1, ReadWrite(1)),
];

/// Where GRPCFG stands in BAR 0.
pub(crate) const GROUPS_AT: u32 = 0x400;
/// Where WQCFG stands.
pub(crate) const QUEUES_AT: u32 = 0x800;
/// Where the MSI-X permission table stands.
pub(crate) const PERMISSIONS_AT: u32 = 0x1000;
/// Where the MSI-X table stands.
pub(crate) const VECTORS_AT: u32 = 0x2000;
/// Where the MSI-X pending bits stand.
pub(crate) const PENDING_AT: u32 = 0x3000;
/// The size of an MSI-X table entry in bytes.
const VECTOR_BYTES: u64 = 16;

/// Which table of BAR 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// WQCFG.
    Queues,
    /// GRPCFG.
    Groups,
    /// The MSI-X permission table.
    Permissions,
    /// The MSI-X table.
    Vectors,
}

/// A table: where it is, what its entries are made of.
#[derive(Clone, Copy, Debug)]
pub struct TableSpec {
    /// Which one.
    pub table: Table,
    /// Where it starts in BAR 0.
    pub offset: u64,
    /// The size of an entry.
    pub entry_bytes: u64,
    /// The registers of an entry.
    pub registers: &'static [Register],
}

const fn table(
    table: Table,
    offset: u32,
    entry_bytes: u64,
    registers: &'static [Register],
) -> TableSpec {
    TableSpec {
        table,
        offset: offset as u64,
        entry_bytes,
        registers,
    }
}

/// All tables.
pub const TABLES: &[TableSpec] = &[
    table(Table::Queues, QUEUES_AT, WQCFG_BYTES, QUEUE_REGISTERS),
    table(Table::Groups, GROUPS_AT, GRPCFG_BYTES, GROUP_REGISTERS),
    table(
        Table::Permissions,
        PERMISSIONS_AT,
        MSIXPERM_BYTES,
        PERMISSION_REGISTERS,
    ),
    table(Table::Vectors, VECTORS_AT, VECTOR_BYTES, VECTOR_REGISTERS),
];

/// What a word of BAR 0 is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A register at a fixed offset, by that of the word.
    Register(u64),
    /// A word of an entry of a table.
    Entry {
        table: Table,
        index: usize,
        word: usize,
    },
}

impl Layout {
    fn entries(&self, table: Table) -> u64 {
        match table {
            Table::Queues => self.queues.into(),
            Table::Groups => self.shape.groups.into(),
            Table::Permissions | Table::Vectors => self.vectors().into(),
        }
    }

    /// What stands at an offset, a multiple of 4; `None`: nothing.
    pub(crate) fn locate(&self, offset: u64) -> Option<(Place, AccessClass)> {
        if offset < GROUPS_AT.into() {
            let register = find(REGISTERS, offset)?;
            return Some((Place::Register(offset), register.class));
        }
        let in_table = |spec: &&TableSpec| {
            offset >= spec.offset
                && offset < spec.offset + spec.entry_bytes * self.entries(spec.table)
        };
        let spec = TABLES.iter().find(in_table)?;
        let within = (offset - spec.offset) % spec.entry_bytes;
        let register = find(spec.registers, within)?;
        let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let place = Place::Entry {
            table: spec.table,
            index: number((offset - spec.offset) / spec.entry_bytes),
            word: number(within / 4),
        };
        Some((place, register.class))
    }
}

fn find(registers: &'static [Register], offset: u64) -> Option<&'static Register> {
    let holds = |register: &&Register| {
        offset >= register.offset && offset < register.offset + 4 * register.words
    };
    registers.iter().find(holds)
}
