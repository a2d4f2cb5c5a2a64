//! What must hold however threads meet: every interleaving of a few operations, with the memory model of the
//! language. Runs with `cargo xtask interleavings`; in a build without `--cfg loom` there is nothing here.
//!
//! A failure prints the interleaving and is the same in each run (R79). `LOOM_LOG=trace` and
//! `LOOM_LOCATION=1` show each step, `LOOM_CHECKPOINT_FILE` goes straight to it.
#![cfg(loom)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use palisade_ioasid::{
    Authority, GroupId, IoasidError, Limit, Listener, Notification, PasidRange, PasidSet,
    PasidState, Priority, Put, Quota, Transition,
};
use palisade_units::{Bdf, HostPasid, TenantId};

const ALICE: TenantId = TenantId::new(1);
const BOB: TenantId = TenantId::new(2);

/// Runs all interleavings, each once.
fn explore(of: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = None;
    builder.check(of);
}

fn world() -> (Authority, PasidSet, PasidSet) {
    let authority = Authority::new(&[]);
    let [alice, bob] =
        [ALICE, BOB].map(|tenant| authority.create_set(tenant, Quota::Exactly(3)).unwrap());
    (authority, alice, bob)
}

/// What holds whenever no operation is under way.
fn check_books(authority: &Authority) {
    for entry in authority.ledger() {
        assert_eq!(authority.owner_of(entry.pasid), Some(entry.tenant));
        let is_pending = entry.state == PasidState::FreePending;
        assert_eq!(authority.is_free_pending(entry.pasid), is_pending);
        assert!(!is_pending || entry.references > 0, "it should be gone");
    }
}

#[test]
fn r7_two_tenants_that_allocate_at_once_get_different_pasids() {
    explore(|| {
        let (authority, alice, bob) = world();
        let his = {
            let authority = authority.clone();
            thread::spawn(move || {
                let pasid = bob.alloc(PasidRange::ALL).unwrap();
                assert_eq!(authority.owner_of(pasid), Some(BOB));
                (bob, pasid)
            })
        };
        let hers = alice.alloc(PasidRange::ALL).unwrap();
        assert_eq!(authority.owner_of(hers), Some(ALICE));
        let (_bob, his) = his.join().unwrap();
        assert_ne!(hers, his);
        assert_eq!(authority.outstanding(), 2);
        check_books(&authority);
    });
}

#[test]
fn r7_r10_a_freed_pasid_is_the_next_owners_alone() {
    explore(|| {
        let (authority, alice, bob) = world();
        let first = alice.alloc(PasidRange::ALL).unwrap();
        let freed = Arc::new(AtomicBool::new(false));
        let taking = {
            let (authority, freed) = (authority.clone(), Arc::clone(&freed));
            thread::spawn(move || {
                let pasid = bob.alloc(PasidRange::ALL).unwrap();
                assert_eq!(authority.owner_of(pasid), Some(BOB));
                if pasid == first {
                    assert!(freed.load(Ordering::SeqCst), "it was hers still");
                }
                (bob, pasid)
            })
        };
        freed.store(true, Ordering::SeqCst);
        alice.free(first).unwrap();
        let (bob, his) = taking.join().unwrap();
        let again = alice.free(first).unwrap_err();
        let expected = if his == first {
            IoasidError::NotOwner {
                pasid: first,
                tenant: ALICE,
            }
        } else {
            IoasidError::NotFound { pasid: first }
        };
        assert_eq!(again, expected);
        assert_eq!((bob.outstanding(), alice.outstanding()), (1, 0));
        check_books(&authority);
    });
}

#[test]
fn r48_a_hold_and_a_free_at_once_end_held_and_pending_or_refused() {
    explore(|| {
        let (authority, alice, _bob) = world();
        let pasid = alice.alloc(PasidRange::ALL).unwrap();
        let holding = {
            let alice = alice.clone();
            thread::spawn(move || alice.hold(pasid))
        };
        alice.free(pasid).unwrap();
        match holding.join().unwrap() {
            Ok(hold) => {
                assert_eq!(alice.state_of(pasid), Ok(PasidState::FreePending));
                assert_eq!(
                    alice.hold(pasid).unwrap_err(),
                    IoasidError::FreePending { pasid }
                );
                assert_eq!(hold.put(), Put::Last);
            }
            Err(error) => assert_eq!(error, IoasidError::NotFound { pasid }),
        }
        assert_eq!(authority.owner_of(pasid), None);
        assert_eq!(authority.ledger(), []);
    });
}

#[test]
fn r48_of_two_holds_that_go_at_once_one_is_the_last() {
    explore(|| {
        let (authority, alice, _bob) = world();
        let pasid = alice.alloc(PasidRange::ALL).unwrap();
        let (one, two) = (alice.hold(pasid).unwrap(), alice.hold(pasid).unwrap());
        alice.free(pasid).unwrap();
        let other = thread::spawn(move || one.put());
        let mine = two.put();
        let theirs = other.join().unwrap();
        assert_ne!(mine, theirs, "one of them is the last");
        assert_eq!(authority.owner_of(pasid), None);
        assert_eq!(authority.ledger(), []);
    });
}

#[test]
fn r52_r48_nobody_gets_a_pasid_before_its_last_hold_is_gone() {
    explore(|| {
        let (authority, alice, bob) = world();
        let pasid = alice.alloc(PasidRange::ALL).unwrap();
        let hold = alice.hold(pasid).unwrap();
        let clear = Arc::new(AtomicBool::new(false));
        let working = {
            let (authority, clear) = (authority.clone(), Arc::clone(&clear));
            thread::spawn(move || {
                // A device that works with the PASID until it has drained.
                assert_eq!(authority.owner_of(pasid), Some(ALICE));
                clear.store(true, Ordering::SeqCst);
                drop(hold);
            })
        };
        let taking = {
            let (authority, clear) = (authority.clone(), Arc::clone(&clear));
            thread::spawn(move || {
                let his = bob.alloc(PasidRange::ALL).unwrap();
                assert_eq!(authority.owner_of(his), Some(BOB));
                if his == pasid {
                    assert!(clear.load(Ordering::SeqCst), "the device works with it");
                }
                bob
            })
        };
        alice.free(pasid).unwrap();
        working.join().unwrap();
        let bob = taking.join().unwrap();
        assert_eq!((alice.outstanding(), bob.outstanding()), (0, 1));
        check_books(&authority);
    });
}

#[test]
fn r7_a_look_up_without_the_lock_sees_an_owner_that_there_was() {
    explore(|| {
        let (authority, alice, bob) = world();
        let pasid = alice.alloc(PasidRange::ALL).unwrap();
        let looking = {
            let authority = authority.clone();
            thread::spawn(move || [(); 3].map(|()| authority.owner_of(pasid)))
        };
        alice.free(pasid).unwrap();
        assert_eq!(bob.alloc(PasidRange::only(pasid.get())), Ok(pasid));
        let seen = looking.join().unwrap();
        let age = |owner: &Option<TenantId>| match *owner {
            Some(ALICE) => 0,
            None => 1,
            Some(BOB) => 2,
            Some(other) => panic!("{other} never had it"),
        };
        assert!(seen.is_sorted_by_key(age), "back in time: {seen:?}");
    });
}

#[test]
fn r7_who_holds_a_pasid_sees_its_owner_whatever_others_do() {
    explore(|| {
        let (authority, alice, bob) = world();
        let pasid = alice.alloc(PasidRange::ALL).unwrap();
        let hold = alice.hold(pasid).unwrap();
        let looking = {
            let authority = authority.clone();
            thread::spawn(move || {
                assert_eq!(authority.owner_of(pasid), Some(ALICE));
                drop(hold);
            })
        };
        let taking = thread::spawn(move || bob.alloc(PasidRange::ALL).map(|_| bob));
        alice.close();
        looking.join().unwrap();
        let _bob = taking.join().unwrap().unwrap();
        check_books(&authority);
        assert_eq!(alice.outstanding(), 0);
    });
}

#[test]
fn r47_closing_while_others_allocate_and_hold_leaves_nothing() {
    explore(|| {
        let (authority, alice, bob) = world();
        let before = authority.unreserved() + alice.quota();
        let held = alice.alloc(PasidRange::ALL).unwrap();
        let hold = alice.hold(held).unwrap();
        let allocating = {
            let alice = alice.clone();
            thread::spawn(move || alice.alloc(PasidRange::ALL))
        };
        let dropping = thread::spawn(move || drop(hold));
        alice.close();
        let answer = allocating.join().unwrap();
        let closed = IoasidError::Closed { tenant: ALICE };
        assert!(answer.is_ok() || answer == Err(closed), "{answer:?}");
        dropping.join().unwrap();
        assert_eq!(authority.ledger(), []);
        assert_eq!(authority.unreserved(), before);
        drop(bob);
    });
}

#[test]
fn r53_two_tenants_below_one_limit_never_pass_it() {
    explore(|| {
        let authority = Authority::new(&[]);
        let root = GroupId::ROOT;
        let group = authority.create_group(root, Limit::Max(1)).unwrap();
        let [alice, bob] = [ALICE, BOB].map(|tenant| {
            let set = authority.create_set_in(group, tenant, Quota::Exactly(2));
            set.unwrap()
        });
        let other = thread::spawn(move || (bob.alloc(PasidRange::ALL), bob));
        let hers = alice.alloc(PasidRange::ALL);
        let (his, _bob) = other.join().unwrap();
        let refused = Err(IoasidError::GroupLimit { group });
        assert!(hers == refused || his == refused);
        assert!(hers.is_ok() || his.is_ok());
        let usage = authority.group_usage(group).unwrap();
        assert_eq!((usage.current, usage.events), (1, 1));
    });
}

/// Writes down what it is told.
#[derive(Default)]
struct Diary(Mutex<Vec<(Transition, HostPasid)>>);

impl Listener for Diary {
    fn notify(&self, told: &Notification) {
        self.0.lock().unwrap().push((told.kind, told.pasid));
    }
}

impl Diary {
    fn count(&self, kind: Transition, pasid: HostPasid) -> usize {
        let told = self.0.lock().unwrap();
        told.iter().filter(|one| **one == (kind, pasid)).count()
    }
}

#[test]
fn r50_each_transition_is_told_once_in_order_and_before_its_call_returns() {
    explore(|| {
        let (authority, alice, bob) = world();
        let diary = Arc::new(Diary::default());
        let _told = authority.listen(Priority::Device, Arc::clone(&diary) as Arc<dyn Listener>);
        let other = {
            let diary = Arc::clone(&diary);
            thread::spawn(move || {
                let his = bob.alloc(PasidRange::ALL).unwrap();
                assert_eq!(diary.count(Transition::Alloc, his), 1);
                (bob, his)
            })
        };
        let hers = alice.alloc(PasidRange::only(7)).unwrap();
        assert_eq!(diary.count(Transition::Alloc, hers), 1);
        alice.free(hers).unwrap();
        assert_eq!(diary.count(Transition::Free, hers), 1);
        let (_bob, his) = other.join().unwrap();
        let told = diary.0.lock().unwrap();
        let of_hers: Vec<_> = told.iter().filter(|one| one.1 == hers).collect();
        assert_eq!(
            of_hers,
            [&(Transition::Alloc, hers), &(Transition::Free, hers)]
        );
        assert_eq!((told.len(), told.iter().any(|one| one.1 == his)), (3, true));
    });
}

#[test]
fn r50_a_listener_may_use_the_authority_while_another_thread_does() {
    /// Frees each PASID that it hears of.
    struct Frees(PasidSet);
    impl Listener for Frees {
        fn notify(&self, told: &Notification) {
            if told.kind == Transition::Alloc {
                self.0.free(told.pasid).unwrap();
            }
        }
    }
    explore(|| {
        let (authority, alice, bob) = world();
        let told = alice.listen(Priority::Device, Arc::new(Frees(alice.clone())));
        let other = thread::spawn(move || (bob.alloc(PasidRange::ALL), bob));
        alice.alloc(PasidRange::ALL).unwrap();
        assert_eq!(alice.outstanding(), 0, "freed before the call returned");
        let (his, _bob) = other.join().unwrap();
        assert_eq!(authority.owner_of(his.unwrap()), Some(BOB));
        drop(told);
        check_books(&authority);
    });
}

#[test]
fn r50_no_call_begins_after_a_subscription_ended() {
    struct Flag(AtomicBool);
    impl Listener for Flag {
        fn notify(&self, _: &Notification) {
            assert!(!self.0.load(Ordering::SeqCst), "told after the end");
        }
    }
    explore(|| {
        let (_authority, alice, _bob) = world();
        let flag = Arc::new(Flag(AtomicBool::new(false)));
        let told = alice.listen(Priority::Cpu, Arc::clone(&flag) as Arc<dyn Listener>);
        alice.alloc(PasidRange::ALL).unwrap();
        drop(told);
        flag.0.store(true, Ordering::SeqCst);
        let other = {
            let alice = alice.clone();
            thread::spawn(move || alice.alloc(PasidRange::ALL).unwrap())
        };
        alice.alloc(PasidRange::ALL).unwrap();
        other.join().unwrap();
    });
}

#[test]
fn r50_r51_entries_that_come_and_go_at_once_are_told_as_one_life() {
    explore(|| {
        let (authority, alice, _bob) = world();
        let pasid = alice.alloc(PasidRange::ALL).unwrap();
        let diary = Arc::new(Diary::default());
        let _told = authority.listen(Priority::Iommu, Arc::clone(&diary) as Arc<dyn Listener>);
        let (one, two) = (alice.hold(pasid).unwrap(), alice.hold(pasid).unwrap());
        let place = |function| Bdf::new(0, 1, function);
        let other = thread::spawn(move || drop(one.bind(place(1)).unwrap()));
        drop(two.bind(place(2)).unwrap());
        other.join().unwrap();
        let told: Vec<Transition> = diary.0.lock().unwrap().iter().map(|one| one.0).collect();
        let once = [Transition::Bind, Transition::Unbind];
        assert!(told == once || told == [once, once].concat(), "{told:?}");
        drop(two);
        alice.free(pasid).unwrap();
        assert_eq!(authority.ledger(), []);
    });
}
