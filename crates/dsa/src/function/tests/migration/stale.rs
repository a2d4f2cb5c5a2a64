//! PASIDs that a driver freed and left programmed: the function starts all the same, and work by them fails (R74).

use rustix::io::Errno;

use super::*;
use crate::spec::{ErrorCode, InterruptPermission};

/// PASIDs that are gone, in a dedicated queue, a permission, and a descriptor of a shared queue; queue 2 has one that is not.
pub(super) fn left_over() -> Machine {
    let machine = Machine::with(100, &[dedicated(5), shared(), dedicated(7)]);
    machine.process(5);
    machine.process(7);
    permit(&machine, 1, 5);
    permit(&machine, 3, 7);
    machine.driver.submit(0, &copy(0));
    machine.driver.submit(1, &copy(1).with_pasid(5));
    machine.driver.submit(1, &copy(2).with_pasid(7));
    machine.refuse(&[5]);
    machine
}

fn permit(machine: &Machine, vector: u64, number: u32) {
    let permission = InterruptPermission::new()
        .with_pasid_enable(true)
        .with_pasid(number);
    let at = PERMISSIONS + vector * 8;
    machine.driver.write(at, permission.into_bits());
}

/// Moves to a host where 7 is bound and 5 is nothing.
fn moved(machine: &Machine) -> Machine {
    let other = machine.other(200);
    other.refuse(&[5]);
    other.take_over(&machine.stop_and_save());
    let _ = other.process(7);
    other.migration().start().unwrap();
    other
}

#[test]
fn r74_a_function_starts_whatever_pasids_its_driver_left_behind() {
    let machine = left_over();
    let other = moved(&machine);
    let asked = other.heard();
    let names_5 = |heard: &&Heard| matches!(heard, Heard::Resolved(Some(5), _));
    assert_eq!(asked.iter().find(names_5), None);
    for at in [EntryPoint::QueueConfig, EntryPoint::Descriptor] {
        assert!(asked.contains(&Heard::Stale(5, at)), "{asked:?}");
    }
    other.run();
    assert_eq!(
        [0, 1, 2].map(|index| other.status(index)),
        [Status::NONE, Status::NONE, Status::SUCCESS]
    );
    let error = other.driver.error().unwrap();
    assert_eq!(error.pasid, 5);
}

#[test]
fn r74_what_was_left_reads_back_and_can_be_taken_away() {
    let other = moved(&left_over());
    assert_eq!(other.driver.read(PERMISSIONS + 8) >> 12, 5);
    assert_eq!(other.driver.read(QUEUES + 8) >> 8 & 0xf_ffff, 5);
    assert_eq!(other.driver.read(QUEUES + 24) >> 30 & 1, 1, "enabled");
    other.run();
    // New work enters anew, and is refused.
    let _ = other.driver.error();
    other.driver.submit(1, &copy(3).with_pasid(5));
    let code = other.driver.error().unwrap().code;
    assert_eq!(code, ErrorCode::PASID_REFUSED);
    assert_eq!(
        other.driver.command(Command::DISABLE_QUEUES, 1),
        CommandError::SUCCESS
    );
    other.driver.write(PERMISSIONS + 8, 0);
    // Of it nothing is left in the state.
    let third = other.other(300);
    third.refuse(&[5]);
    third.take_over(&other.stop_and_save());
    let _ = third.heard();
    third.migration().start().unwrap();
    let is_stale = |heard: &Heard| matches!(heard, Heard::Stale(..));
    assert!(!third.heard().iter().any(is_stale));
}

#[test]
fn r74_what_was_left_stays_so_however_often_the_function_moves() {
    let machine = left_over();
    let (once, bytes) = (moved(&machine), machine.stop_and_save());
    let again = once.stop_and_save();
    assert!(again == bytes);
    // Not even when the number means something there.
    let third = once.other(300);
    third.take_over(&again);
    third.migration().start().unwrap();
    let asked = third.heard();
    assert!(asked.contains(&Heard::Stale(5, EntryPoint::QueueConfig)));
}

#[test]
fn r74_a_permission_that_was_left_allows_nothing() {
    let machine = Machine::with(100, &[dedicated(5), dedicated(7)]);
    machine.process(5);
    machine.process(7);
    permit(&machine, 1, 5);
    permit(&machine, 2, 7);
    machine.refuse(&[5]);
    let other = machine.other(200);
    other.take_over(&machine.stop_and_save());
    // The number is another process's here, who did not ask for the vector.
    let _ = other.process(5);
    let _ = other.process(7);
    other.migration().start().unwrap();
    let lines = [1, 2].map(|vector| other.driver.line(vector));
    let again = |queue: u8| {
        let command = Command::for_queue(Command::DISABLE_QUEUES, queue);
        other.driver.write(register::CMD, command.into_bits());
        other.driver.enable(queue.into());
    };
    again(0);
    for queue in [0, 1] {
        let asks = copy(queue.into()).with_interrupt(u16::from(queue) + 1);
        other.driver.submit(queue, &asks);
    }
    other.run();
    assert_eq!(lines.map(|line| line.count()), [0, 1]);
    assert_eq!(other.status(0), Status::INTERRUPT_HANDLE);
}

#[test]
fn r74_a_pasid_that_meant_something_is_waited_for() {
    let machine = left_over();
    machine.refuse(&[]);
    let bytes = machine.stop_and_save();
    let other = machine.other(200);
    other.refuse(&[5]);
    other.take_over(&bytes);
    let error = other.migration().start().unwrap_err();
    assert_eq!(error.errno(), Errno::NOENT);
}
