//! The kernel's own requests: find, put, data, and allocators that choose the numbers.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use super::*;
use crate::{CustomAllocator, Data, Instance, Operations, PasidRange, Put};

fn world() -> (Authority, PasidSet, PasidSet) {
    let authority = Authority::new(&[]);
    let set = |number| {
        let tenant = TenantId::new(number);
        authority.create_set(tenant, Quota::Exactly(3)).unwrap()
    };
    let (alice, bob) = (set(1), set(2));
    (authority, alice, bob)
}

#[test]
fn r45_find_tells_the_data_enoent_for_an_unknown_id_and_eacces_for_anothers() {
    let (_, alice, bob) = world();
    let pasid = alice.alloc(PasidRange::ALL).unwrap();
    assert_eq!(alice.find(pasid), Ok(None));
    alice.set_data(pasid, Some(Data(5))).unwrap();
    assert_eq!(alice.find(pasid), Ok(Some(Data(5))));
    assert_eq!(errno(bob.find(pasid)), EACCES);
    assert_eq!(errno(bob.set_data(pasid, None)), EACCES);
    assert_eq!(errno(alice.find(host(9))), ENOENT);
    assert_eq!(errno(alice.set_data(host(9), None)), ENOENT);
    assert_eq!(alice.find(pasid), Ok(Some(Data(5))));
    alice.free(pasid).unwrap();
    assert_eq!(bob.alloc(PasidRange::ALL), Ok(pasid));
    assert_eq!(bob.find(pasid), Ok(None), "the data goes with the id");
}

#[test]
fn r45_put_says_whether_it_was_the_last() {
    let (authority, alice, _) = world();
    let pasid = alice.alloc(PasidRange::ALL).unwrap();
    let (one, two) = (alice.hold(pasid).unwrap(), alice.hold(pasid).unwrap());
    assert_eq!(one.put(), Put::OthersRemain);
    alice.free(pasid).unwrap();
    assert_eq!(two.put(), Put::Last);
    assert_eq!(authority.ledger(), []);
}

/// Chooses the highest number of a range that it has, and keeps books of who took what back.
#[derive(Default)]
struct Highest {
    out: Mutex<BTreeSet<u32>>,
    returned: Mutex<Vec<(u64, u32)>>,
}

impl Operations for Highest {
    fn alloc(&self, _: Instance, range: PasidRange) -> Option<HostPasid> {
        let mut out = self.out.lock().unwrap();
        let mut numbers = (range.min..=range.max.min(50)).rev();
        let found = numbers.find(|number| !out.contains(number))?;
        out.insert(found);
        Some(host(found))
    }

    fn free(&self, instance: Instance, pasid: HostPasid) {
        assert!(self.out.lock().unwrap().remove(&pasid.get()));
        self.returned
            .lock()
            .unwrap()
            .push((instance.0, pasid.get()));
    }
}

fn custom(operations: &Arc<Highest>, instance: u64) -> CustomAllocator {
    CustomAllocator {
        operations: Arc::clone(operations) as Arc<dyn Operations>,
        instance: Instance(instance),
    }
}

#[test]
fn r46_registering_is_eagain_while_the_default_has_ids_out_and_eexist_twice() {
    let (authority, alice, _) = world();
    let one = custom(&Arc::default(), 1);
    let pasid = alice.alloc(PasidRange::ALL).unwrap();
    assert_eq!(errno(authority.register_allocator(&one)), EAGAIN);
    alice.free(pasid).unwrap();
    authority.register_allocator(&one).unwrap();
    assert_eq!(errno(authority.register_allocator(&one)), EEXIST);
    authority.unregister_allocator(&one).unwrap();
    assert_eq!(errno(authority.unregister_allocator(&one)), ENOENT);
}

#[test]
fn r46_the_first_is_active_the_next_follows_it_and_the_default_the_last() {
    let (authority, alice, _) = world();
    let (high, other) = (Arc::default(), Arc::default());
    let (first, second) = (custom(&high, 1), custom(&other, 1));
    authority.register_allocator(&first).unwrap();
    authority.register_allocator(&second).unwrap();
    assert_eq!(alice.alloc(PasidRange::ALL), Ok(host(50)));
    authority.unregister_allocator(&first).unwrap();
    let taken = alice.alloc(PasidRange::ALL);
    assert_eq!(errno(taken), ENOSPC, "one namespace: 50 is out");
    assert_eq!(*other.returned.lock().unwrap(), [(1, 50)]);
    let below = PasidRange { min: 1, max: 49 };
    assert_eq!(alice.alloc(below), Ok(host(49)));
    authority.unregister_allocator(&second).unwrap();
    assert_eq!(alice.alloc(PasidRange::ALL), Ok(host(1)));
    alice.close();
    assert_eq!(*high.returned.lock().unwrap(), []);
    assert_eq!(authority.outstanding(), 0);
}

#[test]
fn r46_allocators_with_the_same_operations_share_one_space() {
    let (authority, alice, _) = world();
    let high = Arc::default();
    let (first, second) = (custom(&high, 1), custom(&high, 2));
    authority.register_allocator(&first).unwrap();
    authority.register_allocator(&second).unwrap();
    let pasid = alice.alloc(PasidRange::ALL).unwrap();
    authority.unregister_allocator(&first).unwrap();
    let hold = alice.hold(pasid).unwrap();
    alice.free(pasid).unwrap();
    assert_eq!(*high.returned.lock().unwrap(), [], "held: not back yet");
    drop(hold);
    assert_eq!(*high.returned.lock().unwrap(), [(2, 50)]);
}

#[test]
fn r46_the_quota_holds_whoever_chooses_and_a_number_out_of_range_goes_back() {
    struct Deaf(Mutex<Vec<u32>>);
    impl Operations for Deaf {
        fn alloc(&self, _: Instance, _: PasidRange) -> Option<HostPasid> {
            HostPasid::new(0).ok()
        }
        fn free(&self, _: Instance, pasid: HostPasid) {
            self.0.lock().unwrap().push(pasid.get());
        }
    }
    let (authority, alice, _) = world();
    let deaf = Arc::new(Deaf(Mutex::default()));
    let allocator = CustomAllocator {
        operations: deaf.clone(),
        instance: Instance(0),
    };
    authority.register_allocator(&allocator).unwrap();
    assert_eq!(errno(alice.alloc(PasidRange::ALL)), ENOSPC);
    let everything = PasidRange { min: 0, max: 9 };
    assert_eq!(errno(alice.alloc(everything)), ENOSPC, "0 is never out");
    assert_eq!(*deaf.0.lock().unwrap(), [0, 0]);
    authority.unregister_allocator(&allocator).unwrap();
    authority
        .register_allocator(&custom(&Arc::default(), 1))
        .unwrap();
    for _ in 0..3 {
        alice.alloc(PasidRange::ALL).unwrap();
    }
    assert_eq!(errno(alice.alloc(PasidRange::ALL)), ENOSPC);
}

/// An allocator that keeps a tenant's set, so that its own end is a use of the authority.
struct WithASet(#[expect(dead_code, reason = "kept until the end")] PasidSet);

impl Operations for WithASet {
    fn alloc(&self, _: Instance, range: PasidRange) -> Option<HostPasid> {
        HostPasid::new(range.max).ok()
    }

    fn free(&self, _: Instance, _: HostPasid) {}
}

#[test]
fn r46_an_allocator_that_ends_with_its_last_number_may_use_the_authority() {
    let (authority, alice, bob) = world();
    let allocator = CustomAllocator {
        operations: Arc::new(WithASet(bob)),
        instance: Instance(1),
    };
    authority.register_allocator(&allocator).unwrap();
    let pasid = alice.alloc(PasidRange::only(7)).unwrap();
    authority.unregister_allocator(&allocator).unwrap();
    drop(allocator);
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(alice.free(pasid)));
    // Only a thread that waits for itself is away so long.
    let answer = is_done.recv_timeout(std::time::Duration::from_secs(20));
    assert_eq!(answer, Ok(Ok(())));
    let event = authority.create_set(TenantId::new(2), Quota::Exactly(1));
    assert!(event.is_ok(), "the set went with the allocator");
}
