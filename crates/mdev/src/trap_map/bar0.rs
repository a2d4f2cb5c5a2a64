//! BAR 0. Where a register stands and what a write does to it is the accelerator's to say; here is what becomes of
//! it in a slice.

use palisade_dsa::EntryPoint;
use palisade_dsa::Shape;
use palisade_dsa::function::map::{REGISTERS, Register, TABLES, Table};
use palisade_pci::Bar;

use super::{Access, Place, QUEUES, Reaches, TrappedRegister, Treatment};

/// Where the MSI-X pending bits stand.
const PENDING_AT: u64 = 0x3000;

/// What becomes of a register, by its name.
struct Fate {
    name: &'static str,
    emulated: &'static str,
    reaches: Reaches,
    entry_points: &'static [EntryPoint],
}

const fn own(name: &'static str, emulated: &'static str) -> Fate {
    Fate {
        name,
        emulated,
        reaches: Reaches::Nothing,
        entry_points: &[],
    }
}

const fn entered(
    name: &'static str,
    reaches: Reaches,
    entry_points: &'static [EntryPoint],
    emulated: &'static str,
) -> Fate {
    Fate {
        name,
        emulated,
        reaches,
        entry_points,
    }
}

#[rustfmt::skip]
const FATES: &[Fate] = &[
    own("VERSION", "1.0"),
    own("GENCAP", "what the accelerator can do, the same for every slice"),
    own("WQCAP", "one queue, whose occupancy can be read; which modes it has, the slice's type says"),
    own("GRPCAP", "four groups and 96 read buffers, of the slice alone"),
    own("ENGCAP", "as many engines as the parent shows; which one works is the host's business"),
    own("OPCAP", "the operations of the accelerator"),
    own("OFFSETS", "where the tables stand"),
    own("GENCFG", "kept, and checked when the device is enabled; the limit of read buffers has no effect on the engines"),
    own("GENCTRL", "which events of the slice interrupt"),
    own("GENSTS", "the slice's own state"),
    own("INTCAUSE", "why the slice's vector 0 fired"),
    entered("CMD", Reaches::OwnWork, &[EntryPoint::CommandOperand], "below; other slices notice nothing"),
    own("CMDSTS", "how the slice's last command went"),
    own("CMDCAP", "the commands below"),
    own("SWERR", "the slice's first error that no record could tell, in the guest's PASID"),
    own("WQ size", "how many descriptors the slice queues"),
    own("WQ threshold", "up to how many that wait for an engine or a page the limited portal of a shared queue takes"),
    entered("WQ mode", Reaches::Nothing, &[EntryPoint::QueueConfig], "mode, priority, ATS; the priority is checked, and gives no more turns than another; the PASID in it enters when CMD enables a dedicated queue"),
    own("WQ limits", "largest transfer and batch"),
    own("WQ occupancy interrupt", "zero: there is none"),
    own("WQ state", "whether the slice's queue is enabled, and how many of its descriptors wait for an engine or a page: of the slice's own, whoever shares the queue"),
    own("WQ reserved", "zero"),
    own("GRPWQCFG", "kept, and checked when the device is enabled"),
    own("GRPENGCFG", "kept, and checked when the device is enabled"),
    own("GRPFLAGS", "kept; read buffers are checked when the device is enabled, and have no effect on the engines, as traffic classes have none"),
    own("GRPCFG reserved", "zero"),
    entered("MSIXPERM", Reaches::Hold, &[EntryPoint::InterruptPermission], "who may ask for the vector; an entry with a PASID that is refused stays clear"),
    own("MSIXPERM reserved", "zero"),
    own("MSI-X address", "kept; the VMM connects vectors by requests of its own"),
    own("MSI-X data", "kept; the VMM connects vectors by requests of its own"),
    own("MSI-X control", "kept; the VMM connects vectors by requests of its own"),
];

/// A register that the table above does not name: a test keeps that from happening.
const UNKNOWN: Fate = own("", "");

fn placed(register: &Register, start: u64, entries: u64, stride_bytes: u64) -> TrappedRegister {
    let fate = FATES.iter().find(|fate| fate.name == register.name);
    let fate = fate.unwrap_or(&UNKNOWN);
    TrappedRegister {
        place: Place::Bar(Bar::Bar0),
        name: register.name,
        offset_bytes: start + register.offset,
        len_bytes: 4 * register.words,
        entries,
        stride_bytes,
        treatment: Treatment::Trapped,
        access: register.class.into(),
        emulated: fate.emulated,
        reaches: fate.reaches,
        entry_points: fate.entry_points,
    }
}

/// The registers of BAR 0, in the order of their offsets.
pub(super) fn registers() -> Vec<TrappedRegister> {
    let alone = |register: &Register| placed(register, 0, 1, 4 * register.words);
    let mut all: Vec<_> = REGISTERS.iter().map(alone).collect();
    for table in TABLES {
        let entries = match table.table {
            Table::Queues => QUEUES.into(),
            Table::Groups => Shape::default().groups.into(),
            Table::Permissions | Table::Vectors => u64::from(QUEUES) + 1,
        };
        let in_table = |r: &Register| placed(r, table.offset, entries, table.entry_bytes);
        all.extend(table.registers.iter().map(in_table));
    }
    all.push(TrappedRegister {
        place: Place::Bar(Bar::Bar0),
        name: "MSI-X pending bits",
        offset_bytes: PENDING_AT,
        len_bytes: 8,
        entries: 1,
        stride_bytes: 8,
        treatment: Treatment::Trapped,
        access: Access::Reserved,
        emulated: "none: interrupts go to the VMM at once, which holds masked ones back",
        reaches: Reaches::Nothing,
        entry_points: &[],
    });
    all.sort_by_key(|register| register.offset_bytes);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r69_each_register_of_the_accelerator_has_its_fate_in_a_slice() {
        let tables = TABLES.iter().flat_map(|table| table.registers);
        let names: Vec<_> = REGISTERS.iter().chain(tables).map(|r| r.name).collect();
        for name in &names {
            let count = FATES.iter().filter(|fate| fate.name == *name).count();
            assert_eq!(count, 1, "{name}");
        }
        for fate in FATES {
            assert!(names.contains(&fate.name), "{}", fate.name);
        }
    }
}
