use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use palisade_iommu::{Ats, PageResponse, Privilege};
use palisade_units::GuestPasid;

use super::{BLOCK, Dedicated, RULES, record, session};
use crate::lock::locked;
use crate::spec::{Descriptor, SoftwareError, Status};
use crate::testing::{Host, run, tag};
use crate::{Client, Identity, PasidUse, Session, Settled, SubmitError, Switch};

const FROM: u64 = 0x10_0000;
const TO: u64 = 0x20_0000;
const RECORD: u64 = 0x8_0000;

fn blocking() -> Descriptor {
    Descriptor::memory_move(FROM, TO, 8)
        .with_record(RECORD)
        .with_flags(BLOCK)
}

#[test]
fn r72_a_drain_waits_for_queued_and_parked_work() {
    let host = Host::new();
    let process = host.process(5);
    process.map(FROM, FROM, 1);
    process.map(RECORD, RECORD, 1);
    let queue = Dedicated::open(&host, 0, 5);
    let mut engine = host.engine();
    queue.submit(blocking());
    let idle = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&idle);
    queue.lane.when_idle(move || {
        seen.fetch_add(1, Ordering::SeqCst);
    });
    assert_eq!(queue.lane.settle(Duration::ZERO), Settled::Busy);
    run(&mut engine);
    assert_eq!(
        queue.lane.settle(Duration::MAX),
        Settled::Parked,
        "no waiting for that"
    );
    assert_eq!(idle.load(Ordering::SeqCst), 0);
    process.map(TO, TO, 1);
    host.answer(PageResponse::Success);
    run(&mut engine);
    assert_eq!(queue.lane.settle(Duration::MAX), Settled::Idle);
    assert_eq!(idle.load(Ordering::SeqCst), 1);
}

#[test]
fn r65_an_abort_drops_what_is_parked_and_a_late_answer_brings_nothing_back() {
    let host = Host::new();
    let process = host.process(5);
    process.map(FROM, FROM, 1);
    process.map(RECORD, RECORD, 1);
    let queue = Dedicated::open(&host, 0, 5);
    let mut engine = host.engine();
    queue.submit(blocking());
    run(&mut engine);
    queue.submit(Descriptor::no_op().with_record(RECORD + 32));
    queue.lane.abort();
    assert_eq!(queue.lane.pending(), 0);
    process.map(TO, TO, 1);
    host.answer(PageResponse::Success);
    run(&mut engine);
    assert_eq!(record(&host, RECORD).status(), Status::NONE);
    assert_eq!(record(&host, RECORD + 32).status(), Status::NONE);
    // The queue is as good as new.
    queue.submit(Descriptor::no_op().with_record(RECORD));
    run(&mut engine);
    assert_eq!(record(&host, RECORD).status(), Status::SUCCESS);
}

#[test]
fn r72_an_abort_ends_a_copy_that_an_engine_has_in_hand() {
    let host = Host::new();
    host.process(5).map(0, 0, 0xb00);
    let queue = Dedicated::open(&host, 0, 5);
    let mut engine = host.engine();
    let stop = Arc::new(AtomicU64::new(0));
    let other = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        while other.load(Ordering::SeqCst) == 0 {
            engine.run(8);
        }
    });
    for _ in 0..20 {
        for _ in 0..30 {
            queue.submit(Descriptor::memory_move(0x10_0000, 0x60_0000, 4 << 20));
        }
        queue.lane.abort();
        assert_eq!(queue.lane.pending(), 0);
    }
    stop.store(1, Ordering::SeqCst);
    thread.join().unwrap();
}

#[test]
fn r72_a_lane_that_goes_takes_its_hold_along() {
    let host = Host::new();
    host.process(5).map(FROM, FROM, 1);
    let held = host.set.outstanding();
    let lane = host.accelerator.lane(2).unwrap();
    let driver = Arc::default();
    let with_hold = |hold| {
        let session = Arc::into_inner(session(&driver, 5)).unwrap();
        let identity = crate::Identity {
            hold,
            ..session.identity
        };
        Arc::new(crate::Session {
            identity,
            ..session
        })
    };
    lane.open(Some(with_hold(Some(host.hold()))));
    lane.submit(blocking(), None, 8).unwrap();
    let mut engine = host.engine();
    run(&mut engine);
    lane.submit(blocking(), Some(with_hold(Some(host.hold()))), 8)
        .unwrap();
    assert_eq!(host.set.outstanding(), held + 2);
    drop(lane);
    assert_eq!(host.set.outstanding(), held);
    host.answer(PageResponse::Success);
    run(&mut engine);
}

/// The answer may come late: another slice of the tenant that went keeps the PASID bound, and its request open.
#[test]
fn r63_a_late_answer_to_a_lane_that_is_gone_is_not_for_the_next_in_its_place() {
    let host = Host::new();
    let process = host.process(5);
    process.map(FROM, FROM, 1);
    process.map(RECORD, RECORD, 1);
    let other = host.process(6);
    other.map(FROM, FROM, 1);
    other.map(RECORD, RECORD, 1);
    let mut engine = host.engine();
    let gone = Dedicated::open(&host, 0, 5);
    gone.submit(blocking());
    run(&mut engine);
    let late = locked(&host.unit.requests)[0];
    drop(gone);
    let next = Dedicated::open(&host, 0, 6);
    next.submit(blocking());
    run(&mut engine);
    host.respond(5, late.group, PageResponse::Invalid);
    run(&mut engine);
    assert_eq!(next.lane.settle(Duration::ZERO), Settled::Parked);
    assert_eq!(record(&host, RECORD).status(), Status::NONE);
    other.map(TO, TO, 1);
    let request = locked(&host.unit.requests)[1];
    host.respond(6, request.group, PageResponse::Success);
    run(&mut engine);
    assert_eq!(record(&host, RECORD).status(), Status::SUCCESS);
}

#[test]
fn a_drain_descriptor_completes_after_what_is_before_it() {
    let host = Host::new();
    let process = host.process(5);
    process.map(FROM, FROM, 1);
    process.map(RECORD, RECORD, 1);
    let queue = Dedicated::open(&host, 0, 5);
    let mut engine = host.engine();
    queue.submit(blocking());
    queue.submit(Descriptor::drain().with_record(RECORD + 32));
    queue.submit(Descriptor::no_op().with_record(RECORD + 64));
    run(&mut engine);
    assert_eq!(record(&host, RECORD + 32).status(), Status::NONE);
    process.map(TO, TO, 1);
    host.answer(PageResponse::Success);
    run(&mut engine);
    for at in [RECORD, RECORD + 32, RECORD + 64] {
        assert_eq!(record(&host, at).status(), Status::SUCCESS);
    }
}

#[test]
fn r70_a_shared_queue_is_drained_and_aborted_by_pasid() {
    let host = Host::new();
    let five = host.process(5);
    five.map(FROM, FROM, 1);
    host.process(6).map(FROM, FROM, 1);
    let lane = host.accelerator.lane(0).unwrap();
    lane.open(None);
    let driver = Arc::default();
    let uses: [Arc<PasidUse>; 2] = Default::default();
    let submit = |number: u32, used: &Arc<PasidUse>| {
        let session = Arc::into_inner(session(&driver, number)).unwrap();
        let session = Arc::new(session.counted_in(Arc::clone(used)));
        let copy = Descriptor::memory_move(FROM, TO, 8).with_flags(BLOCK);
        lane.submit(copy, Some(session), RULES.capacity).unwrap();
    };
    submit(5, &uses[0]);
    submit(6, &uses[1]);
    submit(6, &uses[1]);
    let mut engine = host.engine();
    run(&mut engine);
    uses[1].abort();
    lane.drop_use(&uses[1]);
    uses[1].wait_until_idle();
    assert_eq!(
        (
            uses[0].tally.pending(),
            uses[1].tally.pending(),
            lane.pending()
        ),
        (1, 0, 1)
    );
    let request = locked(&host.unit.requests)[0];
    five.map(TO, TO, 1);
    host.respond(5, request.group, PageResponse::Success);
    run(&mut engine);
    assert_eq!((uses[0].tally.pending(), lane.pending()), (0, 0));
}

/// A driver that aborts a PASID's work between an engine's look at the abort and the page fault.
struct Hasty(Arc<PasidUse>);

impl Client for Hasty {
    fn software_error(&self, _error: SoftwareError) {}

    fn interrupt(&self, _handle: u16) {}

    fn may_interrupt(&self, _handle: u16, _session: &Session) -> bool {
        false
    }

    fn page_requests(&self) -> Switch {
        self.0.abort();
        Switch::On
    }

    fn ats(&self) -> Ats {
        Ats::Off
    }
}

#[test]
fn r70_work_that_an_abort_meets_at_its_page_fault_is_finished_for_its_pasid_too() {
    let host = Host::new();
    host.process(5).map(FROM, FROM, 1);
    let lane = host.accelerator.lane(0).unwrap();
    lane.open(None);
    let used = Arc::<PasidUse>::default();
    let identity = Identity {
        tag: Some(tag(5)),
        hold: None,
    };
    let name = GuestPasid::new(5).ok();
    let client = Arc::new(Hasty(Arc::clone(&used)));
    let session = Session::new(identity, Privilege::User, name, RULES, client);
    let session = Arc::new(session.counted_in(Arc::clone(&used)));
    let copy = Descriptor::memory_move(FROM, TO, 8).with_flags(BLOCK);
    lane.submit(copy, Some(session), RULES.capacity).unwrap();
    run(&mut host.engine());
    assert_eq!((used.tally.pending(), lane.pending()), (0, 0));
}

#[test]
fn a_queue_takes_no_more_than_its_size_and_nothing_while_disabled() {
    let host = Host::new();
    host.process(5).map(RECORD, RECORD, 1);
    let queue = Dedicated::open(&host, 0, 5);
    for _ in 0..RULES.capacity {
        queue.submit(Descriptor::no_op());
    }
    let one_more = queue.lane.submit(Descriptor::no_op(), None, RULES.capacity);
    assert_eq!(one_more, Err(SubmitError::Full));
    run(&mut host.engine());
    queue.submit(Descriptor::no_op());
    queue.lane.close();
    let closed = queue.lane.submit(Descriptor::no_op(), None, RULES.capacity);
    assert_eq!(closed, Err(SubmitError::Disabled));
    assert_eq!(queue.lane.pending(), 1, "closing drops nothing");
}

#[test]
fn the_bell_rings_when_there_is_something_new_to_do() {
    let host = Host::new();
    let queue = Dedicated::open(&host, 0, 5);
    let rings = || host.bell.0.load(Ordering::Relaxed);
    queue.submit(Descriptor::no_op());
    assert_eq!(rings(), 1);
    queue.submit(Descriptor::no_op());
    assert_eq!(rings(), 1, "whoever was woken finds this too");
    run(&mut host.engine());
    queue.submit(Descriptor::no_op());
    assert_eq!(rings(), 2);
}

#[test]
fn r65_aborts_race_with_engines_and_answers_and_nothing_hangs_or_comes_back() {
    let host = Host::new();
    let process = host.process(5);
    process.map(FROM, FROM, 1);
    let queue = Dedicated::open(&host, 0, 5);
    let stop = AtomicBool::new(false);
    let running = || !stop.load(Ordering::SeqCst);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let mut engine = host.engine();
            scope.spawn(move || {
                while running() {
                    engine.run(4);
                }
            });
        }
        scope.spawn(|| {
            while running() {
                let requests = std::mem::take(&mut *locked(&host.unit.requests));
                for (i, request) in requests.into_iter().enumerate() {
                    let responses = [PageResponse::Success, PageResponse::Invalid];
                    host.respond(5, request.group, responses[i % 2]);
                }
            }
        });
        for round in 0..300_u64 {
            for page in 0..round % 20 {
                let missing = TO + page % 12 * 4096;
                queue.submit(Descriptor::memory_move(FROM, missing, 8).with_flags(BLOCK));
            }
            if round % 3 == 0 {
                std::thread::yield_now();
            }
            queue.lane.abort();
            assert_eq!(queue.lane.pending(), 0);
        }
        stop.store(true, Ordering::SeqCst);
    });
    host.answer(PageResponse::Success);
    run(&mut host.engine());
    assert_eq!(queue.lane.settle(Duration::ZERO), Settled::Idle);
    assert_eq!(host.function.outstanding_page_requests(), 0);
}
