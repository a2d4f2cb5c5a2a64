//! Whose a fault is on a shared function, when nothing is bound to the tag.

use palisade_units::Access;

use super::*;

const OTHER_GUEST: Bdf = Bdf::new(0, 0x11, 0);

/// A mediated device of a tenant, with the PASID of its requests without one.
fn device(tenant: &Tenant, function: &FunctionHandle, guest_bdf: Bdf) -> (Claim, HostPasid) {
    let mut claim = function.claim(tenant.id, Sharing::Mediated).unwrap();
    let default = tenant.hold();
    let pasid = default.pasid();
    claim
        .set_slice_owner(owner(tenant, default, guest_bdf))
        .unwrap();
    tenant.set.free(pasid).unwrap();
    (claim, pasid)
}

fn owner(tenant: &Tenant, default: Hold, guest_bdf: Bdf) -> SliceOwner {
    SliceOwner {
        set: tenant.set.clone(),
        default,
        sink: tenant.sink.clone(),
        guest_bdf,
    }
}

/// A PASID of the tenant under the guest's own number.
fn paired(tenant: &Tenant, number: u32) -> HostPasid {
    let pasid = tenant.set.alloc(PasidRange::ALL).unwrap();
    tenant.set.attach_guest(guest(number), pasid).unwrap();
    pasid
}

fn told(tenant: &Tenant) -> Vec<(Bdf, Option<GuestPasid>)> {
    let faults = tenant.sink.faults();
    faults
        .iter()
        .map(|fault| (fault.bdf, fault.pasid))
        .collect()
}

#[test]
fn r16_r66_a_pasid_that_is_not_bound_faults_to_its_owner_in_the_guests_names() {
    let authority = Authority::new(&[]);
    let (alice, bob) = (Tenant::new(&authority, 1), Tenant::new(&authority, 2));
    let iommu = Iommu::new();
    let function = function(&iommu);
    let (_hers, _) = device(&alice, &function, GUEST);
    let (_his, _) = device(&bob, &function, OTHER_GUEST);
    let (her_pasid, his_pasid) = (paired(&alice, 77), paired(&bob, 77));
    let mut port = function.port();
    let _ = write(&mut port, shared_tag(her_pasid), 0x5008, 1);
    let expected = Fault {
        bdf: GUEST,
        pasid: Some(guest(77)),
        at: Iova::new(0x5008),
        access: Access::WRITE,
        reason: FaultReason::PasidEntryNotPresent,
        ats: Ats::Off,
    };
    assert_eq!(alice.sink.faults(), [expected]);
    assert_eq!(bob.sink.faults(), []);
    let _ = read(&mut port, shared_tag(his_pasid), 0);
    assert_eq!(told(&bob), [(OTHER_GUEST, Some(guest(77)))]);
    assert_eq!((told(&alice).len(), function.faults()), (1, 2));
    assert_eq!(function.host_faults(), []);
}

#[test]
fn r66_a_pasid_that_was_just_unbound_faults_to_its_owner_as_before() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let (_claim, _) = device(&tenant, &function, GUEST);
    let pasid = paired(&tenant, 77);
    let hold = tenant.set.hold(pasid).unwrap();
    function
        .bind(shared_tag(pasid), hold, tenant.process().binding(1, 77))
        .unwrap();
    let mut port = function.port();
    let _ = read(&mut port, shared_tag(pasid), 0);
    function.unbind(shared_tag(pasid), UserId(1)).unwrap();
    let _ = read(&mut port, shared_tag(pasid), 0);
    assert_eq!(told(&tenant), [(GUEST, Some(guest(77))); 2]);
}

#[test]
fn r66_a_default_pasid_that_is_not_bound_faults_as_a_request_of_its_device_without_one() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let (_one, first) = device(&tenant, &function, GUEST);
    let (_two, second) = device(&tenant, &function, OTHER_GUEST);
    let mut port = function.port();
    for default in [second, first] {
        let _ = read(&mut port, shared_tag(default), 0);
    }
    assert_eq!(told(&tenant), [(OTHER_GUEST, None), (GUEST, None)]);
}

#[test]
fn r52_r66_a_tag_is_its_holders_while_it_is_held_and_then_its_next_owners() {
    let authority = Authority::new(&[]);
    let (alice, bob) = (Tenant::new(&authority, 1), Tenant::new(&authority, 2));
    let iommu = Iommu::new();
    let function = function(&iommu);
    let (_hers, _) = device(&alice, &function, GUEST);
    let (_his, _) = device(&bob, &function, OTHER_GUEST);
    let pasid = paired(&alice, 77);
    let mut port = function.port();
    let mut fault = || {
        let _ = read(&mut port, shared_tag(pasid), 0);
        (alice.sink.faults().len(), bob.sink.faults().len())
    };

    // Freed while the device still works with it: the fault is hers, under the name that she gave it.
    let of_the_device = alice.set.hold(pasid).unwrap();
    alice.set.free(pasid).unwrap();
    assert_eq!(fault(), (1, 0));
    assert_eq!(told(&alice), [(GUEST, Some(guest(77)))]);

    drop(of_the_device);
    assert_eq!(fault(), (1, 0), "nobody's: the host's log has it");
    assert_eq!(function.host_faults().len(), 1);

    let only = PasidRange::only(pasid.get());
    assert_eq!(bob.set.alloc(only), Ok(pasid));
    assert_eq!(fault(), (1, 0), "his guest has no name for it");
    bob.set.attach_guest(guest(5), pasid).unwrap();
    assert_eq!(fault(), (1, 1));
    assert_eq!(told(&bob), [(OTHER_GUEST, Some(guest(5)))]);
}

#[test]
fn r66_an_owner_is_told_of_nothing_on_other_functions_and_after_its_claim() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let elsewhere = Bdf::new(0x6a, 2, 0);
    let elsewhere = iommu
        .add_function(elsewhere, PasidSupport::Width(20))
        .unwrap();
    let (claim, default) = device(&tenant, &function, GUEST);
    let pasid = paired(&tenant, 77);
    let _ = read(&mut elsewhere.port(), shared_tag(pasid), 0);
    let _ = read(&mut function.port(), None, 0);
    assert_eq!(
        told(&tenant),
        [],
        "the parent's own requests are the host's"
    );

    assert!(tenant.set.state_of(default).is_ok());
    let sinks = Arc::strong_count(&tenant.sink);
    drop(claim);
    let _ = read(&mut function.port(), shared_tag(pasid), 0);
    assert_eq!(told(&tenant), []);
    assert_eq!(function.host_faults().len(), 2);
    // Nothing of it is kept.
    assert_eq!(Arc::strong_count(&tenant.sink), sinks - 1);
    assert!(tenant.set.state_of(default).is_err());
}

#[test]
fn r66_a_claim_that_names_another_owner_forgets_the_first() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let (mut claim, first) = device(&tenant, &function, GUEST);
    let second = owner(&tenant, tenant.hold(), OTHER_GUEST);
    claim.set_slice_owner(second).unwrap();
    assert!(tenant.set.state_of(first).is_err());
    let pasid = paired(&tenant, 77);
    let _ = read(&mut function.port(), shared_tag(pasid), 0);
    assert_eq!(told(&tenant), [(OTHER_GUEST, Some(guest(77)))]);
}

#[test]
fn r12_an_owner_must_be_the_claims_tenant_and_the_claim_shared() {
    let authority = Authority::new(&[]);
    let (alice, bob) = (Tenant::new(&authority, 1), Tenant::new(&authority, 2));
    let iommu = Iommu::new();
    let function = function(&iommu);
    let mut claim = alice.own(&function);
    let refusal = claim.set_slice_owner(owner(&alice, alice.hold(), GUEST));
    assert_eq!(refusal.unwrap_err().errno(), 16);
    // The numbers of an exclusive owner are not the host's.
    let _ = read(&mut function.port(), tag(3), 0);
    assert_eq!(told(&alice), [(GUEST, Some(guest(3)))]);
    drop(claim);

    let mut claim = function.claim(alice.id, Sharing::Mediated).unwrap();
    let foreign_set = SliceOwner {
        set: bob.set.clone(),
        ..owner(&alice, alice.hold(), GUEST)
    };
    for foreign in [foreign_set, owner(&alice, bob.hold(), GUEST)] {
        let (bdf, tenant) = (HOST, bob.id);
        let expected = Err(IommuError::NotClaimed { bdf, tenant });
        assert_eq!(claim.set_slice_owner(foreign), expected);
    }
    let pasid = paired(&bob, 77);
    let _ = read(&mut function.port(), shared_tag(pasid), 0);
    assert_eq!((told(&alice).len(), told(&bob)), (1, vec![]));
}
