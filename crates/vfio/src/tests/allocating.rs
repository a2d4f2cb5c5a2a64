use palisade_ioasid::{PasidRange, PasidState, Quota};
use palisade_iommu::Space;

use super::world::*;
use crate::{Abi, Nesting};

#[test]
fn r9_what_the_guest_allocates_stands_in_the_hosts_ledger_under_the_same_number() {
    let host_side = Host::new();
    let alice = host_side.tenant(1);
    let taken: Vec<_> = (0..3)
        .map(|_| alice.container.alloc_pasid(PasidRange::ALL).unwrap())
        .collect();
    let ledger = host_side.authority.ledger();
    assert_eq!(ledger.iter().map(|e| e.pasid).collect::<Vec<_>>(), taken);
    for entry in &ledger {
        assert_eq!(entry.tenant, alice.container.set().tenant());
        assert_eq!(entry.guest, Some(guest(entry.pasid.get())));
    }
    alice.container.free_pasid(taken[1]).unwrap();
    let left: Vec<_> = host_side
        .authority
        .ledger()
        .iter()
        .map(|e| e.pasid)
        .collect();
    assert_eq!(left, [taken[0], taken[2]]);
}

#[test]
fn r57_r29_allocations_functions_and_numbers_of_the_guests_own_are_charged_to_one_quota() {
    let host_side = Host::new();
    let alice = host_side.tenant_with(1, Quota::Exactly(3));
    let _function = alice.mediated(slot(4), &host_side.parent(1));
    alice.bind(slot(4), pasid(100), Space::PassThrough).unwrap();
    let last = alice.container.alloc_pasid(PasidRange::ALL).unwrap();
    assert_eq!(errno(alice.container.alloc_pasid(PasidRange::ALL)), ENOSPC);
    assert_eq!(
        errno(alice.bind(slot(4), pasid(101), Space::PassThrough)),
        ENOSPC
    );
    assert_eq!(
        errno(alice.attach(
            slot(5),
            &host_side.parent(2),
            palisade_iommu::Sharing::Mediated
        )),
        ENOSPC
    );
    alice.container.free_pasid(last).unwrap();
    alice.bind(slot(4), pasid(101), Space::PassThrough).unwrap();
}

#[test]
fn r12_r57_freeing_what_the_guest_did_not_allocate_is_refused_and_changes_nothing() {
    let (host_side, [alice, bob], _parent, _slices) = neighbours(slot(4), slot(4));
    let hers = alice.container.alloc_pasid(PasidRange::ALL).unwrap();
    bob.bind(slot(4), pasid(700), Space::PassThrough).unwrap();
    let for_700 = bob
        .container
        .translate(slot(4), guest(700))
        .unwrap()
        .pasid();
    let default = bob.container.default_hold(slot(4)).unwrap().pasid();
    let books = host_side.books();
    assert_eq!(errno(bob.container.free_pasid(hers)), EACCES);
    assert_eq!(errno(bob.container.free_pasid(host(999))), ENOENT);
    assert_eq!(errno(bob.container.free_pasid(for_700)), ENOENT);
    assert_eq!(errno(bob.container.free_pasid(default)), ENOENT);
    assert_eq!(
        bob.container.free_range(PasidRange {
            min: 0,
            max: u32::MAX
        }),
        0
    );
    assert_eq!(host_side.books(), books);
}

#[test]
fn r27_a_range_frees_what_the_guest_allocated_in_it_and_nothing_else() {
    let host_side = Host::new();
    let alice = host_side.tenant(1);
    let _function = alice.mediated(slot(4), &host_side.parent(1));
    alice.bind(slot(4), pasid(700), Space::PassThrough).unwrap();
    for _ in 0..5 {
        alice
            .container
            .alloc_pasid(PasidRange { min: 10, max: 20 })
            .unwrap();
    }
    assert_eq!(
        alice.container.free_range(PasidRange { min: 12, max: 13 }),
        2
    );
    assert_eq!(
        alice.container.free_range(PasidRange {
            min: 0,
            max: u32::MAX
        }),
        3
    );
    assert_eq!(alice.container.set().outstanding(), 2);
    assert_eq!(alice.container.bound(slot(4)).len(), 2);
}

#[test]
fn r26_the_guests_allocator_passes_over_numbers_that_the_guest_uses_already() {
    let host_side = Host::new();
    let alice = host_side.tenant(1);
    let _function = alice.mediated(slot(4), &host_side.parent(1));
    for own in [50, 51, 60] {
        alice.bind(slot(4), pasid(own), Space::PassThrough).unwrap();
    }
    let range = PasidRange { min: 50, max: 52 };
    assert_eq!(alice.container.alloc_pasid(range), Ok(host(52)));
    assert_eq!(errno(alice.container.alloc_pasid(range)), ENOSPC);
    assert_eq!(
        errno(alice.container.alloc_pasid(PasidRange::only(60))),
        ENOSPC
    );
    let inverted = PasidRange { min: 2, max: 1 };
    assert_eq!(errno(alice.container.alloc_pasid(inverted)), EINVAL);
    assert_eq!(alice.container.set().outstanding(), 5);
}

#[test]
fn r13_two_handles_of_a_container_are_one_tenant_with_one_quota() {
    let host_side = Host::new();
    let alice = host_side.tenant_with(1, Quota::Exactly(2));
    let other = alice.container.clone();
    let first = alice.container.alloc_pasid(PasidRange::ALL).unwrap();
    other.alloc_pasid(PasidRange::ALL).unwrap();
    assert_eq!(errno(alice.container.alloc_pasid(PasidRange::ALL)), ENOSPC);
    other.free_pasid(first).unwrap();
    assert_eq!(alice.container.alloc_pasid(PasidRange::ALL), Ok(first));
}

#[test]
fn r52_a_pasid_that_mediation_holds_is_not_given_out_again_after_free() {
    let host_side = Host::new();
    let (alice, bob) = (host_side.tenant(1), host_side.tenant(2));
    let _function = alice.mediated(slot(4), &host_side.parent(1));
    let n = alice.container.alloc_pasid(PasidRange::ALL).unwrap();
    let in_the_queue = alice.container.translate(slot(4), guest(n.get())).unwrap();
    alice.container.free_pasid(n).unwrap();
    assert_eq!(errno(alice.container.free_pasid(n)), ENOENT);
    assert_eq!(
        alice.container.set().state_of(n),
        Ok(PasidState::FreePending)
    );
    assert_eq!(
        errno(alice.container.translate(slot(4), guest(n.get()))),
        ENOENT
    );
    assert_eq!(
        errno(bob.container.alloc_pasid(PasidRange::only(n.get()))),
        ENOSPC
    );
    drop(in_the_queue);
    assert_eq!(bob.container.alloc_pasid(PasidRange::only(n.get())), Ok(n));
}

const EFAULT: i32 = 14;

#[test]
fn r28_pasids_need_nesting_a_tenant_and_a_domain_in_this_order() {
    let host_side = Host::new();
    let alice = host_side.tenant(1);
    let [v1, v7] = [Abi::V1, Abi::V7].map(|abi| alice.container.pasid_requests(abi, Nesting::On));
    let flat = [Abi::V1, Abi::V7].map(|abi| alice.container.pasid_requests(abi, Nesting::Off));
    let all = PasidRange::ALL;
    for requests in &flat {
        assert_eq!(errno(requests.alloc(all)), EOPNOTSUPP, "without nesting");
        assert_eq!(errno(requests.free(all)), EOPNOTSUPP);
    }
    assert_eq!(errno(v1.alloc(all)), EFAULT, "without a domain");
    assert_eq!(errno(v1.free(all)), EFAULT);
    assert_eq!(errno(v7.alloc(all)), EOPNOTSUPP, "without a domain");
    assert_eq!(errno(v7.free(all)), EOPNOTSUPP);

    let _function = alice.mediated(slot(4), &host_side.parent(1));
    let taken = [&v1, &v7].map(|requests| requests.alloc(all).unwrap());
    let inverted = PasidRange { min: 9, max: 3 };
    assert_eq!(errno(v7.alloc(inverted)), EINVAL);
    assert_eq!(errno(v7.free(inverted)), EINVAL);
    assert_eq!(v1.free(PasidRange::only(taken[0].get())), Ok(1));
    let everything = PasidRange {
        min: 0,
        max: u32::MAX,
    };
    assert_eq!(v7.free(everything), Ok(1), "the function keeps its own");

    alice.container.set().close();
    assert_eq!(errno(v1.alloc(all)), EINVAL, "without a tenant");
    assert_eq!(errno(v7.alloc(all)), EINVAL, "without a tenant");
    assert_eq!(errno(flat[1].alloc(all)), EOPNOTSUPP);
}
