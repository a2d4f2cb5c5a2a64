use palisade_units::Access;

use super::*;

#[test]
fn r1_without_the_capability_requests_translate_by_the_function_alone() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = iommu.add_function(HOST, PasidSupport::None).unwrap();
    let _claim = tenant.own(&function);
    let process = tenant.process();
    process.map(0x5000, 0x1000);
    tenant.shared.store_u64(0x1000, 0xabcd).unwrap();
    let untagged = tenant.binding(1, process.space(), None);
    function.bind(None, tenant.hold(), untagged).unwrap();
    let mut port = function.port();
    assert_eq!(read(&mut port, None, 0x5000), Ok(0xabcd));
    assert_eq!(
        refused(read(&mut port, tag(1), 0x5000)),
        FaultReason::PasidDisabled
    );
}

#[test]
fn r1_requests_without_a_pasid_share_no_space_with_those_that_have_one() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let _claim = tenant.own(&function);
    let (plain, tagged) = (tenant.process(), tenant.process());
    plain.map(0x5000, 0x1000);
    tagged.map(0x6000, 0x2000);
    function
        .bind(None, tenant.hold(), tenant.binding(1, plain.space(), None))
        .unwrap();
    function
        .bind(tag(0), tenant.hold(), tagged.binding(1, 0))
        .unwrap();
    let mut port = function.port();
    assert!(read(&mut port, None, 0x5000).is_ok());
    assert!(read(&mut port, tag(0), 0x6000).is_ok());
    assert_eq!(
        refused(read(&mut port, None, 0x6000)),
        FaultReason::FirstStageNotPresent
    );
    assert_eq!(
        refused(read(&mut port, tag(0), 0x5000)),
        FaultReason::FirstStageNotPresent
    );
}

#[test]
fn r4_allocating_gives_no_access_until_the_pasid_is_bound() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let _claim = function.claim(tenant.id, Sharing::Mediated).unwrap();
    let process = tenant.process();
    process.map(0x5000, 0x1000);
    let hold = tenant.hold();
    let tag = shared_tag(hold.pasid());
    let mut port = function.port();
    assert_eq!(
        refused(read(&mut port, tag, 0x5000)),
        FaultReason::PasidEntryNotPresent
    );
    function.bind(tag, hold, process.binding(1, 7)).unwrap();
    assert!(read(&mut port, tag, 0x5000).is_ok());
    // Programming one that was never allocated gives nothing either.
    let other = Some(PasidTag::of_exclusive_owner(guest(999)));
    assert_eq!(
        refused(read(&mut port, other, 0x5000)),
        FaultReason::PasidEntryNotPresent
    );
}

#[test]
fn r5_a_pasid_beyond_the_width_faults_and_is_not_bound() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = iommu.add_function(HOST, PasidSupport::Width(4)).unwrap();
    let _claim = tenant.own(&function);
    let refusal = function.bind(tag(16), tenant.hold(), tenant.pass_through(1));
    assert!(matches!(
        refusal,
        Err(IommuError::PasidTooLarge { width: 4, .. })
    ));
    function
        .bind(tag(15), tenant.hold(), tenant.pass_through(1))
        .unwrap();
    let mut port = function.port();
    assert!(read(&mut port, tag(15), 0).is_ok());
    assert_eq!(
        refused(read(&mut port, tag(16), 0)),
        FaultReason::PasidTooLarge
    );
    let told = tenant.sink.faults();
    assert_eq!(told.last().map(|fault| fault.pasid), Some(Some(guest(16))));
}

#[test]
fn r5_disabled_pasids_fault_even_where_the_translation_was_cached() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let _claim = tenant.own(&function);
    function
        .bind(tag(1), tenant.hold(), tenant.pass_through(1))
        .unwrap();
    function
        .bind(None, tenant.hold(), tenant.pass_through(1))
        .unwrap();
    let mut port = function.port();
    assert!(read(&mut port, tag(1), 0).is_ok());
    function.set_pasid_enabled(PasidEnable::Off);
    assert_eq!(
        refused(read(&mut port, tag(1), 0)),
        FaultReason::PasidDisabled
    );
    assert!(read(&mut port, None, 0).is_ok());
    let refusal = function.bind(tag(2), tenant.hold(), tenant.pass_through(1));
    assert!(matches!(refusal, Err(IommuError::PasidDisabled { .. })));
    function.set_pasid_enabled(PasidEnable::On);
    assert!(read(&mut port, tag(1), 0).is_ok());
}

#[test]
fn r5_binding_a_pasid_without_the_capability_is_refused() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = iommu.add_function(HOST, PasidSupport::None).unwrap();
    let _claim = tenant.own(&function);
    let refusal = function.bind(tag(1), tenant.hold(), tenant.pass_through(1));
    assert!(matches!(refusal, Err(IommuError::PasidUnsupported { .. })));
    assert_eq!(refusal.unwrap_err().errno(), 95);
}

#[test]
fn r11_all_tags_of_a_hostile_owner_reach_only_what_the_owner_bound() {
    let authority = Authority::new(&[]);
    let (iommu, alice, bob) = (
        Iommu::new(),
        Tenant::new(&authority, 1),
        Tenant::new(&authority, 2),
    );
    let function = function(&iommu);
    let _claim = bob.own(&function);
    let other = iommu
        .add_function(Bdf::new(0x6a, 2, 0), PasidSupport::Width(20))
        .unwrap();
    let _alices = alice.own(&other);
    for number in 1..=1000 {
        // Alice's PASIDs are bound elsewhere; the same numbers are no entries of bob's function.
        other
            .bind(tag(number), alice.hold(), alice.pass_through(1))
            .unwrap();
    }
    alice.shared.store_u64(0x3000, 0xa11ce).unwrap();
    bob.shared.store_u64(0x3000, 0xb0b).unwrap();
    let own = [0, 5, 1024, (1 << 20) - 1];
    for number in own {
        function
            .bind(tag(number), bob.hold(), bob.pass_through(2))
            .unwrap();
    }
    let mut port = function.port();
    let (mut reached, mut faulted) = (Vec::new(), 0);
    for number in 0..1 << 20 {
        match read(&mut port, tag(number), 0x3000) {
            Ok(word) => reached.push((number, word)),
            Err(DmaError::Faulted {
                reason: FaultReason::PasidEntryNotPresent,
                ..
            }) => {
                faulted += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(reached, own.map(|number| (number, 0xb0b)));
    assert_eq!(faulted, (1 << 20) - own.len());
    assert_eq!(function.faults(), faulted as u64);
    assert_eq!(alice.sink.faults(), []);
}

#[test]
fn r14_each_function_has_a_table_of_its_own() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let one = function(&iommu);
    let two = iommu
        .add_function(Bdf::new(0x6a, 2, 0), PasidSupport::Width(20))
        .unwrap();
    let _claims = (tenant.own(&one), tenant.own(&two));
    one.bind(tag(3), tenant.hold(), tenant.pass_through(1))
        .unwrap();
    assert!(read(&mut one.port(), tag(3), 0).is_ok());
    let reason = refused(read(&mut two.port(), tag(3), 0));
    assert_eq!(reason, FaultReason::PasidEntryNotPresent);
}

#[test]
fn r16_a_wrong_pasid_faults_once_and_touches_nothing() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let _claim = tenant.own(&function);
    function
        .bind(tag(1), tenant.hold(), tenant.pass_through(1))
        .unwrap();
    let mut port = function.port();
    assert!(write(&mut port, tag(2), 0x4000, u64::MAX).is_err());
    assert_eq!(tenant.shared.load_u64(0x4000), Ok(0));
    let expected = Fault {
        bdf: GUEST,
        pasid: Some(guest(2)),
        at: Iova::new(0x4000),
        access: Access::WRITE,
        reason: FaultReason::PasidEntryNotPresent,
        ats: Ats::Off,
    };
    assert_eq!(tenant.sink.faults(), [expected]);
    // Others go on.
    assert_eq!(write(&mut port, tag(1), 0x4000, 5), Ok(()));
}

#[test]
fn r17_entries_of_both_tenants_live_in_one_table() {
    let authority = Authority::new(&[]);
    let tenants = [Tenant::new(&authority, 1), Tenant::new(&authority, 2)];
    let iommu = Iommu::new();
    let function = function(&iommu);
    let mut port = function.port();
    let mut claims = Vec::new();
    for tenant in &tenants {
        claims.push(function.claim(tenant.id, Sharing::Mediated).unwrap());
        tenant
            .shared
            .store_u64(0x1000, tenant.id.get().into())
            .unwrap();
        let (process, hold) = (tenant.process(), tenant.hold());
        process.map(0x7000, 0x1000);
        // Both guests call it 1.
        function
            .bind(
                shared_tag(hold.pasid()),
                hold,
                process.binding(tenant.id.get().into(), 1),
            )
            .unwrap();
    }
    let audit = iommu.audit();
    assert_eq!(
        audit.iter().map(|entry| entry.tenant).collect::<Vec<_>>(),
        [tenants[0].id, tenants[1].id]
    );
    for entry in audit {
        assert_eq!(
            read(&mut port, entry.tag, 0x7000),
            Ok(entry.tenant.get().into())
        );
    }
}
