//! States as they were written once: what this version reads for as long as it is this version.

use std::path::PathBuf;

use zerocopy::IntoBytes;

use super::*;
use crate::function::saved::FunctionState;
use crate::function::shape::Layout;
use crate::spec::InterruptPermission;

/// Writes the files anew when set. Only a new version of the format may change them.
const UPDATE: &str = "UPDATE_GOLDEN";

fn file(name: &str) -> PathBuf {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    PathBuf::from(directory).join(name)
}

fn check(name: &str, machine: &Machine) {
    let bytes = machine.stop_and_save();
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(file(name), &bytes).unwrap();
    }
    let golden = std::fs::read(file(name)).unwrap();
    assert!(golden == bytes, "{name} is not what is written today");
    machine.other(9).take_over(&golden);
}

#[test]
fn a_function_after_reset() {
    check("function-v2-reset.bin", &Machine::new(0));
}

#[test]
fn a_function_that_has_halted() {
    let machine = Machine::with(0, &[dedicated(5)]);
    machine.driver.function.config_write(4, &[2, 0]);
    check("function-v2-halted.bin", &machine);
}

/// Something of everything: a state for the hostile tests, too.
pub(super) fn at_work() -> Machine {
    let machine = Machine::with(100, &[dedicated(5), shared(), dedicated(6)]);
    let root = machine.process(5);
    machine.process(6);
    let permission = InterruptPermission::new()
        .with_pasid_enable(true)
        .with_pasid(6);
    machine
        .driver
        .write(PERMISSIONS + 8, permission.into_bits());
    machine.driver.write(register::GENCTRL, 1);
    machine.driver.submit(7, &copy(0));
    let beyond = Descriptor::memory_move(FROM, TO + 0x1000, 64);
    let parts = [copy(1), beyond.with_flags(BLOCK).with_record(RECORD + 64)];
    machine.host.write(FROM + 0x3000, parts.as_bytes());
    let batch = Descriptor::batch(FROM + 0x3000, 2).with_record(RECORD);
    machine.driver.submit(0, &batch);
    machine.map(root, TO);
    let across = |descriptor: Descriptor| descriptor.with_flags(BLOCK).with_pasid(5);
    let crc = Descriptor::copy_crc(FROM, TO, 0x2000);
    machine
        .driver
        .submit(1, &across(crc.with_record(RECORD + 96)));
    let fill = Descriptor::memory_fill(7, TO, 0x2000);
    machine
        .driver
        .submit(1, &across(fill.with_record(RECORD + 128)));
    machine
        .driver
        .submit(2, &Descriptor::memory_move(TO, FROM, 64).with_flags(BLOCK));
    machine.run();
    let drain = Command::of(Command::DRAIN_PASID)
        .with_operand(5)
        .with_interrupt(true);
    assert!(machine.driver.command_now(drain).active());
    machine.driver.submit(0, &copy(5));
    machine.driver.submit(0, &Descriptor::drain());
    machine.driver.submit(1, &copy(6).with_pasid(6));
    let portal = portal_offset(0, Portal::Limited);
    let descriptor = copy(7);
    let part = &descriptor.as_bytes()[..8];
    machine
        .driver
        .function
        .bar_write(Bar::Bar2, portal, part)
        .unwrap();
    machine.migration().stop();
    machine.driver.submit(2, &copy(8));
    machine.driver.write(register::GENCTRL, 3);
    machine
}

#[test]
fn a_function_at_work() {
    check("function-v2-working.bin", &at_work());
}

/// The version before had no PASIDs that mean nothing any more.
#[test]
fn what_the_version_before_wrote_is_read() {
    for name in ["reset", "halted", "working"] {
        let old = std::fs::read(file(&format!("function-v1-{name}.bin"))).unwrap();
        let new = std::fs::read(file(&format!("function-v2-{name}.bin"))).unwrap();
        let machine = Machine::new(9);
        machine.migration().stop();
        machine.migration().restore(&old).unwrap();
        assert!(machine.migration().save().unwrap() == new, "{name}");
    }
}

/// What stood in the bits of read buffers before there were any had no effect, and no bounds.
#[test]
fn what_the_version_before_kept_of_read_buffers_is_gone() {
    let layout = Layout::new(Shape::default(), 8);
    let new = at_work().stop_and_save();
    let mut state = FunctionState::from_bytes(&new, &layout).unwrap();
    state.registers.general_config = 0xff;
    state.groups[1][10] = u32::MAX;
    state.groups[1][11] = u32::MAX;
    assert!(FunctionState::from_bytes(&state.to_bytes(&layout), &layout).is_err());
    let old = state.to_bytes_of_version_one(&layout);
    let mut read = FunctionState::from_bytes(&old, &layout).unwrap();
    assert_eq!(read.groups[1][10], 0x3f, "traffic classes");
    read.groups[1][10] = 0;
    assert!(read.to_bytes(&layout) == new);
}

#[test]
fn a_function_with_read_buffers() {
    let machine = Machine::new(0);
    machine.driver.write(register::GENCFG, 96);
    machine.driver.write(GROUPS + 40, 0x0600_1089);
    machine.driver.write(GROUPS + 64 + 40, 0x0200_2009);
    machine.driver.set_up(&[dedicated(5)]);
    check("function-v2-read-buffers.bin", &machine);
}

#[test]
fn a_function_whose_pasids_are_gone() {
    check("function-v2-stale.bin", &super::stale::left_over());
}
