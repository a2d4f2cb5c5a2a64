use palisade_pci::{AccessError, Bar, Function};

use super::super::map::{AccessClass, REGISTERS, TABLES, Table};
use super::{Driver, dedicated};
use crate::spec::{Command, CommandError, register};
use crate::testing::Host;

/// Offsets of the words of all registers that a function of this shape has, with their names and classes.
fn words() -> Vec<(u64, &'static str, AccessClass)> {
    let mut all = Vec::new();
    for register in REGISTERS {
        for word in 0..register.words {
            all.push((register.offset + 4 * word, register.name, register.class));
        }
    }
    for spec in TABLES {
        let entries = match spec.table {
            Table::Queues => 8,
            Table::Groups => 4,
            Table::Permissions | Table::Vectors => 9,
        };
        for entry in 0..entries {
            for register in spec.registers {
                for word in 0..register.words {
                    let at = spec.offset + entry * spec.entry_bytes + register.offset + 4 * word;
                    all.push((at, register.name, register.class));
                }
            }
        }
    }
    all
}

/// What a write of all ones leaves, and of zeros after it.
fn sweep(driver: &Driver, locked: impl Fn(u64, AccessClass) -> bool) {
    for (at, name, class) in words() {
        let before = driver.read(at);
        let permission = name == "MSIXPERM";
        let mask = match class {
            AccessClass::Command => continue,
            _ if locked(at, class) => 0,
            // Without the PASID bit: what that does is for the policy to say.
            AccessClass::ReadWrite(_) if permission => 4,
            AccessClass::ReadWrite(mask)
            | AccessClass::LockedByDevice(mask)
            | AccessClass::LockedByQueue(mask) => mask,
            AccessClass::ReadOnly | AccessClass::WriteOneClears(_) | AccessClass::Reserved => 0,
        };
        let ones = if permission { !8 & 0xfff } else { u32::MAX };
        driver.write(at, ones);
        let expected = if mask == 0 { before } else { mask };
        assert_eq!(driver.read(at), expected, "{name} at {at:#x} after ones");
        driver.write(at, before);
        assert_eq!(
            driver.read(at),
            before,
            "{name} at {at:#x} after what it was"
        );
        if class == AccessClass::Reserved {
            assert_eq!(before, 0, "{name} at {at:#x}");
        }
    }
}

#[test]
fn r69_each_word_has_its_class() {
    let host = Host::new();
    sweep(&Driver::new(&host), |_, _| false);
}

#[test]
fn r69_configuration_is_locked_while_it_is_in_use() {
    let host = Host::new();
    let driver = Driver::enabled(&host, &[dedicated(1), dedicated(2)]);
    driver.enable(1);
    sweep(&driver, |at, class| match class {
        AccessClass::LockedByDevice(_) => true,
        AccessClass::LockedByQueue(_) => (0x820..0x840).contains(&at),
        _ => false,
    });
}

#[test]
fn r69_nothing_stands_elsewhere() {
    let host = Host::new();
    let driver = Driver::new(&host);
    let known: Vec<u64> = words().iter().map(|(at, ..)| *at).collect();
    for at in (0..0x1_0000).step_by(4).filter(|at| !known.contains(at)) {
        driver.write(at, u32::MAX);
        assert_eq!(driver.read(at), 0, "{at:#x}");
    }
}

#[test]
fn r69_software_errors_and_causes_are_cleared_by_ones() {
    let host = Host::new();
    let driver = Driver::new(&host);
    driver.submit(3, &crate::spec::Descriptor::no_op());
    driver.submit(4, &crate::spec::Descriptor::no_op());
    assert_eq!(driver.read(register::INTCAUSE), 1);
    driver.write(register::INTCAUSE, 2);
    assert_eq!(driver.read(register::INTCAUSE), 1, "another bit");
    driver.write(register::INTCAUSE, 1);
    assert_eq!(driver.read(register::INTCAUSE), 0);
    assert_eq!(
        driver.read(register::SWERR) & 0b11,
        0b11,
        "valid, and there were more"
    );
    assert_eq!(
        driver.read(register::SWERR) >> 16 & 0xff,
        3,
        "the first stays"
    );
    driver.write(register::SWERR, 0b01);
    assert_eq!(driver.read(register::SWERR), 0b10);
    driver.write(register::SWERR, 0b10);
    assert_eq!(driver.read(register::SWERR), 0);
}

#[test]
fn a_wide_access_is_several_words_and_an_odd_one_is_refused() {
    let host = Host::new();
    let driver = Driver::new(&host);
    let mut all = [0; 0x80];
    driver.function.bar_read(Bar::Bar0, 0, &mut all).unwrap();
    assert_eq!(all[0x10..0x14], driver.read(0x10).to_le_bytes());
    let mut byte = [0; 1];
    driver
        .function
        .bar_read(Bar::Bar0, 0x13, &mut byte)
        .unwrap();
    assert_eq!(byte[0], driver.read(0x10).to_le_bytes()[3]);
    driver
        .function
        .bar_write(Bar::Bar0, 0x800, &[5, 0, 0, 0, 3, 0, 0, 0])
        .unwrap();
    assert_eq!((driver.read(0x800), driver.read(0x804)), (5, 3));
    for (at, len) in [(0x801, 4), (0x800, 2), (0x802, 2)] {
        let refused = driver.function.bar_write(Bar::Bar0, at, &[0; 4][..len]);
        assert!(
            matches!(refused, Err(AccessError::Width { .. })),
            "{at:#x}, {len}"
        );
    }
}

#[test]
fn a_function_has_two_bars_and_reads_of_portals_say_nothing() {
    let host = Host::new();
    let driver = Driver::new(&host);
    let lens = Bar::ALL.map(|bar| driver.function.bar_len_bytes(bar));
    assert_eq!(lens, [0x1_0000, 0, 0x2_0000, 0, 0, 0]);
    let mut bytes = [0; 8];
    driver
        .function
        .bar_read(Bar::Bar2, 0x1000, &mut bytes)
        .unwrap();
    assert_eq!(bytes, [0xff; 8]);
}

#[test]
fn r72_a_retired_function_answers_no_more() {
    let host = Host::new();
    let driver = Driver::enabled(&host, &[dedicated(1)]);
    driver.enable(0);
    driver.function.retire();
    let read = driver.function.bar_read(Bar::Bar0, 0, &mut [0; 4]);
    assert_eq!(read, Err(AccessError::NotReady { bar: Bar::Bar0 }));
    let write = driver.function.bar_write(Bar::Bar2, 0, &[0; 64]);
    assert_eq!(write, Err(AccessError::NotReady { bar: Bar::Bar2 }));
}

#[test]
fn a_function_level_reset_clears_everything() {
    let host = Host::new();
    let driver = Driver::enabled(&host, &[dedicated(1)]);
    driver.enable(0);
    driver.submit(0, &crate::spec::Descriptor::no_op());
    let mut capability = [0; 1];
    driver.function.config_read(0x34, &mut capability);
    let control = u16::from(capability[0]) + 8;
    driver
        .function
        .config_write(control, &0x8000_u16.to_le_bytes());
    assert_eq!(
        [0x800, 0x808, 0x90, 0x400].map(|at| driver.read(at)),
        [0; 4]
    );
    assert_eq!(
        driver.command(Command::ENABLE_DEVICE, 0),
        CommandError::BUS_MASTER_OFF
    );
}
