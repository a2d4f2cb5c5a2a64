//! Commands that wait for work go along with it.

use super::*;
use crate::testing;

/// A machine on whose queue something waits for a page, and a command for it.
fn waiting(queue: u8, code: CommandCode, operand: u32) -> (Machine, u64) {
    let machine = Machine::with(100, &[dedicated(5), shared()]);
    let root = machine.process(5);
    machine.driver.submit(queue, &blocking(0).with_pasid(5));
    machine.run();
    let command = Command::of(code).with_operand(operand).with_interrupt(true);
    assert!(machine.driver.command_now(command).active());
    (machine, root)
}

/// Lets the work be done on the other host. The command is done with it, and its driver hears of it once.
fn finish(machine: &Machine, root: u64) -> Machine {
    let other = machine.moved(200, &[(5, root)]);
    let line = other.driver.line(0);
    assert!(command_status(&other.driver).active());
    other.run();
    assert!(command_status(&other.driver).active());
    other.map(root, TO);
    other.host.answer(PageResponse::Success);
    other.run();
    assert_eq!(other.status(0), Status::SUCCESS);
    assert_eq!(line.count(), 1);
    assert!(!command_status(&other.driver).active());
    other
}

#[test]
fn r74_a_drain_that_waits_goes_on() {
    for (queue, code, operand) in [
        (0, Command::DRAIN_ALL, 0),
        (0, Command::DRAIN_QUEUES, 1),
        (0, Command::DRAIN_PASID, 5),
        (1, Command::DRAIN_PASID, 5),
    ] {
        let (machine, root) = waiting(queue, code, operand);
        let other = finish(&machine, root);
        other.driver.submit(queue, &copy(1).with_pasid(5));
        other.run();
        assert_eq!(other.status(1), Status::SUCCESS);
    }
}

#[test]
fn r74_a_queue_that_was_being_disabled_takes_nothing_and_is_disabled_in_the_end() {
    for (queue, code) in [
        (0, Command::DISABLE_QUEUES),
        (1, Command::DISABLE_QUEUES),
        (1, Command::DISABLE_DEVICE),
    ] {
        let (machine, root) = waiting(queue, code, 1 << queue);
        let other = machine.moved(200, &[(5, root)]);
        other.driver.submit(queue, &copy(1).with_pasid(5));
        assert_eq!(
            other.driver.error().unwrap().code,
            crate::spec::ErrorCode::QUEUE_DISABLED
        );
        let third = finish(&other, root);
        let enabled = |queue: u64| third.driver.read(QUEUES + queue * 32 + 24) != 0;
        let is_device = code == Command::DISABLE_DEVICE;
        assert_eq!(
            third.driver.read(register::GENSTS) & 3,
            u32::from(!is_device)
        );
        assert_eq!(
            [enabled(0), enabled(1)],
            match (is_device, queue) {
                (true, _) => [false; 2],
                (false, 0) => [false, true],
                (false, _) => [true, false],
            }
        );
    }
}

#[test]
fn r74_a_reset_ends_a_command_that_came_along() {
    let (machine, root) = waiting(0, Command::DRAIN_ALL, 0);
    let other = machine.moved(200, &[(5, root)]);
    assert_eq!(
        other.driver.command(Command::RESET_DEVICE, 0),
        CommandError::SUCCESS
    );
    let mut engine = other.engine();
    testing::run(&mut engine);
    assert_eq!(other.status(0), Status::NONE);
}

#[test]
fn r74_an_abort_finds_the_work_that_came_along() {
    for queue in [0, 1] {
        let machine = Machine::with(100, &[dedicated(5), shared()]);
        let root = machine.process(5);
        machine.driver.submit(queue, &blocking(0).with_pasid(5));
        machine.run();
        let other = machine.moved(200, &[(5, root)]);
        other.run();
        assert_eq!(
            other.driver.command(Command::ABORT_PASID, 5),
            CommandError::SUCCESS
        );
        other.map(root, TO);
        other.host.answer(PageResponse::Success);
        other.run();
        assert_eq!(other.status(0), Status::NONE);
    }
}
