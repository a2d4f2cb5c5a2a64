//! Descriptors that an engine runs without their having been queued.

use palisade_iommu::PageResponse;

use super::{BLOCK, Dedicated, RULES, record};
use crate::lock::locked;
use crate::spec::{Descriptor, Status};
use crate::testing::{Host, run};
use crate::{Progress, SubmitError};

const FROM: u64 = 0x10_0000;
const TO: u64 = 0x20_0000;
const RECORD: u64 = 0x8_0000;

fn copy(to: u64) -> Descriptor {
    Descriptor::memory_move(FROM, to, 8).with_record(RECORD)
}

#[test]
fn a_descriptor_that_nothing_is_before_is_run_at_once() {
    let host = Host::new();
    host.process(5).map(0, 0, 0x300);
    let queue = Dedicated::open(&host, 0, 5);
    host.write(FROM, b"palisade");
    let mut engine = host.engine();
    engine
        .submit(&queue.lane, copy(TO), RULES.capacity)
        .unwrap();
    assert_eq!(record(&host, RECORD).status(), Status::SUCCESS);
    assert_eq!(host.bytes(TO, 8), b"palisade");
    assert_eq!(queue.lane.pending(), 0);
    assert_eq!(host.accelerator.counters().descriptors, 1);
    assert_eq!(engine.run(1), Progress::Idle);
}

#[test]
fn r67_what_was_there_before_goes_first_whoever_it_is_of() {
    let host = Host::new();
    host.process(5).map(0, 0, 0x300);
    let queue = Dedicated::open(&host, 0, 5);
    let other = Dedicated::open(&host, 1, 5);
    let mut engine = host.engine();
    for before in [&queue, &other] {
        before.submit(Descriptor::no_op().with_record(RECORD + 32));
        engine
            .submit(&queue.lane, copy(TO), RULES.capacity)
            .unwrap();
        assert_eq!(record(&host, RECORD).status(), Status::NONE);
        run(&mut engine);
        assert_eq!(record(&host, RECORD + 32).status(), Status::SUCCESS);
        assert_eq!(record(&host, RECORD).status(), Status::SUCCESS);
    }
}

#[test]
fn r62_one_that_needs_a_page_is_put_aside_and_goes_on_as_any_other() {
    let host = Host::new();
    let process = host.process(5);
    process.map(FROM, FROM, 1);
    process.map(RECORD, RECORD, 1);
    let queue = Dedicated::open(&host, 0, 5);
    host.write(FROM, b"palisade");
    let mut engine = host.engine();
    let waits = copy(TO).with_flags(BLOCK);
    engine.submit(&queue.lane, waits, RULES.capacity).unwrap();
    assert_eq!(queue.lane.pending(), 1);
    assert_eq!(locked(&host.unit.requests).len(), 1);
    process.map(TO, TO, 1);
    host.answer(PageResponse::Success);
    run(&mut engine);
    assert_eq!(record(&host, RECORD).status(), Status::SUCCESS);
    assert_eq!(host.bytes(TO, 8), b"palisade");
}

#[test]
fn one_that_is_long_goes_on_in_its_turn() {
    let host = Host::new();
    host.process(5).map(0, 0, 0xb01);
    let queue = Dedicated::open(&host, 0, 5);
    let mut engine = host.engine();
    let long = Descriptor::memory_move(FROM, 0x60_0000, 1 << 20).with_record(RECORD);
    engine.submit(&queue.lane, long, RULES.capacity).unwrap();
    assert_eq!(record(&host, RECORD).status(), Status::NONE);
    run(&mut engine);
    assert_eq!(record(&host, RECORD).status(), Status::SUCCESS);
}

#[test]
fn a_batch_and_a_drain_are_what_they_are_in_a_queue() {
    let host = Host::new();
    host.process(5).map(0, 0, 0x300);
    let queue = Dedicated::open(&host, 0, 5);
    let mut engine = host.engine();
    let list = 0x9_0000;
    host.write(list, zerocopy::IntoBytes::as_bytes(&[copy(TO), copy(TO)]));
    let all = [
        Descriptor::batch(list, 2).with_record(RECORD + 32),
        Descriptor::drain().with_record(RECORD + 32),
    ];
    for descriptor in all {
        engine
            .submit(&queue.lane, descriptor, RULES.capacity)
            .unwrap();
        run(&mut engine);
        assert_eq!(record(&host, RECORD + 32).status(), Status::SUCCESS);
    }
}

#[test]
fn a_queue_that_is_full_or_closed_takes_none() {
    let host = Host::new();
    let process = host.process(5);
    process.map(FROM, FROM, 1);
    process.map(RECORD, RECORD, 1);
    let queue = Dedicated::open(&host, 0, 5);
    let mut engine = host.engine();
    let waits = copy(TO).with_flags(BLOCK);
    engine.submit(&queue.lane, waits, 1).unwrap();
    let full = engine.submit(&queue.lane, copy(TO), 1);
    assert_eq!(full, Err(SubmitError::Full));
    queue.lane.close();
    let closed = engine.submit(&queue.lane, copy(TO), RULES.capacity);
    assert_eq!(closed, Err(SubmitError::Disabled));
    assert_eq!(queue.lane.pending(), 1);
    queue.lane.abort();
}

#[test]
fn r74_a_queue_that_is_stopped_keeps_it_until_it_goes_on() {
    let host = Host::new();
    host.process(5).map(0, 0, 0x300);
    let queue = Dedicated::open(&host, 0, 5);
    let mut engine = host.engine();
    queue.lane.pause();
    queue.lane.wait_until_left();
    engine
        .submit(&queue.lane, copy(TO), RULES.capacity)
        .unwrap();
    assert_eq!(engine.run(1), Progress::Idle);
    assert_eq!(record(&host, RECORD).status(), Status::NONE);
    queue.lane.go_on();
    run(&mut engine);
    assert_eq!(record(&host, RECORD).status(), Status::SUCCESS);
}
