//! Sets and their quotas, and whose a PASID is.

use palisade_units::PASID_COUNT;

use super::*;
use crate::{DEFAULT_QUOTA, PasidRange, PasidState};

#[test]
fn r9_the_ledger_says_who_has_what() {
    let (authority, alice, bob) = alice_and_bob();
    let (one, two) = (
        alice.alloc(PasidRange::ALL).unwrap(),
        bob.alloc(PasidRange::ALL).unwrap(),
    );
    bob.attach_guest(guest(77), two).unwrap();
    let held = bob.hold(two).unwrap();
    let ledger = authority.ledger();
    assert_eq!(ledger.len(), 2);
    assert_eq!((ledger[0].pasid, ledger[0].tenant), (one, ALICE));
    assert_eq!(ledger[0].state, PasidState::Idle);
    assert_eq!((ledger[1].pasid, ledger[1].tenant), (two, BOB));
    assert_eq!(ledger[1].guest, Some(guest(77)));
    assert_eq!(
        (ledger[1].references, ledger[1].state),
        (1, PasidState::Active)
    );
    drop(held);
    alice.free(one).unwrap();
    bob.free(two).unwrap();
    assert_eq!(authority.ledger(), []);
}

#[test]
fn r12_another_tenants_id_is_eacces_and_an_unknown_one_enoent_and_nothing_changes() {
    let (authority, alice, bob) = alice_and_bob();
    let hers = alice.alloc(PasidRange::ALL).unwrap();
    let before = authority.ledger();
    assert_eq!(errno(bob.free(hers)), EACCES);
    assert_eq!(errno(bob.hold(hers)), EACCES);
    assert_eq!(errno(bob.attach_guest(guest(1), hers)), EACCES);
    assert_eq!(errno(bob.state_of(hers)), EACCES);
    assert_eq!(bob.guest_of(hers), None);
    assert_eq!(bob.free_range(PasidRange::ALL), 0);
    let nobodys = host(999);
    assert_eq!(errno(bob.free(nobodys)), ENOENT);
    assert_eq!(errno(bob.hold(nobodys)), ENOENT);
    assert_eq!(errno(bob.attach_guest(guest(1), nobodys)), ENOENT);
    assert_eq!(errno(bob.detach_guest(guest(1))), ENOENT);
    assert_eq!(errno(bob.find_guest(guest(1))), ENOENT);
    assert_eq!(authority.ledger(), before);
}

#[test]
fn r13_handles_of_one_set_share_one_quota_and_there_is_one_set_for_each_tenant() {
    let authority = Authority::new(&[]);
    let set = authority.create_set(ALICE, Quota::Exactly(2)).unwrap();
    let other_container = set.clone();
    set.alloc(PasidRange::ALL).unwrap();
    let second = other_container.alloc(PasidRange::ALL).unwrap();
    assert_eq!(errno(set.alloc(PasidRange::ALL)), ENOSPC);
    assert_eq!(set.free(second), Ok(()));
    assert_eq!(other_container.outstanding(), 1);
    assert_eq!(errno(authority.create_set(ALICE, Quota::default())), EEXIST);
    drop(other_container);
    assert_eq!(set.outstanding(), 1);
}

#[test]
fn r29_the_1001st_pasid_of_the_default_quota_is_enospc_until_one_is_freed() {
    assert_eq!(DEFAULT_QUOTA, 1000);
    let (_, alice, bob) = alice_and_bob();
    let first = alice.alloc(PasidRange::ALL).unwrap();
    for _ in 1..1000 {
        alice.alloc(PasidRange::ALL).unwrap();
    }
    assert!(matches!(
        alice.alloc(PasidRange::ALL),
        Err(IoasidError::QuotaExceeded { quota: 1000, .. })
    ));
    assert_eq!(errno(alice.alloc(PasidRange::ALL)), ENOSPC);
    assert!(bob.alloc(PasidRange::ALL).is_ok());
    alice.free(first).unwrap();
    assert_eq!(alice.alloc(PasidRange::ALL), Ok(first));
}

#[test]
fn r29_a_quota_is_tunable_between_what_is_out_and_what_is_available() {
    let authority = Authority::new(&[PasidRange {
        min: 101,
        max: u32::MAX,
    }]);
    let alice = authority.create_set(ALICE, Quota::Exactly(10)).unwrap();
    let bob = authority.create_set(BOB, Quota::Exactly(80)).unwrap();
    for _ in 0..5 {
        alice.alloc(PasidRange::ALL).unwrap();
    }
    assert_eq!(errno(alice.adjust(4)), EINVAL);
    assert_eq!(errno(alice.adjust(21)), ENOSPC);
    assert_eq!(alice.quota(), 10);
    alice.adjust(5).unwrap();
    assert_eq!(errno(alice.alloc(PasidRange::ALL)), ENOSPC);
    assert_eq!(authority.unreserved(), 15);
    bob.adjust(95).unwrap();
    assert_eq!(errno(alice.adjust(6)), ENOSPC);
    bob.adjust(0).unwrap();
    alice.adjust(100).unwrap();
    assert_eq!(authority.unreserved(), 0);
}

#[test]
fn r47_quotas_are_reserved_from_capacity_and_come_back_with_the_last_id() {
    let authority = Authority::new(&[PasidRange {
        min: 11,
        max: PASID_COUNT - 1,
    }]);
    let alice = authority.create_set(ALICE, Quota::Exactly(6)).unwrap();
    assert_eq!(
        errno(authority.create_set(BOB, Quota::Exactly(5)).map(drop)),
        ENOSPC
    );
    let held = alice.hold(alice.alloc(PasidRange::ALL).unwrap()).unwrap();
    alice.close();
    assert_eq!(errno(alice.alloc(PasidRange::ALL)), EINVAL);
    assert_eq!(errno(alice.adjust(1)), EINVAL);
    assert_eq!(authority.unreserved(), 4);
    assert_eq!(
        errno(authority.create_set(ALICE, Quota::Exactly(1))),
        EEXIST
    );
    drop(held);
    assert_eq!(authority.unreserved(), 10);
    let bob = authority.create_set(BOB, Quota::AllThatIsLeft).unwrap();
    assert_eq!(bob.quota(), 10);
    assert_eq!(
        errno(authority.create_set(ALICE, Quota::AllThatIsLeft)),
        ENOSPC
    );
}

#[test]
fn r33_closing_a_set_returns_everything_but_what_is_held() {
    let (authority, alice, bob) = alice_and_bob();
    bob.alloc(PasidRange::ALL).unwrap();
    let before = authority.ledger();
    let held = alice.hold(alice.alloc(PasidRange::ALL).unwrap()).unwrap();
    for _ in 0..99 {
        alice.alloc(PasidRange::ALL).unwrap();
    }
    alice.close();
    assert_eq!(authority.outstanding(), 2);
    drop(held);
    assert_eq!(authority.ledger(), before);
    alice.close();
    drop(alice);
    assert_eq!(authority.unreserved(), PASID_COUNT - 1 - DEFAULT_QUOTA);
}

#[test]
fn r33_a_tenant_whose_last_handle_is_dropped_leaves_nothing_behind() {
    let authority = Authority::new(&[]);
    let set = authority.create_set(ALICE, Quota::default()).unwrap();
    set.alloc(PasidRange::ALL).unwrap();
    drop(set);
    assert_eq!(authority.ledger(), []);
    assert_eq!(authority.unreserved(), PASID_COUNT - 1);
}

#[test]
fn r33_a_handle_of_a_closed_set_has_no_power_over_the_next_one_of_that_tenant() {
    let authority = Authority::new(&[]);
    let stale = authority.create_set(ALICE, Quota::default()).unwrap();
    stale.close();
    let fresh = authority.create_set(ALICE, Quota::default()).unwrap();
    let pasid = fresh.alloc(PasidRange::ALL).unwrap();
    assert_eq!(errno(stale.free(pasid)), EACCES);
    stale.close();
    drop(stale);
    assert_eq!(fresh.owned(), [pasid]);
}
