//! The authority beside a naive model of it: the same operations, the same answers, errors and calls to
//! others, the same events, and the same ledger. At least a million operations at each run.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

mod book;
mod dice;
mod life;
mod model;
mod ops;
mod real;
mod sets;
mod step;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use palisade_ioasid::{Binding, GroupId, PasidState, Sequence, Timestamp};
use palisade_units::{Bdf, GuestPasid, HostPasid, TenantId};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestCaseResult, TestError, TestRunner};

use crate::dice::{Mix, sequences};
use crate::model::{Model, count};
use crate::ops::{CAPACITY, Op};
use crate::real::Real;

const SUITES: u32 = 6;
/// What each suite runs at least.
const OPERATIONS: u32 = 175_000;
const _: () = assert!(SUITES * OPERATIONS >= 1_000_000);

/// More than any sequence has.
const ALL_EVENTS: usize = 1 << 16;

/// How often each kind of answer was seen.
type Seen = BTreeMap<String, u32>;

const EVEN: Mix = Mix {
    sets: 2,
    ids: 8,
    holds: 5,
    guests: 3,
    limits: 1,
    customs: 0,
    listeners: 1,
};

#[test]
fn r26_r27_r29_r47_allocation_and_quotas_are_as_in_the_model() {
    let mix = Mix { sets: 6, ..EVEN };
    let seen = agree(mix, ALL_EVENTS);
    let refusals = "Closed Exists InvalidQuota InvalidRange NoCapacity NoSpace NotFound NotOwner QuotaExceeded";
    expect(&seen, refusals);
}

#[test]
fn r45_r48_r49_r51_references_and_guest_numbers_are_as_in_the_model() {
    let mix = Mix {
        sets: 1,
        holds: 9,
        guests: 6,
        ..EVEN
    };
    let seen = agree(mix, ALL_EVENTS);
    expect(
        &seen,
        "AlreadyPaired FreePending GuestNotFound NotFound NotOwner",
    );
}

#[test]
fn r46_custom_allocators_are_as_in_the_model() {
    let mix = Mix { customs: 1, ..EVEN };
    let seen = agree(mix, ALL_EVENTS);
    let refusals =
        "AllocatorExists AllocatorNotFound DefaultAllocatorBusy GroupLimit NoSpace QuotaExceeded";
    expect(&seen, refusals);
}

#[test]
fn r50_what_listeners_are_told_is_as_in_the_model() {
    let mix = Mix {
        listeners: 2,
        ..EVEN
    };
    agree(mix, ALL_EVENTS);
}

#[test]
fn r10_r53_groups_and_reserved_ranges_are_as_in_the_model() {
    let mix = Mix { limits: 6, ..EVEN };
    let seen = agree(mix, ALL_EVENTS);
    let refusals = "GroupBusy GroupIsRoot GroupLimit GroupNotFound GroupTooDeep InUse InvalidRange NoCapacity NotReserved";
    expect(&seen, refusals);
}

#[test]
fn r79_a_log_that_is_full_keeps_events_as_in_the_model_and_counts_the_rest() {
    agree(EVEN, 50);
}

/// Runs sequences on both sides until there were enough operations.
fn agree(mix: Mix, kept_events: usize) -> Seen {
    let config = Config {
        max_shrink_iters: 20_000,
        max_shrink_time: 60_000,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let seen = RefCell::new(Seen::new());
    while seen.borrow().values().sum::<u32>() < OPERATIONS {
        let case = sequences(mix).new_tree(&mut runner).unwrap();
        let outcome = runner.run_one(case, |ops| run(&ops, kept_events, &mut seen.borrow_mut()));
        match outcome {
            Ok(_) => {}
            Err(TestError::Abort(why)) => panic!("{why}"),
            Err(TestError::Fail(why, ops)) => {
                let lines: Vec<_> = ops.iter().map(|op| format!("  {op:?}\n")).collect();
                panic!("{why}\nafter:\n{}", lines.concat());
            }
        }
    }
    seen.into_inner()
}

/// A suite that never meets a refusal says nothing of it.
fn expect(seen: &Seen, refusals: &str) {
    for refusal in refusals.split(' ') {
        let times = seen.get(refusal).copied().unwrap_or(0);
        assert!(times >= 20, "{refusal} was seen {times} times: {seen:?}");
    }
}

fn run(ops: &[Op], kept_events: usize, seen: &mut Seen) -> TestCaseResult {
    let mut real = Real::new(kept_events);
    let compared = catch_unwind(AssertUnwindSafe(|| {
        side_by_side(&mut real, ops, kept_events, seen)
    }));
    real.let_go();
    compared.unwrap_or_else(|_| Err(TestCaseError::fail("the authority panicked")))
}

fn side_by_side(
    real: &mut Real,
    ops: &[Op],
    kept_events: usize,
    seen: &mut Seen,
) -> TestCaseResult {
    let mut model = Model::new();
    for op in ops {
        let before = model.events.len();
        let got = real.apply(op);
        let expected = model.apply(op, real.newest_group());
        prop_assert_eq!(&got, &expected, "{:?}", op);
        let told = std::mem::take(&mut model.told);
        prop_assert_eq!(real.take_told(), told, "{:?}", op);
        compare_state(real, &mut model, op)?;
        compare_events(real, &model, before, op)?;
        compare_log(real, &model, kept_events, op)?;
        let name = match got {
            Ok(_) => "Ok".to_owned(),
            Err(error) => {
                let name = format!("{error:?}");
                name.split(' ').next().unwrap_or_default().to_owned()
            }
        };
        *seen.entry(name).or_default() += 1;
    }
    compare_end(real, &mut model)
}

/// The events since one: as they were, in order, and counted where the log has dropped them.
fn compare_events(real: &Real, model: &Model, first: usize, op: &Op) -> TestCaseResult {
    let to_u64 = |number: usize| u64::try_from(number).unwrap();
    let found = real.authority.events_since(Sequence::new(to_u64(first)));
    prop_assert_eq!(found.next.get(), to_u64(model.events.len()), "{:?}", op);
    let asked_for = model.events.len() - first;
    let dropped = to_u64(asked_for - found.events.len());
    prop_assert_eq!(found.dropped, dropped, "{:?}", op);
    for pair in found.events.windows(2) {
        prop_assert!(pair[0].sequence < pair[1].sequence, "{:?}", op);
        prop_assert!(pair[0].at < pair[1].at, "{:?}", op);
    }
    for event in &found.events {
        let at = usize::try_from(event.sequence.get()).unwrap();
        prop_assert!(at >= first, "{:?}", op);
        prop_assert_eq!((event.tenant, event.kind), model.events[at], "{:?}", op);
    }
    Ok(())
}

/// All that the log keeps: as much as it may, and of each tenant the latest.
fn compare_log(real: &Real, model: &Model, kept_events: usize, op: &Op) -> TestCaseResult {
    let all = model.events.len();
    if all <= kept_events {
        prop_assert_eq!(real.authority.events_dropped(), 0, "{:?}", op);
        return Ok(());
    }
    compare_events(real, model, 0, op)?;
    let dropped = u64::try_from(all - kept_events).unwrap();
    prop_assert_eq!(real.authority.events_dropped(), dropped, "{:?}", op);
    let kept = real.authority.events_since(Sequence::FIRST).events;
    prop_assert_eq!(kept.len(), kept_events, "{:?}", op);
    let mut oldest = BTreeMap::new();
    for event in &kept {
        oldest.entry(event.tenant).or_insert(event.sequence.get());
    }
    for (tenant, first) in oldest {
        let first = usize::try_from(first).unwrap();
        let since = model.events[first..]
            .iter()
            .filter(|event| event.0 == tenant);
        let has = kept.iter().filter(|event| event.tenant == tenant);
        prop_assert_eq!(has.count(), since.count(), "{:?} {:?}", tenant, op);
    }
    Ok(())
}

/// One PASID as the ledger has it.
#[derive(Debug, PartialEq)]
struct Line {
    pasid: HostPasid,
    tenant: TenantId,
    guest: Option<GuestPasid>,
    references: u32,
    bindings: Vec<Binding>,
    state: PasidState,
    since: Timestamp,
}

fn compare_state(real: &Real, model: &mut Model, op: &Op) -> TestCaseResult {
    let authority = &real.authority;
    let ledger = authority.ledger().into_iter().map(|entry| Line {
        pasid: entry.pasid,
        tenant: entry.tenant,
        guest: entry.guest,
        references: entry.references,
        bindings: entry.bindings,
        state: entry.state,
        since: entry.since,
    });
    let expected = model.ids.iter().map(|(&pasid, id)| Line {
        pasid,
        tenant: id.tenant,
        guest: id.guest,
        references: model.references(pasid),
        bindings: model.bindings(pasid),
        state: model.state_of(pasid),
        since: id.since,
    });
    let (ledger, expected): (Vec<_>, Vec<_>) = (ledger.collect(), expected.collect());
    prop_assert_eq!(ledger, expected, "{:?}", op);
    for number in 0..CAPACITY + 2 {
        let pasid = HostPasid::new(number).unwrap();
        let id = model.ids.get(&pasid);
        let owner = id.map(|id| id.tenant);
        prop_assert_eq!(authority.owner_of(pasid), owner, "{} {:?}", pasid, op);
        let is_pending = id.is_some_and(|id| id.is_pending);
        prop_assert_eq!(authority.is_free_pending(pasid), is_pending, "{}", pasid);
    }
    prop_assert_eq!(authority.outstanding(), count(model.ids.iter()), "{:?}", op);
    prop_assert_eq!(authority.unreserved(), model.unreserved(), "{:?}", op);
    prop_assert_eq!(real.reserved(), &model.reserved[..], "{:?}", op);
    let groups: Vec<GroupId> = model.groups.iter().map(|group| group.id).collect();
    for group in groups {
        let usage = authority.group_usage(group);
        prop_assert_eq!(usage, model.usage(group), "{:?} {:?}", group, op);
    }
    Ok(())
}

/// When everybody has gone, nothing is left behind.
fn compare_end(real: &mut Real, model: &mut Model) -> TestCaseResult {
    let mut farewell = vec![Op::Quiet];
    farewell.extend(real.handles.iter().map(|_| Op::DropSet(0)));
    farewell.extend(model.reserved.iter().map(|_| Op::Unreserve(0)));
    for op in &farewell {
        let got = real.apply(op);
        prop_assert_eq!(got, model.apply(op, None), "{:?}", op);
        prop_assert_eq!(
            real.take_told(),
            std::mem::take(&mut model.told),
            "{:?}",
            op
        );
    }
    compare_state(real, model, &Op::Quiet)?;
    prop_assert_eq!(real.authority.ledger().len(), 0);
    prop_assert_eq!(real.authority.unreserved(), CAPACITY);
    let place = Bdf::new(0, 0, 0);
    let fault = palisade_ioasid::FaultCode::new(0);
    let pasid = HostPasid::new(1).unwrap();
    real.authority.record_fault(pasid, place, fault);
    let last = Sequence::new(u64::try_from(model.events.len()).unwrap());
    let found = real.authority.events_since(last);
    prop_assert_eq!(found.events.first().map(|event| event.tenant), Some(None));
    Ok(())
}
