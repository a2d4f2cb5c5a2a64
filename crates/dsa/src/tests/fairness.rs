use std::sync::Arc;

use palisade_iommu::PageResponse;

use super::{BLOCK, Dedicated, record};
use crate::Progress;
use crate::lock::locked;
use crate::spec::{Descriptor, Status};
use crate::testing::{Host, run};

const RECORD: u64 = 0xb0_0000;

/// How many turns of the engine pass until the record is there.
fn turns_until_done(host: &Host, engine: &mut crate::Engine) -> u32 {
    for turn in 1..1000 {
        engine.run(1);
        if record(host, RECORD).status() == Status::SUCCESS {
            return turn;
        }
    }
    panic!("starved");
}

#[test]
fn r67_large_copies_of_one_queue_do_not_hold_up_another() {
    let host = Host::new();
    host.process(5).map(0, 0, 0xb01);
    let greedy = Dedicated::open(&host, 0, 5);
    let modest = Dedicated::open(&host, 7, 5);
    for _ in 0..60 {
        greedy.submit(Descriptor::memory_move(0, 0x60_0000, 4 << 20));
    }
    let mut engine = host.engine();
    for _ in 0..5 {
        modest.submit(Descriptor::no_op().with_record(RECORD));
        assert!(turns_until_done(&host, &mut engine) <= 3);
    }
    assert!(greedy.lane.pending() > 50, "of 60 copies of 4 MiB each");
}

#[test]
fn r67_clients_of_one_queue_take_turns() {
    let host = Host::new();
    host.process(5).map(0, 0, 0xb01);
    let greedy = Dedicated::open(&host, 4, 5);
    let modest = Dedicated::open(&host, 4, 5);
    for _ in 0..60 {
        greedy.submit(Descriptor::memory_move(0, 0x60_0000, 4 << 20));
    }
    modest.submit(Descriptor::no_op().with_record(RECORD));
    assert!(turns_until_done(&host, &mut host.engine()) <= 2);
}

#[test]
fn r67_a_storm_of_faults_does_not_hold_up_another() {
    let host = Host::new();
    let process = host.process(5);
    process.map(RECORD, RECORD, 1);
    process.map(0, 0, 1);
    let storm = Dedicated::open(&host, 0, 5);
    let modest = Dedicated::open(&host, 1, 5);
    let mut engine = host.engine();
    let missing = |page: u64| 0x1000_0000 + page * 0x1000;
    for round in 0..20 {
        while storm.lane.pending() < 60 {
            let page = round * 100 + storm.lane.pending();
            storm.submit(Descriptor::memory_move(0, missing(page), 8).with_flags(BLOCK));
        }
        modest.submit(Descriptor::no_op().with_record(RECORD));
        assert!(turns_until_done(&host, &mut engine) <= 3);
        let some = locked(&host.unit.requests).len();
        assert!(some <= 8);
        host.answer(PageResponse::Invalid);
    }
    storm.lane.abort();
    run(&mut engine);
}

#[test]
fn a_batch_of_many_yields_between_its_parts() {
    let host = Host::new();
    host.process(5).map(0, 0, 0xb01);
    let list = 0xa0_0000;
    let part = Descriptor::memory_move(0, 0x50_0000, 1 << 20);
    for i in 0..32 {
        host.write(list + i * 64, zerocopy::IntoBytes::as_bytes(&part));
    }
    let greedy = Dedicated::open(&host, 0, 5);
    let modest = Dedicated::open(&host, 1, 5);
    greedy.submit(Descriptor::batch(list, 32).with_record(RECORD + 32));
    modest.submit(Descriptor::no_op().with_record(RECORD));
    let mut engine = host.engine();
    assert!(turns_until_done(&host, &mut engine) <= 3);
    run(&mut engine);
    let batch = record(&host, RECORD + 32);
    assert_eq!(
        (batch.status(), batch.bytes_completed),
        (Status::SUCCESS, 32)
    );
}

#[test]
fn r67_many_batches_take_no_longer_a_turn_than_one_large_copy() {
    let host = Host::new();
    host.process(5).map(0, 0, 0xb01);
    let list = 0xa0_0000;
    let part = Descriptor::memory_move(0, 0x50_0000, 16 << 10);
    for i in 0..32 {
        host.write(list + i * 64, zerocopy::IntoBytes::as_bytes(&part));
    }
    let greedy = Dedicated::open(&host, 0, 5);
    for _ in 0..60 {
        greedy.submit(Descriptor::batch(list, 32));
    }
    let mut engine = host.engine();
    for _ in 0..20 {
        assert_eq!(engine.run(1), Progress::Worked(1), "a turn is one batch");
    }
}

#[test]
fn two_engines_share_the_work_of_one_queue() {
    let host = Host::new();
    host.process(5).map(0, 0, 0xb01);
    let queue = Arc::new(Dedicated::open(&host, 0, 5));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let mut engine = host.engine();
            let queue = Arc::clone(&queue);
            scope.spawn(move || {
                for _ in 0..20 {
                    for _ in 0..20 {
                        let _ = queue.lane.submit(Descriptor::no_op(), None, 64);
                    }
                    run(&mut engine);
                }
            });
        }
    });
    run(&mut host.engine());
    assert_eq!(queue.lane.pending(), 0);
    assert_eq!(host.accelerator.counters().descriptors, 800);
}
