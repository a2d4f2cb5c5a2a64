use super::*;

#[test]
fn r20_one_function_is_not_given_to_two_tenants_without_mediation_in_either_order() {
    let iommu = Iommu::new();
    let function = function(&iommu);
    let (alice, bob) = (TenantId::new(1), TenantId::new(2));
    for (first, second) in [
        (Sharing::Exclusive, Sharing::Exclusive),
        (Sharing::Exclusive, Sharing::Mediated),
        (Sharing::Mediated, Sharing::Exclusive),
    ] {
        let _held = function.claim(alice, first).unwrap();
        let refusal = function.claim(bob, second).err();
        let expected = IommuError::Busy {
            bdf: HOST,
            holder: alice,
            sharing: first,
        };
        assert_eq!(refusal, Some(expected));
        assert_eq!(expected.errno(), 16);
    }
}

#[test]
fn r20_mediated_devices_of_different_tenants_share_a_function() {
    let iommu = Iommu::new();
    let function = function(&iommu);
    let claims = [1, 2, 2].map(|n| function.claim(TenantId::new(n), Sharing::Mediated).unwrap());
    assert_eq!(claims[1].tenant(), TenantId::new(2));
    drop(claims);
    assert!(function.claim(TenantId::new(3), Sharing::Exclusive).is_ok());
}

#[test]
fn r22_a_function_changes_sides_only_when_idle_with_entries_gone_and_caches_flushed() {
    let authority = Authority::new(&[]);
    let (alice, bob) = (Tenant::new(&authority, 1), Tenant::new(&authority, 2));
    let iommu = Iommu::new();
    let function = function(&iommu);
    let mut port = function.port();

    let exclusive = alice.own(&function);
    function
        .bind(tag(1), alice.hold(), alice.pass_through(1))
        .unwrap();
    assert!(read(&mut port, tag(1), 0).is_ok());
    let same_tenant = function.claim(alice.id, Sharing::Mediated).err();
    assert!(matches!(same_tenant, Some(IommuError::Busy { .. })));
    drop(exclusive);

    assert_eq!(iommu.audit(), []);
    assert_eq!(
        refused(read(&mut port, tag(1), 0)),
        FaultReason::PasidEntryNotPresent
    );
    // Nobody owns the function now, so the host is told instead of alice.
    assert_eq!(alice.sink.faults(), []);
    assert_eq!(function.host_faults().len(), 1);

    let shared = function.claim(bob.id, Sharing::Mediated).unwrap();
    let hold = bob.hold();
    let pasid = shared_tag(hold.pasid());
    function.bind(pasid, hold, bob.pass_through(2)).unwrap();
    drop(shared);
    assert_eq!(iommu.audit(), []);
    assert!(function.claim(alice.id, Sharing::Exclusive).is_ok());
}

#[test]
fn r22_a_tenants_entries_stay_until_its_last_claim_goes() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let one = function.claim(tenant.id, Sharing::Mediated).unwrap();
    let two = function.claim(tenant.id, Sharing::Mediated).unwrap();
    let hold = tenant.hold();
    function
        .bind(shared_tag(hold.pasid()), hold, tenant.pass_through(1))
        .unwrap();
    drop(one);
    assert_eq!(iommu.audit().len(), 1);
    drop(two);
    assert_eq!(iommu.audit(), []);
}

#[test]
fn r15_r4_without_a_claim_nothing_is_bound() {
    let authority = Authority::new(&[]);
    let (alice, bob) = (Tenant::new(&authority, 1), Tenant::new(&authority, 2));
    let iommu = Iommu::new();
    let function = function(&iommu);
    let _claim = alice.own(&function);
    let refusal = function.bind(tag(1), bob.hold(), bob.pass_through(2));
    assert_eq!(
        refusal,
        Err(IommuError::NotClaimed {
            bdf: HOST,
            tenant: bob.id
        })
    );
    assert_eq!(iommu.audit(), []);
}

#[test]
fn r17_on_a_shared_function_a_tag_is_the_pasid_that_is_held() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let _claim = function.claim(tenant.id, Sharing::Mediated).unwrap();
    let hold = tenant.hold();
    for wrong in [None, tag(hold.pasid().get() + 1)] {
        let refusal = function.bind(wrong, hold.clone(), tenant.pass_through(1));
        assert!(
            matches!(refusal, Err(IommuError::TagNotHeld { .. })),
            "{refusal:?}"
        );
    }
    assert_eq!(iommu.audit(), []);
}

#[test]
fn r15_the_audit_finds_every_entry_with_its_owner_and_its_pasid_is_allocated() {
    let authority = Authority::new(&[]);
    let (alice, bob) = (Tenant::new(&authority, 1), Tenant::new(&authority, 2));
    let iommu = Iommu::new();
    let function = function(&iommu);
    let other = iommu
        .add_function(Bdf::new(0x6a, 2, 0), PasidSupport::Width(20))
        .unwrap();
    let _claims = (
        function.claim(alice.id, Sharing::Mediated).unwrap(),
        function.claim(bob.id, Sharing::Mediated).unwrap(),
        other.claim(bob.id, Sharing::Exclusive).unwrap(),
    );
    for tenant in [&alice, &bob] {
        let hold = tenant.hold();
        function
            .bind(shared_tag(hold.pasid()), hold, tenant.pass_through(1))
            .unwrap();
    }
    other.bind(None, bob.hold(), bob.pass_through(1)).unwrap();
    other
        .bind(tag(0xfffff), bob.hold(), bob.pass_through(1))
        .unwrap();
    let audit = iommu.audit();
    let summary: Vec<_> = audit
        .iter()
        .map(|e| (e.bdf.device(), e.tag, e.tenant.get()))
        .collect();
    assert_eq!(
        summary,
        [
            (1, tag(1), 1),
            (1, tag(2), 2),
            (2, None, 2),
            (2, tag(0xfffff), 2)
        ]
    );
    for entry in audit {
        // Freed, but not given out again while the entry stands.
        let owner = if entry.tenant == alice.id {
            &alice
        } else {
            &bob
        };
        owner.set.free(entry.host_pasid).unwrap();
        assert_eq!(authority.owner_of(entry.host_pasid), Some(entry.tenant));
    }
}

#[test]
fn one_place_holds_one_function() {
    let iommu = Iommu::new();
    let _function = function(&iommu);
    let again = iommu.add_function(HOST, PasidSupport::None).err();
    assert_eq!(again, Some(IommuError::FunctionExists { bdf: HOST }));
    let bdf = Bdf::new(1, 0, 0);
    for width in [0, 21] {
        let wrong = iommu.add_function(bdf, PasidSupport::Width(width)).err();
        assert_eq!(wrong, Some(IommuError::InvalidWidth { bdf, width }));
    }
}
