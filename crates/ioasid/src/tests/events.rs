//! What happened, in order, bounded and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::{
    Audit, Binding, Clock, Errno, Event, EventKind, FaultCode, FreeOutcome, GroupId, Limit,
    PasidRange, Request, Sequence, Timestamp,
};

const OTHER: Bdf = Bdf::new(0, 4, 0);

/// A clock that is one tick further on each time that it is asked.
#[derive(Default)]
struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

fn kinds(authority: &Authority, first: Sequence) -> Vec<(Option<u32>, EventKind)> {
    let found = authority.events_since(first);
    let events = found.events.into_iter();
    events
        .map(|event| (event.tenant.map(TenantId::get), event.kind))
        .collect()
}

#[test]
fn r79_a_life_is_told_from_allocation_to_reclaim_with_who_and_where() {
    let authority = Authority::new(&[]);
    let set = authority.create_set(ALICE, Quota::Exactly(2)).unwrap();
    let pasid = set.alloc(PasidRange::ALL).unwrap();
    let hold = set.hold(pasid).unwrap();
    let mark = hold.bind(PLACE).unwrap();
    let reason = FaultCode::new(0x54);
    authority.record_fault(pasid, PLACE, reason);
    drop(hold);
    set.free(pasid).unwrap();
    drop(mark);
    let place = PLACE;
    let expected = [
        EventKind::SetCreated { quota: 2 },
        EventKind::Allocated { pasid },
        EventKind::Bound { pasid, place },
        EventKind::Faulted {
            pasid,
            place,
            reason,
        },
        EventKind::Freed {
            pasid,
            outcome: FreeOutcome::Pending,
        },
        EventKind::Unbound { pasid, place },
        EventKind::Reclaimed { pasid },
    ];
    assert_eq!(
        kinds(&authority, Sequence::FIRST),
        expected.map(|kind| (Some(1), kind))
    );
    let first = set.alloc(PasidRange::ALL).unwrap();
    set.free(first).unwrap();
    set.adjust(3).unwrap();
    set.close();
    set.close();
    let at_once = EventKind::Freed {
        pasid: first,
        outcome: FreeOutcome::Reclaimed,
    };
    assert_eq!(
        kinds(&authority, Sequence::new(8)),
        [
            (Some(1), at_once),
            (Some(1), EventKind::QuotaChanged { quota: 3 }),
            (Some(1), EventKind::SetClosed)
        ]
    );
}

#[test]
fn r79_every_refusal_is_told_with_who_asked_for_what_and_why_not() {
    let authority = Authority::new(&[]);
    let alice = authority.create_set(ALICE, Quota::Exactly(1)).unwrap();
    let bob = authority.create_set(BOB, Quota::Exactly(1)).unwrap();
    let hers = alice.alloc(PasidRange::ALL).unwrap();
    let hold = alice.hold(hers).unwrap();
    let before = authority.events_since(Sequence::FIRST).next;
    let refusals = [
        (
            Request::CreateSet,
            authority.create_set(BOB, Quota::Exactly(1)).map(drop),
        ),
        (Request::Allocate, alice.alloc(PasidRange::ALL).map(drop)),
        (Request::Adjust, alice.adjust(0)),
        (Request::Free, bob.free(hers)),
        (Request::Hold, bob.hold(host(77)).map(drop)),
        (
            Request::Pair,
            bob.attach_guest(GuestPasid::new(1).unwrap(), hers),
        ),
    ];
    let who = [2, 1, 1, 2, 2, 2].map(Some);
    let expected: Vec<_> = refusals
        .iter()
        .zip(who)
        .map(|((request, answer), who)| {
            let (request, error) = (*request, answer.unwrap_err());
            (who, EventKind::Refused { request, error })
        })
        .collect();
    assert_eq!(kinds(&authority, before), expected);
    alice.free(hers).unwrap();
    let error = IoasidError::FreePending { pasid: hers };
    assert_eq!(hold.bind(PLACE).map(drop), Err(error));
    let request = Request::Bind;
    let last = kinds(&authority, before).pop();
    assert_eq!(last, Some((Some(1), EventKind::Refused { request, error })));
}

#[test]
fn r79_a_bind_that_the_platform_refused_is_told_with_whose_and_where_and_why() {
    let authority = Authority::new(&[]);
    let alice = authority.create_set(ALICE, Quota::Exactly(1)).unwrap();
    let pasid = alice.alloc(PasidRange::ALL).unwrap();
    let hold = alice.hold(pasid).unwrap();
    // Freed meanwhile, it is still hers.
    alice.free(pasid).unwrap();
    let before = authority.events_since(Sequence::FIRST).next;
    let errno = Errno::new(16);
    hold.bind_refused(PLACE, errno);
    let refused = EventKind::BindRefused {
        pasid,
        place: PLACE,
        errno,
    };
    assert_eq!(kinds(&authority, before), [(Some(1), refused)]);
    assert_eq!(authority.ledger()[0].bindings, []);
}

#[test]
fn r79_the_log_is_bounded_and_counts_what_it_dropped() {
    let audit = Audit {
        clock: Arc::new(Ticks::default()),
        kept_events: 3,
    };
    let authority = Authority::with_audit(&[], audit);
    let set = authority.create_set(ALICE, Quota::Exactly(9)).unwrap();
    for _ in 0..9 {
        set.alloc(PasidRange::ALL).unwrap();
    }
    let found = authority.events_since(Sequence::new(5));
    let places: Vec<(u64, u64)> = found
        .events
        .iter()
        .map(|event: &Event| (event.sequence.get(), event.at.as_nanos()))
        .collect();
    assert_eq!(places, [(7, 7), (8, 8), (9, 9)]);
    assert_eq!((found.dropped, found.next), (2, Sequence::new(10)));
    assert_eq!(authority.events_dropped(), 7);
    let at_the_end = authority.events_since(found.next);
    assert_eq!((at_the_end.events, at_the_end.dropped), (Vec::new(), 0));
    let beyond = authority.events_since(Sequence::new(99));
    assert_eq!((beyond.events, beyond.dropped), (Vec::new(), 0));
}

#[test]
fn r79_the_ledger_says_since_when_a_pasid_is_out_and_where_it_is_bound() {
    let audit = Audit {
        clock: Arc::new(Ticks::default()),
        kept_events: 9,
    };
    let authority = Authority::with_audit(&[], audit);
    let set = authority.create_set(ALICE, Quota::Exactly(2)).unwrap();
    let pasid = set.alloc(PasidRange::ALL).unwrap();
    let hold = set.hold(pasid).unwrap();
    let one = hold.bind(PLACE).unwrap();
    let two = hold.bind(OTHER).unwrap();
    let entry = || authority.ledger().remove(0);
    let once = |place| Binding { place, entries: 1 };
    assert_eq!(entry().bindings, [once(PLACE), once(OTHER)]);
    assert_eq!(entry().references, 3);
    let second = authority.events_since(Sequence::new(1)).events[0];
    assert_eq!(second.kind, EventKind::Allocated { pasid });
    assert_eq!(entry().since, second.at);
    drop((one, two));
    assert_eq!((entry().bindings, entry().references), (vec![], 1));
}

#[test]
fn r79_a_fault_of_a_pasid_that_nobody_owns_is_nobodys() {
    let authority = Authority::new(&[]);
    authority.record_fault(host(5), PLACE, FaultCode::new(0x51));
    assert_eq!(kinds(&authority, Sequence::FIRST)[0].0, None);
}

#[test]
fn r16_a_fault_by_a_pasid_that_is_not_its_tenants_is_told_of_the_tenant() {
    let authority = Authority::new(&[]);
    let alice = authority.create_set(ALICE, Quota::Exactly(1)).unwrap();
    let hers = alice.alloc(PasidRange::ALL).unwrap();
    let reason = FaultCode::new(0x59);
    authority.record_fault_of(BOB, hers, PLACE, reason);
    let (pasid, place) = (hers, PLACE);
    let fault = EventKind::Faulted {
        pasid,
        place,
        reason,
    };
    assert_eq!(kinds(&authority, Sequence::new(2)), [(Some(2), fault)]);
}

#[test]
fn r53_r10_what_the_operator_sets_is_told_as_nobodys_done_or_refused() {
    let authority = Authority::new(&[]);
    let (parent, max) = (GroupId::ROOT, Limit::Max(4));
    let group = authority.create_group(parent, max).unwrap();
    authority.set_group_max(group, Limit::Unlimited).unwrap();
    let error = authority.remove_group(parent).unwrap_err();
    authority.remove_group(group).unwrap();
    let range = PasidRange { min: 7, max: 9 };
    authority.reserve(range).unwrap();
    authority.unreserve(range).unwrap();
    authority.unreserve(range).unwrap_err();
    let request = Request::Group;
    let expected = [
        EventKind::GroupCreated { group, parent, max },
        EventKind::GroupLimitChanged {
            group,
            max: Limit::Unlimited,
        },
        EventKind::Refused { request, error },
        EventKind::GroupRemoved { group },
        EventKind::Reserved { range },
        EventKind::Unreserved { range },
        EventKind::Refused {
            request: Request::Reserve,
            error: IoasidError::NotReserved { range },
        },
    ];
    let expected = expected.map(|kind| (None, kind));
    assert_eq!(kinds(&authority, Sequence::FIRST), expected);
}
