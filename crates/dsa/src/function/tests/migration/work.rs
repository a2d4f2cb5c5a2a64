//! What was submitted and is not complete goes along.

use palisade_pci::Bar;
use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::*;
use crate::spec::InterruptPermission;

#[test]
fn r74_queued_descriptors_complete_on_the_other_host_by_its_own_pasids() {
    let machine = Machine::with(100, &[dedicated(5), shared()]);
    let roots = [5, 6].map(|number| (number, machine.process(number)));
    machine.host.write(FROM, b"text");
    machine.driver.submit(0, &copy(0));
    machine
        .driver
        .submit(0, &Descriptor::drain().with_record(RECORD + 32));
    machine.driver.submit(1, &copy(2).with_pasid(5));
    machine.driver.submit(1, &copy(3).with_pasid(6));
    let other = machine.moved(2000, &roots);
    machine.run();
    assert_eq!(machine.status(0), Status::NONE, "the old one is stopped");
    other.run();
    for index in 0..4 {
        assert_eq!(other.status(index), Status::SUCCESS, "{index}");
    }
    assert_eq!(other.host.bytes(FROM + 0x2000 + 3 * 64, 4), b"text");
    assert_eq!(other.driver.error(), None);
    assert_eq!(locked(&other.host.unit.faults).len(), 0);
    // The driver goes on as if nothing had been.
    other.driver.submit(0, &copy(4));
    other.driver.submit(1, &copy(5).with_pasid(6));
    other.run();
    assert_eq!(
        [4, 5].map(|index| other.status(index)),
        [Status::SUCCESS; 2]
    );
}

#[test]
fn r74_a_descriptor_that_waits_for_a_page_asks_again() {
    for queue in [0, 1] {
        let machine = Machine::with(100, &[dedicated(5), shared()]);
        let root = machine.process(5);
        machine.driver.submit(queue, &blocking(0).with_pasid(5));
        machine.driver.submit(queue, &blocking(1).with_pasid(5));
        machine.run();
        assert_eq!(
            locked(&machine.host.unit.requests).len(),
            1 + usize::from(queue)
        );
        let other = machine.moved(200, &[(5, root)]);
        // An answer to the old host is not heard.
        machine.host.answer(PageResponse::Invalid);
        other.run();
        assert_eq!(other.status(0), Status::NONE);
        let requests = locked(&other.host.unit.requests).clone();
        assert!(requests.iter().all(|request| request.at.get() == TO));
        other.map(root, TO);
        other.host.answer(PageResponse::Success);
        other.run();
        assert_eq!(
            [0, 1].map(|index| other.status(index)),
            [Status::SUCCESS; 2]
        );
        machine.run();
        assert_eq!(machine.status(0), Status::NONE);
    }
}

#[test]
fn r74_progress_is_kept() {
    let machine = Machine::with(100, &[dedicated(5)]);
    let root = machine.process(5);
    machine.host.write(FROM, &[7; 0x4000]);
    // The second half is to a page that is not there.
    machine.map(root, TO);
    let long = Descriptor::memory_move(FROM, TO, 0x2000);
    machine
        .driver
        .submit(0, &long.with_flags(BLOCK).with_record(RECORD));
    machine.run();
    assert_eq!(machine.host.bytes(TO, 0x1000), [7; 0x1000]);
    // What is done is not done again.
    machine.host.write(TO, &[1; 8]);
    let other = machine.moved(200, &[(5, root)]);
    other.run();
    other.map(root, TO + 0x1000);
    assert_eq!(other.host.answer(PageResponse::Success), 1);
    other.run();
    assert_eq!(other.status(0), Status::SUCCESS);
    assert_eq!(other.host.bytes(TO, 8), [1; 8]);
    assert_eq!(other.host.bytes(TO + 0x1000, 0x1000), [7; 0x1000]);
}

#[test]
fn r74_a_page_that_was_refused_stays_refused() {
    let machine = Machine::with(100, &[dedicated(5)]);
    let root = machine.process(5);
    machine.driver.submit(0, &blocking(0));
    machine.run();
    machine.migration().stop();
    machine.host.answer(PageResponse::Invalid);
    let other = machine.moved(200, &[(5, root)]);
    other.run();
    let record = other.record(0);
    assert_eq!(record.status(), Status::PAGE_REQUEST_REFUSED.with_write());
    assert_eq!(record.fault_address, TO);
}

#[test]
fn r74_a_batch_goes_on_where_it_was() {
    let machine = Machine::with(100, &[dedicated(5), shared()]);
    let root = machine.process(5);
    for (queue, list) in [(0, FROM + 0x1000), (1, FROM + 0x1400)] {
        let parts = [1, 2, 3].map(|index| match index {
            2 => blocking(2),
            index => copy(index),
        });
        machine.host.write(list, parts.as_bytes());
        let batch = Descriptor::batch(list, 3).with_record(RECORD).with_pasid(5);
        machine.driver.submit(queue, &batch);
        machine.run();
        assert_eq!(machine.status(1), Status::SUCCESS);
    }
    let other = machine.moved(200, &[(5, root)]);
    other.run();
    assert_eq!(other.status(1), Status::NONE, "once");
    other.map(root, TO);
    other.host.answer(PageResponse::Success);
    other.run();
    assert_eq!(
        [2, 3].map(|index| other.status(index)),
        [Status::SUCCESS; 2]
    );
    let record = other.record(0);
    assert_eq!(
        (record.status(), record.bytes_completed),
        (Status::SUCCESS, 3)
    );
}

#[test]
fn r74_a_descriptor_that_came_in_part_is_completed_by_the_rest() {
    let machine = Machine::with(100, &[dedicated(5)]);
    let root = machine.process(5);
    let descriptor = copy(0);
    let pieces = descriptor.as_bytes().chunks(8).zip((0..).step_by(8));
    let pieces: Vec<_> = pieces.collect();
    let write = |machine: &Machine, (piece, at): &(&[u8], u64)| {
        let portal = portal_offset(0, Portal::Limited) + 128;
        let written = machine
            .driver
            .function
            .bar_write(Bar::Bar2, portal + at, piece);
        written.unwrap();
    };
    for piece in &pieces[..3] {
        write(&machine, piece);
    }
    let other = machine.moved(200, &[(5, root)]);
    for piece in &pieces[3..] {
        write(&other, piece);
    }
    other.run();
    assert_eq!(other.status(0), Status::SUCCESS);
}

#[test]
fn r74_what_was_written_to_the_stopped_function_goes_along() {
    let machine = Machine::with(100, &[dedicated(5)]);
    let root = machine.process(5);
    machine.migration().stop();
    machine.driver.submit(0, &copy(0));
    machine.driver.write(register::GENCTRL, 1);
    let other = machine.moved(200, &[(5, root)]);
    assert_eq!(other.driver.read(register::GENCTRL), 1);
    other.run();
    assert_eq!(other.status(0), Status::SUCCESS);
}

#[test]
fn r74_interrupts_and_their_permissions_go_along() {
    let machine = Machine::with(100, &[dedicated(5), dedicated(6)]);
    let roots = [5, 6].map(|number| (number, machine.process(number)));
    let permission = InterruptPermission::new()
        .with_pasid_enable(true)
        .with_pasid(5);
    machine
        .driver
        .write(PERMISSIONS + 8, permission.into_bits());
    // The vector's entry, masked.
    machine.driver.write(0x2010, 0xfee0_1000);
    machine.driver.write(0x2018, 0x41);
    for queue in [0, 1] {
        machine
            .driver
            .submit(queue, &copy(queue.into()).with_interrupt(1));
    }
    let other = machine.other(200);
    let line = other.driver.line(1);
    other.take_over(&machine.stop_and_save());
    for (number, root) in roots {
        other.bind(number, root);
    }
    other.migration().start().unwrap();
    let vector = [0x2010, 0x2014, 0x2018, 0x201c].map(|at| other.driver.read(at));
    assert_eq!(vector, [0xfee0_1000, 0, 0x41, 1]);
    assert_eq!(other.driver.read(PERMISSIONS + 8), permission.into_bits());
    other.run();
    assert_eq!(other.status(0), Status::SUCCESS);
    assert_eq!(other.status(1), Status::INTERRUPT_HANDLE);
    assert_eq!(line.count(), 1);
}

#[test]
fn r74_registers_are_what_they_were() {
    let machine = Machine::with(100, &[dedicated(5), shared()]);
    let roots = [(5, machine.process(5))];
    // An error, and another one.
    machine.driver.submit(7, &copy(0));
    machine.driver.submit(6, &copy(0));
    machine.driver.write(register::CMD, 0xff00_0000);
    let read = |machine: &Machine| {
        let mut bar = vec![0; 0x1_0000];
        let mut config = vec![0; 4096];
        machine
            .driver
            .function
            .bar_read(Bar::Bar0, 0, &mut bar)
            .unwrap();
        machine.driver.function.config_read(0, &mut config);
        (bar, config)
    };
    let before = read(&machine);
    let other = machine.moved(200, &roots);
    assert!(read(&other) == before);
    let error = other.driver.error().unwrap();
    assert_eq!((error.queue, error.pasid), (Some(7), 0));
}

#[test]
fn r74_nothing_is_programmed_before_the_start_and_nothing_by_one_that_fails() {
    let machine = Machine::with(100, &[dedicated(5), shared()]);
    let roots = [5, 6].map(|number| (number, machine.process(number)));
    let permission = InterruptPermission::new()
        .with_pasid_enable(true)
        .with_pasid(7);
    machine
        .driver
        .write(PERMISSIONS + 8, permission.into_bits());
    machine.driver.submit(0, &copy(0));
    machine.driver.submit(1, &copy(1).with_pasid(6));
    let bytes = machine.stop_and_save();
    let other = machine.other(200);
    let _ = other.heard();
    other.take_over(&bytes);
    assert_eq!(
        other.heard(),
        [Heard::Forget, Heard::Pasids(PasidEnable::On)]
    );
    for (number, root) in roots {
        other.bind(number, root);
    }
    for refused in [5, 6, 7] {
        other.refuse(&[refused]);
        let error = other.migration().start().unwrap_err();
        assert_eq!(error.errno(), Errno::NOENT);
        assert!(error.to_string().contains(&refused.to_string()), "{error}");
        let asked = other.heard();
        assert!(
            asked
                .iter()
                .all(|heard| matches!(heard, Heard::Resolved(..)))
        );
        other.run();
        assert_eq!(other.status(0), Status::NONE);
        assert!(
            other.migration().save().unwrap() == bytes,
            "nothing has changed"
        );
    }
    other.refuse(&[]);
    other.migration().start().unwrap();
    other.run();
    assert_eq!(
        [0, 1].map(|index| other.status(index)),
        [Status::SUCCESS; 2]
    );
}

#[test]
fn r74_a_queue_that_is_full_stays_full_and_its_state_has_room() {
    let machine = Machine::with(100, &[dedicated(5)]);
    let root = machine.process(5);
    machine.host.write(FROM + 0x1000, [copy(1); 2].as_bytes());
    for _ in 0..16 {
        let batch = Descriptor::batch(FROM + 0x1000, 2).with_record(RECORD);
        machine.driver.submit(0, &batch);
    }
    machine.driver.submit(0, &copy(0));
    assert!(machine.driver.error().is_some());
    let other = machine.moved(200, &[(5, root)]);
    other.driver.submit(0, &copy(0));
    assert!(other.driver.error().is_some());
    other.run();
    other.driver.submit(0, &copy(2));
    other.run();
    assert_eq!(other.status(2), Status::SUCCESS);
}
