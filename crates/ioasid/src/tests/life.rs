//! States, holds and guests' numbers.

use super::*;
use crate::{PasidRange, PasidState};

#[test]
fn r48_a_pasid_goes_idle_active_free_pending_and_back() {
    let (authority, alice, _) = alice_and_bob();
    let pasid = alice.alloc(PasidRange::ALL).unwrap();
    assert_eq!(alice.state_of(pasid), Ok(PasidState::Idle));
    let first = alice.hold(pasid).unwrap();
    assert_eq!(alice.state_of(pasid), Ok(PasidState::Active));
    let second = first.clone();
    drop(first);
    alice.free(pasid).unwrap();
    assert_eq!(alice.state_of(pasid), Ok(PasidState::FreePending));
    assert_eq!(alice.free(pasid), Ok(()), "free is idempotent");
    assert_eq!(errno(alice.hold(pasid)), EBUSY);
    assert_eq!(errno(alice.attach_guest(guest(1), pasid)), EBUSY);
    assert_eq!(alice.outstanding(), 1, "still charged");
    let third = second.clone();
    drop(second);
    assert_eq!(alice.state_of(pasid), Ok(PasidState::FreePending));
    drop(third);
    assert_eq!(errno(alice.state_of(pasid)), ENOENT);
    assert_eq!(errno(alice.free(pasid)), ENOENT);
    assert_eq!(authority.outstanding(), 0);
}

#[test]
fn r52_a_freed_pasid_is_not_given_to_anyone_while_it_is_held() {
    let (authority, alice, bob) = alice_and_bob();
    let pasid = alice.alloc(PasidRange::only(5)).unwrap();
    let hold = alice.hold(pasid).unwrap();
    alice.free(pasid).unwrap();
    assert_eq!(errno(bob.alloc(PasidRange::only(5))), ENOSPC);
    assert_eq!(errno(alice.alloc(PasidRange::only(5))), ENOSPC);
    assert_eq!(authority.owner_of(pasid), Some(ALICE));
    drop(hold);
    assert_eq!(bob.alloc(PasidRange::only(5)), Ok(pasid));
    assert_eq!(authority.owner_of(pasid), Some(BOB));
}

#[test]
fn r49_a_guests_number_is_unique_in_its_set_and_means_another_pasid_in_another_set() {
    let (_, alice, bob) = alice_and_bob();
    let hers = alice.alloc(PasidRange::ALL).unwrap();
    let hers_too = alice.alloc(PasidRange::ALL).unwrap();
    let his = bob.alloc(PasidRange::ALL).unwrap();
    alice.attach_guest(guest(1), hers).unwrap();
    bob.attach_guest(guest(1), his).unwrap();
    assert_eq!(errno(alice.attach_guest(guest(1), hers_too)), EINVAL);
    assert_eq!(errno(alice.attach_guest(guest(2), hers)), EINVAL);
    assert_eq!(alice.find_guest(guest(1)).unwrap().pasid(), hers);
    let found = bob.find_guest(guest(1)).unwrap();
    assert_eq!((found.pasid(), found.tenant()), (his, BOB));
    assert_eq!(alice.guest_of(hers), Some(guest(1)));
    assert_eq!(alice.guest_of(hers_too), None);
}

#[test]
fn r49_a_look_up_takes_a_reference_and_gives_it_back() {
    let (authority, alice, _) = alice_and_bob();
    let pasid = alice.alloc(PasidRange::ALL).unwrap();
    alice.attach_guest(guest(9), pasid).unwrap();
    let references = || authority.ledger()[0].references;
    let found = alice.find_guest(guest(9)).unwrap();
    assert_eq!(references(), 1);
    drop(found);
    assert_eq!(references(), 0);
    assert!(alice.find_guest(guest(10)).is_err());
    assert_eq!(references(), 0);
}

#[test]
fn r49_a_pair_ends_with_detach_or_with_free() {
    let (_, alice, _) = alice_and_bob();
    let (one, two) = (
        alice.alloc(PasidRange::ALL).unwrap(),
        alice.alloc(PasidRange::ALL).unwrap(),
    );
    alice.attach_guest(guest(1), one).unwrap();
    assert_eq!(alice.detach_guest(guest(1)), Ok(one));
    assert_eq!(alice.guest_of(one), None);
    alice.attach_guest(guest(1), two).unwrap();
    let held = alice.find_guest(guest(1)).unwrap();
    alice.free(two).unwrap();
    assert_eq!(errno(alice.find_guest(guest(1))), ENOENT);
    alice.attach_guest(guest(1), one).unwrap();
    drop(held);
    assert_eq!(alice.find_guest(guest(1)).unwrap().pasid(), one);
}
