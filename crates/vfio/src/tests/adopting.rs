use palisade_ioasid::{PasidRange, Quota};
use palisade_iommu::Space;

use super::world::*;

#[test]
fn r74_a_number_that_is_free_here_stays_the_hosts_own() {
    let host_side = Host::new();
    let alice = host_side.tenant(1);
    let adopted = alice.container.adopt_pasid(guest(77)).unwrap();
    assert_eq!(adopted, host(77));
    assert_eq!(alice.container.allocated(), [guest(77)]);
    alice.container.free_pasid(host(77)).unwrap();
    assert_eq!(alice.container.allocated(), []);
    assert_eq!(host_side.authority.outstanding(), 0);
}

#[test]
fn r74_a_number_that_another_tenant_has_here_goes_to_another_of_the_hosts() {
    let host_side = Host::new();
    let (alice, bob) = (host_side.tenant(1), host_side.tenant(2));
    let of_bob = bob.container.alloc_pasid(PasidRange::ALL).unwrap();
    let number = guest(of_bob.get());
    let adopted = alice.container.adopt_pasid(number).unwrap();
    assert_ne!(adopted, of_bob);

    // It is bound and translated by the number that the guest knows, and outlives an unbind.
    let _function = alice.mediated(slot(4), &host_side.parent(1));
    let key = pasid(number.get());
    alice.bind(slot(4), key, Space::PassThrough).unwrap();
    let hold = alice.container.translate(slot(4), number).unwrap();
    assert_eq!(hold.pasid(), adopted);
    drop(hold);
    alice.container.unbind(slot(4), key).unwrap();
    assert_eq!(alice.container.allocated(), [number]);

    // The guest frees what it knows; what the host has under that number is still the other's.
    alice.bind(slot(4), key, Space::PassThrough).unwrap();
    alice.container.free_pasid(of_bob).unwrap();
    assert_eq!(alice.container.allocated(), []);
    assert!(alice.container.set().state_of(adopted).is_err());
    assert!(bob.container.set().state_of(of_bob).is_ok());
    assert_eq!(errno(alice.container.free_pasid(of_bob)), EACCES);
}

#[test]
fn r74_ranges_and_the_end_of_a_tenant_free_what_was_adopted() {
    let host_side = Host::new();
    let (alice, bob) = (host_side.tenant(1), host_side.tenant(2));
    for _ in 0..4 {
        bob.container.alloc_pasid(PasidRange::ALL).unwrap();
    }
    let taken = host_side.authority.outstanding();
    for number in bob.container.allocated() {
        alice.container.adopt_pasid(number).unwrap();
    }
    let first = bob.container.allocated()[0].get();
    assert_eq!(alice.container.free_range(PasidRange::only(first)), 1);
    assert_eq!(alice.container.allocated().len(), 3);
    alice.container.close();
    assert_eq!(alice.container.allocated(), []);
    assert_eq!(host_side.authority.outstanding(), taken);
}

#[test]
fn r57_what_is_adopted_is_charged_and_had_once() {
    let host_side = Host::new();
    let alice = host_side.tenant_with(1, Quota::Exactly(2));
    alice.container.adopt_pasid(guest(5)).unwrap();
    assert_eq!(errno(alice.container.adopt_pasid(guest(5))), EINVAL);
    assert_eq!(errno(alice.container.adopt_pasid(guest(0))), EINVAL);
    alice.container.adopt_pasid(guest(6)).unwrap();
    assert_eq!(errno(alice.container.adopt_pasid(guest(7))), ENOSPC);
    assert_eq!(host_side.authority.outstanding(), 2);
}
