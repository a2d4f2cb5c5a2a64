//! Faults of PASIDs that a tenant has and nothing is bound to.

use palisade_ioasid::PasidRange;
use palisade_iommu::{FaultReason, Sharing, Space};
use palisade_units::{Bdf, GuestPasid};

use super::world::*;
use crate::SpaceKey;

const BUFFER: u64 = 0x7f00_0000_0000;

/// What the tenant was told since the last time, all of requests that nothing is bound to.
fn told(tenant: &Tenant) -> Vec<(Bdf, Option<GuestPasid>)> {
    let faults = std::mem::take(&mut *tenant.unit.faults.lock().unwrap());
    let absent = FaultReason::PasidEntryNotPresent;
    assert!(faults.iter().all(|fault| fault.reason == absent));
    faults.iter().map(|f| (f.bdf, f.pasid)).collect()
}

#[test]
fn r16_r66_an_allocated_pasid_that_is_not_bound_faults_in_the_guests_names_on_a_shared_function() {
    let (_host, [alice, bob], parent, _slices) = neighbours(slot(4), slot(9));
    let n = alice.container.alloc_pasid(PasidRange::ALL).unwrap();
    let hold = alice.container.translate(slot(4), guest(n.get())).unwrap();
    let mut port = parent.port();
    read(&mut port, holding(&hold), BUFFER).unwrap_err();
    assert_eq!(told(&alice), [(slot(4), Some(guest(n.get())))]);
    assert_eq!(told(&bob), []);

    alice
        .bind(slot(4), pasid(n.get()), Space::PassThrough)
        .unwrap();
    alice.container.unbind(slot(4), pasid(n.get())).unwrap();
    read(&mut port, holding(&hold), BUFFER).unwrap_err();
    assert_eq!(told(&alice), [(slot(4), Some(guest(n.get())))]);
    assert_eq!(parent.host_faults(), []);
}

#[test]
fn r66_a_number_of_the_guests_own_keeps_its_name_while_the_device_works_with_it() {
    let (_host, alice, parent, _function) = alone(Sharing::Mediated);
    alice.bind(slot(4), pasid(777), Space::PassThrough).unwrap();
    let hold = alice.container.translate(slot(4), guest(777)).unwrap();
    assert_ne!(hold.pasid().get(), 777);
    alice.container.unbind(slot(4), pasid(777)).unwrap();
    read(&mut parent.port(), holding(&hold), BUFFER).unwrap_err();
    assert_eq!(told(&alice), [(slot(4), Some(guest(777)))]);
}

#[test]
fn r66_r71_a_default_space_that_is_gone_faults_without_a_pasid_at_its_own_device() {
    let host_side = Host::new();
    let alice = host_side.tenant(1);
    let parent = host_side.parent(1);
    let (_one, _two) = (
        alice.mediated(slot(4), &parent),
        alice.mediated(slot(5), &parent),
    );
    for at in [slot(5), slot(4)] {
        alice.container.unbind(at, SpaceKey::WithoutPasid).unwrap();
        let hold = alice.container.default_hold(at).unwrap();
        read(&mut parent.port(), holding(&hold), 0x1000).unwrap_err();
        assert_eq!(told(&alice), [(at, None)]);
    }
}

#[test]
fn r52_r66_the_fault_of_a_pasid_that_was_freed_goes_to_its_next_owner_or_to_nobody() {
    let (_host, [alice, bob], parent, _slices) = neighbours(slot(4), slot(9));
    let n = alice.container.alloc_pasid(PasidRange::ALL).unwrap();
    let mut port = parent.port();
    alice.container.free_pasid(n).unwrap();
    read(&mut port, Some(n.into()), BUFFER).unwrap_err();
    assert_eq!((told(&alice), told(&bob)), (vec![], vec![]));
    assert_eq!(parent.host_faults().len(), 1);

    assert_eq!(bob.container.alloc_pasid(PasidRange::only(n.get())), Ok(n));
    read(&mut port, Some(n.into()), BUFFER).unwrap_err();
    assert_eq!(told(&alice), []);
    assert_eq!(told(&bob), [(slot(9), Some(guest(n.get())))]);
}

#[test]
fn r43_r66_a_tenant_without_its_function_is_told_of_no_fault_there() {
    let host_side = Host::new();
    let alice = host_side.tenant(1);
    let (one, two) = (host_side.parent(1), host_side.parent(2));
    let (first, _second) = (alice.mediated(slot(4), &one), alice.mediated(slot(5), &two));
    let n = alice.container.alloc_pasid(PasidRange::ALL).unwrap();
    for parent in [&one, &two] {
        read(&mut parent.port(), Some(n.into()), BUFFER).unwrap_err();
    }
    let name = Some(guest(n.get()));
    assert_eq!(told(&alice), [(slot(4), name), (slot(5), name)]);
    first.detach();
    read(&mut one.port(), Some(n.into()), BUFFER).unwrap_err();
    assert_eq!(told(&alice), []);
    assert_eq!(one.host_faults().len(), 1);
    // The next client of the tenant hears nothing of the last one's numbers.
    alice.container.close();
    read(&mut two.port(), Some(n.into()), BUFFER).unwrap_err();
    assert_eq!(told(&alice), []);
}
