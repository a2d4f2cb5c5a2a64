//! A slice against the map of its registers.

use palisade_dsa::EntryPoint;
use palisade_dsa::spec::{Command, CommandError, Descriptor, register};
use palisade_pci::{AccessError, Bar};

use super::rig::{Driver, Host, PERMISSIONS, QUEUES, SLOT, dedicated};
use crate::SliceType::{DedicatedQueue, SharedQueue};
use crate::{Access, Assigned, Place, SliceType, TrappedRegister, Treatment, trap_map};

/// How far a driver has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AsAfterReset,
    DeviceEnabled,
    QueueEnabled,
}

/// A slice in a state, without PASIDs in it.
fn slice_in(state: State) -> (Host, super::rig::Tenant, Assigned, Driver) {
    let host = Host::new();
    let tenant = host.tenant(1);
    let slice = host.slice(1, DedicatedQueue);
    let assigned = slice
        .assign(&tenant.container, SLOT, tenant.guest.clone())
        .unwrap();
    let driver = match state {
        State::AsAfterReset => Driver::new(&assigned),
        State::DeviceEnabled | State::QueueEnabled => Driver::bring_up(&assigned),
    };
    if state == State::QueueEnabled {
        let without = dedicated(0).with_pasid_enable(false);
        assert_eq!(driver.enable(without), CommandError::SUCCESS);
    }
    (host, tenant, assigned, driver)
}

const STATES: [State; 3] = [
    State::AsAfterReset,
    State::DeviceEnabled,
    State::QueueEnabled,
];

fn at(map: &[TrappedRegister], place: Place, offset: u64) -> Option<&TrappedRegister> {
    map.iter()
        .find(|register| register.place == place && register.has(offset))
}

#[test]
fn r69_each_byte_is_at_most_one_registers() {
    let map = trap_map();
    let ends = [
        (Place::Config, 4096),
        (Place::Bar(Bar::Bar0), 0x1_0000),
        (Place::Bar(Bar::Bar2), 0x4000),
    ];
    for (place, end) in ends {
        let mut bytes = 0;
        for offset in 0..end {
            let all = map.iter().filter(|r| r.place == place && r.has(offset));
            let count = all.count();
            assert!(count <= 1, "{place:?} {offset:#x}");
            bytes += u64::try_from(count).unwrap();
        }
        let own = map.iter().filter(|r| r.place == place);
        let expected: u64 = own.map(|r| r.entries * r.len_bytes).sum();
        assert_eq!(bytes, expected, "none is beyond {end:#x}");
    }
    let portals = map.iter().filter(|r| r.place == Place::Bar(Bar::Bar2));
    let portals: u64 = portals.map(|r| r.len_bytes * r.entries).sum();
    assert_eq!(portals, 0x4000, "no byte of BAR 2 is left out");
}

/// What a word of BAR 0 takes of a write of ones.
fn kept(access: Access, state: State) -> Option<u32> {
    match access {
        Access::ReadWrite(mask) => Some(mask),
        Access::LockedByDevice(mask) => (state == State::AsAfterReset).then_some(mask),
        Access::LockedByQueue(mask) => (state != State::QueueEnabled).then_some(mask),
        Access::ReadWriteStarts { .. } => panic!("there is none in BAR 0"),
        _ => None,
    }
}

fn word_obeys_its_class(
    driver: &Driver,
    register: Option<&TrappedRegister>,
    at: u64,
    state: State,
) {
    let access = register.map_or(Access::Reserved, |r| r.access);
    let name = register.map_or("nothing", |r| r.name);
    let before = driver.read(at);
    if access == Access::Command {
        // Commands have tests of their own.
        assert_eq!(before, 0);
        return;
    }
    // What a permission's PASID does is for the mediation to say.
    let ones = if name == "MSIXPERM" { 0xff7 } else { u32::MAX };
    let expected = kept(access, state).map_or(before, |mask| mask & ones);
    driver.write(at, ones);
    assert_eq!(driver.read(at), expected, "{name} at {at:#x}, {state:?}");
    driver.write(at, before);
    assert_eq!(driver.read(at), before, "{name} at {at:#x}, {state:?}");
    if access == Access::Reserved {
        assert_eq!(before, 0, "{name} at {at:#x}, {state:?}");
    }
}

#[test]
fn r69_each_word_of_bar_0_obeys_its_class_in_every_state() {
    let map = trap_map();
    for state in STATES {
        let (_host, _tenant, _assigned, driver) = slice_in(state);
        for offset in (0..0x1_0000).step_by(4) {
            let register = at(&map, Place::Bar(Bar::Bar0), offset);
            word_obeys_its_class(&driver, register, offset, state);
        }
        assert_eq!(driver.error(), None);
    }
}

#[test]
fn r69_what_is_cleared_by_ones_is_cleared_by_ones_alone() {
    let (_host, _tenant, _assigned, driver) = slice_in(State::DeviceEnabled);
    // Two errors: the first is told, and that there were more.
    for _ in 0..2 {
        driver.submit(&Descriptor::no_op());
    }
    let mut cleared = 0;
    for register in trap_map() {
        let (Place::Bar(_), Access::WriteOneClears(mask)) = (register.place, register.access)
        else {
            continue;
        };
        let (at, name) = (register.offset_bytes, register.name);
        let before = driver.read(at);
        assert_ne!(before & mask, 0, "{name}");
        for nothing in [0, !before, !mask] {
            driver.write(at, nothing);
            assert_eq!(driver.read(at), before, "{name}");
        }
        for bit in (0..32)
            .map(|bit| 1 << bit)
            .filter(|bit| before & mask & bit != 0)
        {
            let whole = driver.read(at);
            driver.write(at, bit);
            // With the last one the rest of an error is of no meaning any more.
            assert_eq!(driver.read(at) & mask, whole & mask & !bit, "{name}");
            cleared += 1;
        }
    }
    assert_eq!(cleared, 3);
    assert_eq!(driver.error(), None);
}

#[test]
fn r69_each_byte_of_bar_0_is_read_alone_and_written_with_its_word() {
    let (_host, _tenant, _assigned, driver) = slice_in(State::DeviceEnabled);
    for offset in 0..0x1_0000 {
        let word = driver.read(offset - offset % 4).to_le_bytes();
        let mut byte = [0];
        let bar = Bar::Bar0;
        driver.function.bar_read(bar, offset, &mut byte).unwrap();
        assert_eq!(byte[0], word[usize::try_from(offset % 4).unwrap()]);
        for len in [1, 2, 3, 4] {
            let whole = offset % 4 == 0 && len == 4;
            if whole {
                continue;
            }
            let written = driver.function.bar_write(bar, offset, &[0xff; 4][..len]);
            assert!(
                matches!(written, Err(AccessError::Width { .. })),
                "{offset:#x}"
            );
        }
        assert_eq!(driver.read(offset - offset % 4).to_le_bytes(), word);
    }
}

#[test]
fn r69_each_byte_of_configuration_space_obeys_its_class_in_every_state() {
    let map = trap_map();
    for state in STATES {
        let (_host, _tenant, _assigned, driver) = slice_in(state);
        let read = |offset| {
            let mut byte = [0];
            driver.function.config_read(offset, &mut byte);
            byte[0]
        };
        for offset in 0..4096_u16 {
            let register = at(&map, Place::Config, offset.into());
            let access = register.map_or(Access::Reserved, |r| r.access);
            let byte_of = |mask: u32| {
                let within = register.and_then(|r| r.within(offset.into())).unwrap();
                mask.to_le_bytes()[usize::try_from(within).unwrap()]
            };
            let (writable, starts) = match access {
                Access::ReadWrite(mask) => (byte_of(mask), 0),
                Access::ReadWriteStarts { mask, starts } => (byte_of(mask), byte_of(starts)),
                Access::ReadOnly | Access::WriteOneClears(_) | Access::Reserved => (0, 0),
                other => panic!("{other:?} in configuration space"),
            };
            let clears = match access {
                Access::WriteOneClears(mask) => byte_of(mask),
                _ => 0,
            };
            let before = read(offset);
            assert_eq!(before & clears, 0, "no error is ever set");
            driver.function.config_write(offset, &[!starts]);
            let expected = (before & !writable) | writable;
            assert_eq!(read(offset), expected, "{offset:#x}, {state:?}");
            driver.function.config_write(offset, &[0]);
            assert_eq!(read(offset), before & !writable, "{offset:#x}, {state:?}");
            driver.function.config_write(offset, &[before]);
            assert_eq!(read(offset), before, "{offset:#x}, {state:?}");
            if access == Access::Reserved {
                assert_eq!(before, 0, "{offset:#x}, {state:?}");
            }
        }
    }
}

#[test]
fn r69_the_bit_that_starts_something_resets_the_slice() {
    let map = trap_map();
    let starts = map.iter().filter_map(|r| match r.access {
        Access::ReadWriteStarts { starts, .. } => Some((r.offset_bytes, starts)),
        _ => None,
    });
    let starts: Vec<_> = starts.collect();
    assert_eq!(starts.len(), 1);
    let (_host, _tenant, _assigned, driver) = slice_in(State::QueueEnabled);
    assert_eq!(driver.read(register::GENSTS), 1);
    let offset = u16::try_from(starts[0].0).unwrap();
    driver
        .function
        .config_write(offset, &starts[0].1.to_le_bytes()[..2]);
    assert_eq!(driver.read(register::GENSTS), 0);
    assert_eq!(driver.read(QUEUES), 0);
}

#[test]
fn r69_each_page_of_bar_2_takes_descriptors_or_is_an_error() {
    let map = trap_map();
    let (_host, _tenant, _assigned, driver) = slice_in(State::DeviceEnabled);
    for offset in (0..0x4000).step_by(64) {
        let register = at(&map, Place::Bar(Bar::Bar2), offset).unwrap();
        let mut bytes = [0; 64];
        driver
            .function
            .bar_read(Bar::Bar2, offset, &mut bytes)
            .unwrap();
        assert_eq!(bytes, [0xff; 64]);
        let descriptor = Descriptor::no_op();
        let descriptor = zerocopy::IntoBytes::as_bytes(&descriptor);
        driver
            .function
            .bar_write(Bar::Bar2, offset, descriptor)
            .unwrap();
        // The queue is disabled, which only a descriptor learns.
        let error = driver.error().unwrap();
        let submitted = error.operation.is_some();
        assert_eq!(
            submitted,
            register.access == Access::Submission,
            "{offset:#x}"
        );
    }
}

#[test]
fn r18_no_page_of_a_slice_can_be_mapped() {
    for kind in [DedicatedQueue, SharedQueue] {
        let host = Host::new();
        let (_bob, assigned, _) = host.with_slice(2, kind);
        let function = assigned.function();
        let map = trap_map();
        for bar in Bar::ALL {
            let pages = function.bar_len_bytes(bar) / 0x1000;
            for page in 0..pages {
                // What is in no register is served, too: it reads as zero.
                let on_it = map.iter().filter(|r| {
                    r.place == Place::Bar(bar)
                        && (page * 0x1000..(page + 1) * 0x1000).any(|offset| r.has(offset))
                });
                let direct = on_it.filter(|r| r.treatment == Treatment::Direct);
                assert_eq!(direct.count(), 0, "{bar} page {page}");
            }
        }
        let points = map.iter().flat_map(|r| r.entry_points).copied();
        let points: Vec<EntryPoint> = points.collect();
        for point in [
            EntryPoint::QueueConfig,
            EntryPoint::InterruptPermission,
            EntryPoint::Descriptor,
            EntryPoint::CommandOperand,
        ] {
            assert!(points.contains(&point), "{point:?}");
        }
    }
}

/// How many PASIDs were forwarded and refused.
fn counted(host: &Host) -> (u64, u64) {
    let log = host.parent.forwarded();
    (log.forwarded(), log.refused())
}

/// A PASID written into a register in each of the ways in which one could stand there.
fn writes_of(pasid: u32) -> [u32; 5] {
    let mode = dedicated(pasid).into_bits();
    [pasid, pasid << 8 | 1, pasid << 12 | 0b1000, mode, u32::MAX]
}

fn r70_of(kind: SliceType) {
    let host = Host::new();
    let alice = host.tenant(1);
    let foreign = alice.alloc().get();
    let (_bob, _assigned, driver) = host.with_slice(2, kind);
    for register in trap_map() {
        let counts = counted(&host);
        let offset = register.offset_bytes;
        match register.place {
            Place::Config => {
                let offset = u16::try_from(offset).unwrap();
                let keep = |driver: &Driver, bytes: &mut [u8]| {
                    driver.function.config_read(offset, bytes);
                };
                let mut before = vec![0; usize::try_from(register.len_bytes).unwrap()];
                keep(&driver, &mut before);
                // Without the bus the device would halt, and nothing enter any more.
                let bus_master = if register.name == "Command" {
                    1 << 2
                } else {
                    0
                };
                for value in writes_of(foreign) {
                    let no_reset = value & !0x8000 | bus_master;
                    let bytes = &no_reset.to_le_bytes()[..before.len()];
                    driver.function.config_write(offset, bytes);
                }
                driver.function.config_write(offset, &before);
            }
            Place::Bar(Bar::Bar0) if register.access != Access::Command => {
                let last = offset + (register.entries - 1) * register.stride_bytes;
                for start in [offset, last] {
                    for at in (start..start + register.len_bytes).step_by(4) {
                        let before = driver.read(at);
                        for value in writes_of(foreign) {
                            driver.write(at, value);
                        }
                        driver.write(at, before);
                    }
                }
            }
            // Below.
            _ => continue,
        }
        let entered = counted(&host) != counts;
        let at_once = [EntryPoint::InterruptPermission];
        assert_eq!(
            entered,
            register.entry_points == at_once,
            "{}",
            register.name
        );
    }
    driver.error();
    // The others enter when something is asked for, and in no other way.
    let refused = |by: &dyn Fn()| {
        let counts = counted(&host);
        by();
        let (forwarded, refused) = counted(&host);
        assert_eq!(forwarded, counts.0, "nothing was forwarded");
        refused != counts.1
    };
    for code in 0..32 {
        if code == Command::RESET_DEVICE.0 || code == Command::DISABLE_DEVICE.0 {
            continue;
        }
        let by_operand = [Command::DRAIN_PASID, Command::ABORT_PASID]
            .iter()
            .any(|command| command.0 == code);
        let by_queue = code == Command::ENABLE_QUEUE.0;
        let code = palisade_dsa::spec::CommandCode(code);
        let command = || _ = driver.command(code, foreign);
        assert_eq!(refused(&command), by_operand, "{code:?}");
        if by_queue {
            let enable = || _ = driver.enable(dedicated(foreign));
            assert_eq!(refused(&enable), kind == DedicatedQueue);
        }
    }
    let submit = || driver.submit(&Descriptor::no_op().with_pasid(foreign));
    assert!(!refused(&submit), "the queue is disabled");
    if kind == SharedQueue {
        // A reset of the queue was among the commands.
        driver.configure();
        let shared = dedicated(0).with_dedicated(false);
        assert_eq!(driver.enable(shared), CommandError::SUCCESS);
        assert!(refused(&submit));
    }
    let permission = || driver.write(PERMISSIONS, foreign << 12 | 0b1000);
    assert!(refused(&permission));
}

#[test]
fn r70_a_pasid_enters_where_the_map_says_and_nowhere_else() {
    r70_of(DedicatedQueue);
    r70_of(SharedQueue);
}
