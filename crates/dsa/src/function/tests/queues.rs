//! How full queues are, and whose turn it is.

use palisade_iommu::PageResponse;
use palisade_pci::{AccessError, Bar, Function};
use zerocopy::IntoBytes;

use super::{Driver, QUEUES, dedicated, shared};
use crate::spec::{
    Command, CommandError, Descriptor, Flags, Portal, QueueConfig, QueueState, Status,
    portal_offset,
};
use crate::testing::{Host, run};

const RECORD: u64 = 0x8_0000;
const FROM: u64 = 0x10_0000;
const TO: u64 = 0x20_0000;

fn state(driver: &Driver, queue: u64) -> QueueState {
    QueueState::from_bits(driver.read(QUEUES + queue * 32 + 24))
}

fn no_op(record: u64) -> Descriptor {
    Descriptor::no_op().with_record(RECORD + record * 32)
}

#[test]
fn r69_occupancy_counts_what_waits_for_an_engine_or_a_page() {
    let host = Host::new();
    let process = host.process(5);
    process.map(RECORD, RECORD, 1);
    process.map(FROM, FROM, 1);
    let driver = Driver::enabled(&host, &[dedicated(5), dedicated(5)]);
    assert_eq!(state(&driver, 0), QueueState::new(), "not enabled");
    driver.enable(0);
    driver.enable(1);
    let beyond = Descriptor::memory_move(FROM, TO, 8).with_flags(Flags::BLOCK_ON_FAULT);
    driver.submit(0, &beyond.with_record(RECORD));
    (1..5).for_each(|i| driver.submit(0, &no_op(i)));
    let occupied = |count| QueueState::new().with_enabled(true).with_occupancy(count);
    assert_eq!(state(&driver, 0), occupied(5));
    assert_eq!(state(&driver, 1), occupied(0));
    run(&mut host.engine());
    assert_eq!(state(&driver, 0), occupied(1), "one waits for a page");
    host.answer(PageResponse::Invalid);
    run(&mut host.engine());
    assert_eq!(state(&driver, 0), occupied(0));
    driver.submit(0, &no_op(0));
    assert_eq!(
        driver.command(Command::ABORT_QUEUES, 1),
        CommandError::SUCCESS
    );
    assert_eq!(state(&driver, 0), occupied(0));
}

#[test]
fn r69_a_shared_queue_fills_to_its_threshold_and_then_to_its_size() {
    let host = Host::new();
    host.process(5).map(RECORD, RECORD, 1);
    let driver = Driver::enabled(&host, &[shared()]);
    driver.enable(0);
    let submit = |portal: Portal| {
        let at = portal_offset(0, portal);
        let descriptor = no_op(0).with_pasid(5);
        let function = &driver.function;
        function.bar_write(Bar::Bar2, at, descriptor.as_bytes())
    };
    let again = Err(AccessError::Retry { bar: Bar::Bar2 });
    let (threshold, size) = (shared().threshold, shared().size);
    for count in 0..size {
        assert_eq!(state(&driver, 0).occupancy(), count);
        if count >= threshold {
            assert_eq!(submit(Portal::Limited), again, "{count}");
            submit(Portal::Unlimited).unwrap();
        } else {
            submit(Portal::Limited).unwrap();
        }
    }
    assert_eq!(submit(Portal::Unlimited), again);
    assert_eq!(state(&driver, 0).occupancy(), size);
}

#[test]
fn r74_occupancy_is_the_same_while_the_function_is_stopped() {
    let host = Host::new();
    host.process(5).map(RECORD, RECORD, 1);
    let driver = Driver::enabled(&host, &[dedicated(5)]);
    driver.enable(0);
    driver.submit(0, &no_op(0));
    let migration = driver.function.migration().unwrap();
    migration.stop();
    driver.submit(0, &no_op(1));
    assert_eq!(state(&driver, 0).occupancy(), 2);
    let bytes = migration.save().unwrap();
    migration.restore(&bytes).unwrap();
    assert_eq!(state(&driver, 0).occupancy(), 2);
    migration.start().unwrap();
    assert_eq!(state(&driver, 0).occupancy(), 2);
    run(&mut host.engine());
    assert_eq!(state(&driver, 0).occupancy(), 0);
}

/// The greatest priority does not hold up the least: which queue is next follows from nothing that a driver writes.
#[test]
fn r67_a_greater_priority_gets_no_more_turns() {
    let host = Host::new();
    host.process(5).map(0, 0, 0xb01);
    let with = |priority| {
        let config = dedicated(5);
        let limits = config.limits.with_max_transfer_shift(31);
        let mode = config.mode.with_priority(priority);
        QueueConfig {
            mode,
            limits,
            ..config
        }
    };
    let driver = Driver::enabled(&host, &[with(15), with(1)]);
    driver.enable(0);
    driver.enable(1);
    for _ in 0..16 {
        driver.submit(0, &Descriptor::memory_move(0, 0x60_0000, 4 << 20));
    }
    driver.submit(1, &no_op(0));
    let mut engine = host.engine();
    for _ in 0..3 {
        engine.run(1);
    }
    assert_eq!(Status(host.bytes(RECORD, 1)[0]), Status::SUCCESS);
    assert!(state(&driver, 0).occupancy() > 10);
}
