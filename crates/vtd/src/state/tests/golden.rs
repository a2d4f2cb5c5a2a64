//! States as they were written once: what this version reads for as long as it is this version.

use std::path::PathBuf;

use super::*;

/// Writes the files anew when set. Only a new version of the format may change them.
const UPDATE: &str = "UPDATE_GOLDEN";

fn file(name: &str) -> PathBuf {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    PathBuf::from(directory).join(name)
}

fn check(name: &str, rig: &mut Rig) {
    let state = rig.unit.save();
    let bytes = state.to_bytes();
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(file(name), &bytes).unwrap();
    }
    let golden = std::fs::read(file(name)).unwrap();
    assert!(golden == bytes, "{name} is not what is written today");
    let read = UnitState::from_bytes(&golden).unwrap();
    assert_eq!(read, state);
    let _other = other_host(rig, 32, 3);
    restore(rig, &read).unwrap();
    assert_eq!(rig.unit.save(), state, "{name} goes round");
}

#[test]
fn a_unit_after_power_on() {
    check("unit-v1-reset.bin", &mut Rig::new());
}

#[test]
fn a_unit_at_work() {
    let mut rig = Rig::booted();
    rig.set_page_request_queue(0);
    let space = Space::new(&mut rig);
    rig.bind(pasid(1), &space);
    let _asked = [ask(&rig, 1), ask(&rig, 1)];
    for n in 0..5 {
        assert!(rig.read(Some(pasid(1)), Iova::new(n << 12)).is_err());
    }
    let _ = rig.take_record();
    rig.write32(reg::IECTL, 1 << 31);
    check("unit-v1-working.bin", &mut rig);
}

#[test]
fn a_unit_with_virtual_commands() {
    let mut rig = with_virtual_commands();
    for _ in 0..3 {
        allocate(&rig).unwrap();
    }
    check("unit-v1-virtual-commands.bin", &mut rig);
}

#[test]
fn a_unit_with_a_full_log() {
    let mut rig = Rig::booted();
    rig.set_context(FUNCTION, ContextFlags::DEVICE_TLB);
    for n in 0..=reg::FAULT_RECORD_COUNT {
        assert!(rig.read(Some(pasid(1)), Iova::new(n << 12)).is_err());
    }
    rig.command(Command::TRANSLATION_ENABLE);
    check("unit-v1-full-log.bin", &mut rig);
}
