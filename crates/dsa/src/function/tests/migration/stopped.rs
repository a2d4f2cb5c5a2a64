//! A function that is stopped takes what its driver writes, and does nothing.

use palisade_pci::Bar;
use rustix::io::Errno;

use super::*;

#[test]
fn r74_what_is_submitted_to_a_stopped_function_is_done_when_it_goes_on() {
    let machine = Machine::with(0, &[dedicated(5), shared()]);
    machine.process(5);
    machine.host.write(FROM, b"text");
    machine.driver.submit(0, &copy(0));
    machine.migration().stop();
    machine.migration().stop();
    machine.driver.submit(0, &copy(1));
    machine.driver.submit(1, &copy(2).with_pasid(5));
    machine.run();
    for index in 0..3 {
        assert_eq!(machine.status(index), Status::NONE);
    }
    machine.migration().start().unwrap();
    machine.migration().start().unwrap();
    machine.run();
    for index in 0..3 {
        assert_eq!(machine.status(index), Status::SUCCESS);
        assert_eq!(machine.host.bytes(FROM + 0x2000 + index * 64, 4), b"text");
    }
    assert_eq!(machine.driver.error(), None);
}

#[test]
fn r74_register_writes_wait_in_their_order() {
    let machine = Machine::new(0);
    machine.driver.set_up(&[dedicated(5)]);
    machine.process(5);
    let line = machine.driver.line(0);
    machine.migration().stop();
    let enable = Command::for_queue(Command::ENABLE_QUEUE, 0).with_interrupt(true);
    machine.driver.write(register::CMD, enable.into_bits());
    machine.driver.submit(0, &copy(0));
    assert!(!command_status(&machine.driver).active());
    assert_eq!(line.count(), 0);
    machine.migration().start().unwrap();
    assert_eq!(line.count(), 1);
    machine.run();
    assert_eq!(machine.status(0), Status::SUCCESS);
}

#[test]
fn r74_a_stopped_function_takes_so_much_and_says_when_it_is_too_much() {
    let machine = Machine::with(0, &[dedicated(5)]);
    machine.migration().stop();
    let words = vec![0; 4096];
    let write = |bar, at| machine.driver.function.bar_write(bar, at, &words);
    assert!(write(Bar::Bar0, 0x400).is_ok(), "1024 words");
    for (bar, at) in [(Bar::Bar0, 0), (Bar::Bar2, 0)] {
        let error = write(bar, at).unwrap_err();
        assert_eq!(error.errno(), Errno::AGAIN);
    }
    let bytes = machine.migration().save().unwrap();
    assert!(bytes.len() <= machine.migration().max_state_len_bytes());
}

#[test]
fn r74_interrupts_of_a_stopped_function_are_owed() {
    let machine = Machine::with(0, &[dedicated(5)]);
    let lines = [machine.driver.line(0), machine.driver.line(1)];
    machine.driver.write(register::GENCTRL, 1);
    machine.migration().stop();
    // An error of the driver's own making, at a portal.
    machine
        .driver
        .function
        .bar_write(Bar::Bar2, 1, &[0; 2])
        .unwrap();
    machine
        .driver
        .function
        .bar_write(Bar::Bar2, 63, &[0; 2])
        .unwrap();
    assert_eq!(lines.each_ref().map(|line| line.count()), [0, 0]);
    let other = machine.moved(7, &[]);
    assert_eq!(other.driver.line(0).count(), 0, "connected too late");
    machine.migration().start().unwrap();
    assert_eq!(lines.each_ref().map(|line| line.count()), [1, 0]);
    machine.migration().start().unwrap();
    assert_eq!(lines[0].count(), 1);
}

#[test]
fn r74_a_reset_while_stopped_leaves_nothing_and_the_function_stopped() {
    let machine = Machine::with(0, &[dedicated(5)]);
    machine.process(5);
    machine.driver.submit(0, &copy(0));
    machine.migration().stop();
    machine.driver.submit(0, &copy(1));
    machine.driver.function.reset();
    let fresh = machine.other(0);
    assert!(machine.migration().save().unwrap() == fresh.stop_and_save());
    assert_eq!(
        machine.heard().last(),
        Some(&Heard::Pasids(PasidEnable::Off))
    );
    machine.migration().start().unwrap();
    assert_eq!(machine.heard(), []);
    machine.run();
    assert_eq!([0, 1].map(|index| machine.status(index)), [Status::NONE; 2]);
}

#[test]
fn r74_a_function_that_lost_the_bus_while_it_was_stopped_halts_when_it_goes_on() {
    let machine = Machine::with(0, &[dedicated(5)]);
    machine.process(5);
    machine.driver.submit(0, &copy(0));
    machine.migration().stop();
    machine.driver.function.config_write(4, &[2, 0]);
    assert_eq!(machine.driver.read(register::GENSTS) & 3, 1);
    let other = machine.other(3);
    other.take_over(&machine.migration().save().unwrap());
    for machine in [&machine, &other] {
        machine.migration().start().unwrap();
        assert_eq!(machine.driver.read(register::GENSTS) & 3, 3);
        machine.run();
        assert_eq!(machine.status(0), Status::NONE);
    }
}

#[test]
fn r74_only_a_stopped_function_is_saved_or_restored() {
    let machine = Machine::with(0, &[dedicated(5)]);
    assert_eq!(machine.migration().save().unwrap_err().errno(), Errno::BUSY);
    let bytes = machine.stop_and_save();
    let other = machine.other(1);
    let refused = other.migration().restore(&bytes).unwrap_err();
    assert_eq!(refused.errno(), Errno::BUSY);
    machine.driver.function.retire();
    for result in [
        machine.migration().start(),
        machine.migration().restore(&bytes),
    ] {
        assert_eq!(result.unwrap_err().errno(), Errno::NODEV);
    }
    assert!(machine.migration().save().is_err());
}

#[test]
fn r74_a_state_of_another_shape_is_refused_and_the_function_is_as_new() {
    let machine = Machine::with(0, &[dedicated(5)]);
    let bytes = machine.stop_and_save();
    let host = Host::new();
    let lanes = vec![host.accelerator.lane(0).unwrap()];
    let policy = Direct::new(host.function.clone());
    let function = DsaFunction::new(policy, lanes, Shape::default()).unwrap();
    function.stop();
    let fresh = function.save().unwrap();
    let error = function.restore(&bytes).unwrap_err();
    assert_eq!(error.errno(), Errno::INVAL);
    assert!(error.to_string().contains("shape"), "{error}");
    assert!(function.save().unwrap() == fresh);
}

#[test]
fn r74_a_stopped_shared_queue_takes_no_more_than_it_has_room_for() {
    let machine = Machine::with(0, &[shared()]);
    let root = machine.process(5);
    let portal = portal_offset(0, Portal::Limited);
    let submit = |machine: &Machine, index| {
        let descriptor = copy(index).with_pasid(5);
        let bytes = zerocopy::IntoBytes::as_bytes(&descriptor);
        machine.driver.function.bar_write(Bar::Bar2, portal, bytes)
    };
    submit(&machine, 0).unwrap();
    let bytes = machine.stop_and_save();
    let other = machine.other(7);
    other.take_over(&bytes);
    other.bind(5, root);
    for machine in [&machine, &other] {
        for index in 1..8 {
            submit(machine, index).unwrap();
        }
        let error = submit(machine, 8).unwrap_err();
        assert_eq!(error.errno(), Errno::AGAIN, "its limit is 8");
        machine.migration().start().unwrap();
        machine.run();
        for index in 0..8 {
            assert_eq!(machine.status(index), Status::SUCCESS);
        }
        assert_eq!(machine.driver.error(), None);
    }
}
