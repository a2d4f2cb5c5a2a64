use super::*;

#[test]
fn r39_unbind_removes_access_at_once_and_the_pasid_can_be_bound_again() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let _claim = function.claim(tenant.id, Sharing::Mediated).unwrap();
    let hold = tenant.hold();
    let pasid = hold.pasid();
    function
        .bind(shared_tag(pasid), hold, tenant.pass_through(1))
        .unwrap();
    let mut port = function.port();
    assert!(read(&mut port, shared_tag(pasid), 0).is_ok());

    assert_eq!(
        function.unbind(shared_tag(pasid), UserId(1)),
        Ok(Unbound::Last)
    );
    let reason = refused(read(&mut port, shared_tag(pasid), 0));
    assert_eq!(reason, FaultReason::PasidEntryNotPresent);
    let again = tenant.set.hold(pasid).expect("still allocated");
    function
        .bind(shared_tag(pasid), again, tenant.pass_through(1))
        .unwrap();
    assert!(read(&mut port, shared_tag(pasid), 0).is_ok());
}

#[test]
fn r39_an_unbind_leaves_no_reference_to_the_pasid() {
    let authority = Authority::new(&[]);
    let tenant = Tenant::new(&authority, 1);
    let iommu = Iommu::new();
    let function = function(&iommu);
    let _claim = function.claim(tenant.id, Sharing::Mediated).unwrap();
    let hold = tenant.hold();
    let pasid = hold.pasid();
    function
        .bind(shared_tag(pasid), hold, tenant.pass_through(1))
        .unwrap();
    let mut port = function.port();
    read(&mut port, shared_tag(pasid), 0).unwrap();
    tenant.set.free(pasid).unwrap();
    assert_eq!(authority.owner_of(pasid), Some(tenant.id));
    function.unbind(shared_tag(pasid), UserId(1)).unwrap();
    assert_eq!(authority.owner_of(pasid), None);
}

#[test]
fn r39_two_users_of_a_pasid_are_counted_and_the_last_unbind_tears_down() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let _claim = function.claim(tenant.id, Sharing::Mediated).unwrap();
    let hold = tenant.hold();
    let pasid = shared_tag(hold.pasid());
    function
        .bind(pasid, hold.clone(), tenant.pass_through(1))
        .unwrap();
    function
        .bind(pasid, hold.clone(), tenant.pass_through(2))
        .unwrap();
    function.bind(pasid, hold, tenant.pass_through(2)).unwrap();
    assert_eq!(iommu.audit().first().map(|entry| entry.users), Some(2));
    let mut port = function.port();
    assert_eq!(function.unbind(pasid, UserId(1)), Ok(Unbound::OthersRemain));
    assert!(read(&mut port, pasid, 0).is_ok());
    let again = function.unbind(pasid, UserId(1));
    assert!(matches!(again, Err(IommuError::NotBound { .. })));
    assert_eq!(function.unbind(pasid, UserId(2)), Ok(Unbound::Last));
    assert!(read(&mut port, pasid, 0).is_err());
}

#[test]
fn r39_when_the_first_user_leaves_the_next_ones_memory_and_sink_take_over() {
    let authority = Authority::new(&[]);
    let tenant = Tenant::new(&authority, 1);
    // The same tenant by another connection: memory and sink of its own.
    let other = Tenant::new(&authority, 2);
    tenant.shared.store_u64(0x1000, 1).unwrap();
    other.shared.store_u64(0x1000, 2).unwrap();
    let iommu = Iommu::new();
    let function = function(&iommu);
    let _claim = function.claim(tenant.id, Sharing::Mediated).unwrap();
    let hold = tenant.hold();
    let pasid = shared_tag(hold.pasid());
    function
        .bind(pasid, hold.clone(), tenant.pass_through(1))
        .unwrap();
    function.bind(pasid, hold, other.pass_through(2)).unwrap();
    let mut port = function.port();
    assert_eq!(read(&mut port, pasid, 0x1000), Ok(1));
    function.unbind(pasid, UserId(1)).unwrap();
    assert_eq!(read(&mut port, pasid, 0x1000), Ok(2));
    assert!(read(&mut port, pasid, MEMORY_BYTES).is_err());
    assert_eq!(
        (tenant.sink.faults().len(), other.sink.faults().len()),
        (0, 1)
    );
}

#[test]
fn r39_another_space_waits_for_the_others_and_the_same_user_replaces_its_own() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let _claim = function.claim(tenant.id, Sharing::Mediated).unwrap();
    let (one, two) = (tenant.process(), tenant.process());
    one.map(0x5000, 0x1000);
    two.map(0x5000, 0x2000);
    tenant.shared.store_u64(0x1000, 1).unwrap();
    tenant.shared.store_u64(0x2000, 2).unwrap();
    let hold = tenant.hold();
    let pasid = shared_tag(hold.pasid());
    function
        .bind(pasid, hold.clone(), one.binding(1, 1))
        .unwrap();
    let refusal = function.bind(pasid, hold.clone(), two.binding(2, 1));
    assert!(matches!(refusal, Err(IommuError::EntryBusy { .. })));
    let mut port = function.port();
    assert_eq!(read(&mut port, pasid, 0x5000), Ok(1));
    function.bind(pasid, hold, two.binding(1, 1)).unwrap();
    assert_eq!(read(&mut port, pasid, 0x5000), Ok(2));
}

#[test]
fn spaces_that_are_not_offered_are_refused() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let _claim = tenant.own(&function);
    let first = FirstStage::new(Gpa::new(0x1000), Levels::Four);
    let three = FirstStage {
        levels: Levels::Three,
        ..first
    };
    let second = SecondStage::new(Gpa::new(0x2000), Levels::Three);
    for space in [Space::FirstStage(three), Space::Nested(three, second)] {
        let refusal = function.bind(tag(1), tenant.hold(), tenant.binding(1, space, None));
        assert!(
            matches!(refusal, Err(IommuError::Unsupported(_))),
            "{refusal:?}"
        );
    }
    let crooked = Space::Nested(first, SecondStage::new(Gpa::new(0x2008), Levels::Three));
    let refusal = function.bind(tag(1), tenant.hold(), tenant.binding(1, crooked, None));
    assert_eq!(
        refusal,
        Err(IommuError::MisalignedRoot {
            root: Gpa::new(0x2008)
        })
    );
    assert_eq!(iommu.audit(), []);
}
