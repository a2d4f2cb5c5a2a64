use palisade_units::Access;

use super::*;

#[test]
fn r66_faults_carry_the_guests_function_and_pasid() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let _claim = function.claim(tenant.id, Sharing::Mediated).unwrap();
    // So that the host's number is not the guest's.
    let _others = [tenant.hold(), tenant.hold()];
    let hold = tenant.hold();
    let pasid = shared_tag(hold.pasid());
    function
        .bind(pasid, hold, tenant.process().binding(1, 77))
        .unwrap();
    let mut port = function.port();
    let privileged = Requester {
        privilege: Privilege::Privileged,
        ..by(pasid)
    };
    assert!(port.write(privileged, Iova::new(0x5008), &[0]).is_err());
    let expected = Fault {
        bdf: GUEST,
        pasid: Some(guest(77)),
        at: Iova::new(0x5008),
        access: Access::WRITE | Access::PRIVILEGED,
        reason: FaultReason::SupervisorRequestDisabled,
        ats: Ats::Off,
    };
    assert_eq!(tenant.sink.faults(), [expected]);
    assert_eq!(function.faults(), 1);
}

/// Mode and execution are of the prefix that holds the PASID (VT-d §9.4).
#[test]
fn r38_a_request_without_a_pasid_is_of_user_mode_and_reads() {
    let tenant = Tenant::alone();
    let function = function(&Iommu::new());
    let _claim = tenant.own(&function);
    let process = tenant.process();
    process.map(0x5000, 0x1000);
    process.put(0x6000, 1, 0x1000 | 3);
    let first = FirstStage {
        supervisor: SupervisorRequests::Allowed,
        ..FirstStage::new(Gpa::new(process.root), Levels::Four)
    };
    for first in [FirstStage::new(first.root, Levels::Four), first] {
        let binding = tenant.binding(1, Space::FirstStage(first), None);
        function.bind(None, tenant.hold(), binding).unwrap();
        let mut port = function.port();
        let privileged = Requester {
            privilege: Privilege::Privileged,
            ..by(None)
        };
        let (user, supervisor) = (Iova::new(0x5000), Iova::new(0x6000));
        assert_eq!(port.read(privileged, user, &mut [0; 8]), Ok(()));
        assert_eq!(port.fetch(privileged, user, &mut [0; 8]), Ok(()));
        let refusal = refused(port.read(privileged, supervisor, &mut [0; 8]));
        assert_eq!(refusal, FaultReason::SupervisorPage);
        assert_eq!(tenant.sink.faults()[0].access, Access::READ);
    }
}

#[test]
fn r59_fault_processing_disable_suppresses_the_record_but_not_the_refusal() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let _claim = tenant.own(&function);
    let binding = Binding {
        fault_disable: FaultProcessing::Disabled,
        ..tenant.process().binding(1, 1)
    };
    function.bind(tag(1), tenant.hold(), binding).unwrap();
    let mut port = function.port();
    assert_eq!(
        refused(read(&mut port, tag(1), 0)),
        FaultReason::FirstStageNotPresent
    );
    assert_eq!(tenant.sink.faults(), []);
    assert_eq!((function.faults(), function.host_faults().len()), (1, 0));
}

#[test]
fn r59_45h_46h_59h_reach_the_owner_of_an_exclusive_function() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = iommu.add_function(HOST, PasidSupport::Width(8)).unwrap();
    let _claim = tenant.own(&function);
    let mut port = function.port();
    let _ = read(&mut port, tag(3), 0);
    let _ = read(&mut port, None, 0);
    let _ = read(&mut port, tag(256), 0);
    function.set_pasid_enabled(PasidEnable::Off);
    let _ = read(&mut port, tag(3), 0);
    let told = tenant.sink.faults();
    let told: Vec<_> = told
        .iter()
        .map(|fault| (fault.pasid, fault.reason.code()))
        .collect();
    let three = Some(guest(3));
    assert_eq!(
        told,
        [
            (three, 0x59),
            (None, 0x59),
            (Some(guest(256)), 0x46),
            (three, 0x45)
        ]
    );
}

#[test]
fn r66_an_owner_who_knows_no_tags_is_told_without_them() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    function.set_default_sink(Some(tenant.sink.clone()), GUEST, UnknownTags::WithoutPasid);
    let _ = read(&mut function.port(), tag(3), 0);
    assert_eq!(tenant.sink.faults()[0].pasid, None);
}

#[test]
fn r59_faults_of_nobody_are_counted_and_the_last_are_kept() {
    let iommu = Iommu::new();
    let function = function(&iommu);
    let mut port = function.port();
    for number in 0..1000 {
        let _ = read(&mut port, tag(number), 0x1000);
    }
    let log = function.host_faults();
    assert_eq!((function.faults(), log.len()), (1000, 64));
    let expected = HostFault {
        tag: tag(999),
        at: Iova::new(0x1000),
        access: Access::READ,
        reason: FaultReason::PasidEntryNotPresent,
    };
    assert_eq!(log.last(), Some(&expected));
}

#[test]
fn r59_79h_where_the_tenant_has_no_memory_and_85h_where_it_is_read_only() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let _claim = tenant.own(&function);
    let rom = (
        Gpa::new(MEMORY_BYTES),
        tenant.shared.backing(),
        Protection::ReadOnly,
    );
    tenant.memory.map(rom.0, 0x1000, rom.1, rom.2).unwrap();
    function
        .bind(tag(1), tenant.hold(), tenant.pass_through(1))
        .unwrap();
    let mut port = function.port();
    let absent = read(&mut port, tag(1), MEMORY_BYTES + 0x1000);
    assert_eq!(refused(absent), FaultReason::SecondStageNotPresent);
    assert!(read(&mut port, tag(1), MEMORY_BYTES).is_ok());
    let rom = write(&mut port, tag(1), MEMORY_BYTES, 0);
    assert_eq!(refused(rom), FaultReason::NotWritable);
    // A guest cannot mend it, so nobody asks.
    let rom = port.write(asking(tag(1)), Iova::new(MEMORY_BYTES), &[0]);
    assert_eq!(refused(rom), FaultReason::NotWritable);
}

#[test]
fn r59_87h_untagged_requests_to_the_interrupt_range_and_tagged_ones_that_end_there() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let _claim = tenant.own(&function);
    let at_range = (
        Gpa::new(0xfee0_0000),
        tenant.shared.backing(),
        Protection::ReadWrite,
    );
    tenant
        .memory
        .map(at_range.0, 0x20_0000, at_range.1, at_range.2)
        .unwrap();
    function
        .bind(None, tenant.hold(), tenant.pass_through(1))
        .unwrap();
    function
        .bind(tag(1), tenant.hold(), tenant.pass_through(1))
        .unwrap();
    let mut port = function.port();
    // Memory right behind the range is memory, in the same 2 MiB too.
    assert!(write(&mut port, tag(1), 0xfef0_0000, 1).is_ok());
    for tag in [None, tag(1)] {
        let message = write(&mut port, tag, 0xfee0_1000, 1);
        assert_eq!(refused(message), FaultReason::InterruptRange);
    }
    assert_eq!(tenant.shared.load_u64(0x1000), Ok(0));
}

#[test]
fn r59_5ch_82h_fetches_obey_the_execute_bits() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let _claim = tenant.own(&function);
    let process = tenant.process();
    process.map(0x5000, 0x1000);
    process.put(0x6000, 1, 0x2000 | PAGE | 1 << 63);
    let closed = FirstStage {
        no_execute: NoExecute::Honoured,
        ..FirstStage::new(Gpa::new(process.root), Levels::Four)
    };
    let open = FirstStage {
        execute: ExecuteRequests::Allowed,
        ..closed
    };
    for (number, stage) in [(1, closed), (2, open)] {
        let binding = tenant.binding(1, Space::FirstStage(stage), Some(guest(number)));
        function.bind(tag(number), tenant.hold(), binding).unwrap();
    }
    let mut port = function.port();
    let mut fetch = |number, at| port.fetch(by(tag(number)), Iova::new(at), &mut [0; 8]);
    assert_eq!(
        refused(fetch(1, 0x5000)),
        FaultReason::ExecuteRequestDisabled
    );
    assert_eq!(fetch(2, 0x5000), Ok(()));
    assert_eq!(refused(fetch(2, 0x6000)), FaultReason::NotExecutable);
    assert!(
        port.read(by(tag(2)), Iova::new(0x6000), &mut [0; 8])
            .is_ok()
    );
}

#[test]
fn r38_writes_to_read_only_pages_fault_and_are_the_guests_to_mend() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let _claim = tenant.own(&function);
    let process = tenant.process();
    process.put(0x5000, 1, 0x1000 | READ_ONLY_PAGE);
    function
        .bind(tag(1), tenant.hold(), process.binding(1, 1))
        .unwrap();
    let mut port = function.port();
    assert!(read(&mut port, tag(1), 0x5000).is_ok());
    assert_eq!(
        refused(write(&mut port, tag(1), 0x5000, 1)),
        FaultReason::NotWritable
    );
    let asked = port.write(asking(tag(1)), Iova::new(0x5000), &[1]);
    let (at, access) = (Iova::new(0x5000), Access::WRITE);
    assert_eq!(asked, Err(DmaError::NotPresent { at, access }));
    assert_eq!((function.faults(), tenant.sink.faults().len()), (1, 1));
}

/// A sink that calls back into the platform, as a unit does.
struct Nosy(FunctionHandle);

impl Sink for Nosy {
    fn fault(&self, _: Fault) {
        self.0.invalidate(Scope::All, Cached::InUnit);
        let _ = self.0.unbind(tag(1), UserId(1));
    }

    fn page_request(&self, request: PageRequest) -> Result<(), QueueFull> {
        let _ = self.0.respond(tag(1), request.group, PageResponse::Success);
        Ok(())
    }
}

#[test]
fn a_sink_may_call_back_into_the_platform() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let _claim = tenant.own(&function);
    let sink = Arc::new(Nosy(function.clone()));
    let binding = Binding {
        sink,
        ..tenant.process().binding(1, 1)
    };
    function.bind(tag(1), tenant.hold(), binding).unwrap();
    let mut port = function.port();
    let answered = Arc::new(AtomicU64::new(0));
    let count = answered.clone();
    let waiter = Box::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    port.request_page(by(tag(1)), Iova::new(0), Access::READ, waiter)
        .unwrap();
    assert_eq!(answered.load(Ordering::SeqCst), 1);
    assert!(read(&mut port, tag(1), 0).is_err());
    assert_eq!(iommu.audit(), []);
}
