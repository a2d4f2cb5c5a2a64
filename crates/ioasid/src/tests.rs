use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};

use palisade_units::{GuestPasid, HostPasid, PASID_COUNT, TenantId};

use crate::{Authority, DEFAULT_QUOTA, Hold, IoasidError, PasidRange, PasidSet, PasidState, Quota};

const ALICE: TenantId = TenantId::new(1);
const BOB: TenantId = TenantId::new(2);

const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;

fn host(raw: u32) -> HostPasid {
    HostPasid::new(raw).unwrap()
}

fn guest(raw: u32) -> GuestPasid {
    GuestPasid::new(raw).unwrap()
}

fn errno<T: std::fmt::Debug>(result: Result<T, IoasidError>) -> i32 {
    result.unwrap_err().errno()
}

fn alice_and_bob() -> (Authority, PasidSet, PasidSet) {
    let authority = Authority::new(&[]);
    let alice = authority.create_set(ALICE, Quota::default()).unwrap();
    let bob = authority.create_set(BOB, Quota::default()).unwrap();
    (authority, alice, bob)
}

#[test]
fn r26_the_lowest_free_id_of_an_inclusive_range_is_given_out() {
    let (_, alice, _) = alice_and_bob();
    let range = PasidRange { min: 10, max: 12 };
    let given: Vec<u32> = (0..3).map(|_| alice.alloc(range).unwrap().get()).collect();
    assert_eq!(given, [10, 11, 12]);
    assert_eq!(errno(alice.alloc(range)), ENOSPC);
    alice.free(host(11)).unwrap();
    assert_eq!(alice.alloc(range), Ok(host(11)));
}

#[test]
fn r26_an_inverted_range_is_einval_and_a_range_beyond_all_pasids_enospc() {
    let (_, alice, _) = alice_and_bob();
    assert_eq!(errno(alice.alloc(PasidRange { min: 2, max: 1 })), EINVAL);
    let beyond = PasidRange {
        min: PASID_COUNT,
        max: u32::MAX,
    };
    assert_eq!(errno(alice.alloc(beyond)), ENOSPC);
    let to_the_end = PasidRange {
        min: PASID_COUNT - 1,
        max: u32::MAX,
    };
    assert_eq!(alice.alloc(to_the_end), Ok(host(PASID_COUNT - 1)));
    assert_eq!(errno(alice.alloc(to_the_end)), ENOSPC);
    assert_eq!(errno(alice.alloc(PasidRange::only(0))), ENOSPC);
}

#[test]
fn r10_two_tenants_take_from_one_namespace_beside_what_the_host_reserved() {
    let authority = Authority::new(&[PasidRange { min: 2, max: 3 }, PasidRange { min: 3, max: 4 }]);
    let alice = authority.create_set(ALICE, Quota::Exactly(10)).unwrap();
    let bob = authority.create_set(BOB, Quota::AllThatIsLeft).unwrap();
    assert_eq!(bob.quota(), PASID_COUNT - 1 - 3 - 10);
    assert_eq!(alice.alloc(PasidRange::ALL), Ok(host(1)));
    assert_eq!(bob.alloc(PasidRange::ALL), Ok(host(5)));
    assert_eq!(alice.alloc(PasidRange::ALL), Ok(host(6)));
    assert_eq!(authority.owner_of(host(5)), Some(BOB));
    assert_eq!(authority.owner_of(host(6)), Some(ALICE));
    assert_eq!(authority.owner_of(host(2)), None);
    assert_eq!(authority.outstanding(), 3);
}

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
fn r27_a_range_frees_exactly_what_is_owned_in_it() {
    let (authority, alice, bob) = alice_and_bob();
    for _ in 0..10 {
        alice.alloc(PasidRange::ALL).unwrap();
        bob.alloc(PasidRange::ALL).unwrap();
    }
    assert_eq!(alice.free_range(PasidRange { min: 4, max: 7 }), 2);
    let left: Vec<u32> = alice.owned().iter().map(|p| p.get()).collect();
    assert_eq!(left, [1, 3, 9, 11, 13, 15, 17, 19]);
    assert_eq!(alice.free_range(PasidRange { min: 7, max: 4 }), 0);
    let everything = PasidRange {
        min: 0,
        max: u32::MAX,
    };
    assert_eq!(alice.free_range(everything), 8);
    assert_eq!(alice.free_range(everything), 0);
    assert_eq!(authority.outstanding(), 10);
    assert_eq!(bob.outstanding(), 10);
}

#[test]
fn r27_the_cost_of_a_range_follows_what_is_owned() {
    let (_, alice, _) = alice_and_bob();
    let everything = PasidRange {
        min: 0,
        max: u32::MAX,
    };
    // 100,000 rounds over a range of 2^32 end only if none of them walks the range.
    for _ in 0..100_000 {
        let pasid = alice.alloc(PasidRange::ALL).unwrap();
        assert_eq!(alice.owned_within(everything), [pasid]);
        assert_eq!(alice.free_range(everything), 1);
    }
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

#[test]
fn r80_allocation_stays_cheap_with_all_pasids_out() {
    let authority = Authority::new(&[]);
    let set = authority.create_set(ALICE, Quota::AllThatIsLeft).unwrap();
    for expected in 1..PASID_COUNT {
        assert_eq!(set.alloc(PasidRange::ALL), Ok(host(expected)));
    }
    assert_eq!(errno(set.alloc(PasidRange::ALL)), ENOSPC);
    for round in 0..100_000 {
        let pasid = host(1 + (round * 7919) % (PASID_COUNT - 1));
        set.free(pasid).unwrap();
        assert_eq!(set.alloc(PasidRange::ALL), Ok(pasid));
    }
    assert_eq!(set.free_range(PasidRange::ALL), PASID_COUNT - 1);
    assert_eq!(authority.outstanding(), 0);
}

/// Each thread marks what it was given in a table beside the authority and clears the mark before it
/// lets go. A number with two owners at once shows as a mark that is not the thread's own.
#[test]
fn r7_no_live_pasid_is_ever_owned_by_two_tenants() {
    const THREADS: u32 = 4;
    const ROUNDS: u32 = 20_000;
    const NUMBERS: u32 = 24;
    let authority = Authority::new(&[PasidRange {
        min: NUMBERS + 1,
        max: u32::MAX,
    }]);
    let owners: Arc<Vec<AtomicU32>> = Arc::new((0..=NUMBERS).map(|_| AtomicU32::new(0)).collect());
    let start = Arc::new(Barrier::new(THREADS as usize));
    let threads = (1..=THREADS).map(|me| {
        let (authority, owners, start) = (authority.clone(), owners.clone(), start.clone());
        let set = authority
            .create_set(TenantId::new(me), Quota::Exactly(NUMBERS / THREADS))
            .unwrap();
        std::thread::spawn(move || {
            start.wait();
            let mut mine: Vec<(HostPasid, Option<Hold>)> = Vec::new();
            let mut dice = u64::from(me);
            for _ in 0..ROUNDS {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let roll = dice >> 60;
                if roll < 8 {
                    if let Ok(pasid) = set.alloc(PasidRange::ALL) {
                        let before = owners[pasid.get() as usize].swap(me, Ordering::SeqCst);
                        assert_eq!(before, 0, "{pasid} was given out twice");
                        assert_eq!(authority.owner_of(pasid), Some(set.tenant()));
                        let hold = (roll < 4).then(|| set.hold(pasid).unwrap());
                        mine.push((pasid, hold));
                    }
                } else if !mine.is_empty() {
                    let (pasid, hold) = mine.swap_remove((dice >> 32) as usize % mine.len());
                    if hold.is_some() {
                        set.free(pasid).unwrap();
                        assert_eq!(set.state_of(pasid), Ok(PasidState::FreePending));
                    }
                    let before = owners[pasid.get() as usize].swap(0, Ordering::SeqCst);
                    assert_eq!(before, me, "{pasid} changed hands while it was out");
                    if hold.is_none() {
                        set.free(pasid).unwrap();
                    }
                    drop(hold);
                }
            }
            // The set goes with this thread and frees what is left.
            for (pasid, _) in &mine {
                owners[pasid.get() as usize].store(0, Ordering::SeqCst);
            }
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().unwrap();
    }
    assert_eq!(authority.ledger(), []);
    assert_eq!(authority.unreserved(), NUMBERS);
}
