//! Translations that a function keeps: its TLB is apart from the unit's caches, and as real (R41).

use super::*;

/// A process with a page at 0x5000 that leads to a frame with 1, cached by the unit and by the function; then
/// its tables lead to one with 2.
struct Stale<'a> {
    function: FunctionHandle,
    _claim: Claim,
    process: Process<'a>,
    unit: DmaPort,
    device: DmaPort,
}

const AT: u64 = 0x5000;

fn by_ats(tag: Option<PasidTag>) -> Requester {
    Requester {
        ats: Ats::On,
        ..Requester::new(tag)
    }
}

fn read_by(port: &mut DmaPort, by: Requester, at: u64) -> Result<u64, DmaError> {
    let mut bytes = [0; 8];
    port.read(by, Iova::new(at), &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

impl<'a> Stale<'a> {
    fn new(tenant: &'a Tenant) -> Self {
        let function = function(&Iommu::new());
        let claim = tenant.own(&function);
        let process = tenant.process();
        tenant.shared.store_u64(0x10_0000, 1).unwrap();
        tenant.shared.store_u64(0x11_0000, 2).unwrap();
        process.map(AT, 0x10_0000);
        function
            .bind(tag(1), tenant.hold(), process.binding(1, 1))
            .unwrap();
        let mut stale = Self {
            unit: function.port(),
            device: function.port(),
            function,
            _claim: claim,
            process,
        };
        assert_eq!(stale.seen(), [1, 1]);
        stale.process.map(AT, 0x11_0000);
        assert_eq!(stale.seen(), [1, 1]);
        stale
    }

    /// What untranslated requests find, and those of the function's own translations.
    fn seen(&mut self) -> [u64; 2] {
        [
            read_by(&mut self.unit, by(tag(1)), AT).unwrap(),
            read_by(&mut self.device, by_ats(tag(1)), AT).unwrap(),
        ]
    }
}

#[test]
fn r41_each_cache_forgets_what_is_meant_for_it() {
    let page = Scope::Pages {
        tag: tag(1),
        at: Iova::new(AT),
        len_bytes: 1,
    };
    for scope in [Scope::All, Scope::Tag(tag(1)), page] {
        for (cached, expected) in [
            (Cached::InUnit, [2, 1]),
            (Cached::LeavesInUnit, [2, 1]),
            (Cached::InDevices, [1, 2]),
            (Cached::Everywhere, [2, 2]),
        ] {
            let tenant = Tenant::alone();
            let mut stale = Stale::new(&tenant);
            stale.function.invalidate(scope, cached);
            assert_eq!(stale.seen(), expected, "{scope:?}, {cached:?}");
        }
    }
}

#[test]
fn r41_what_is_unbound_is_gone_from_the_functions_own_tlb_too() {
    let tenant = Tenant::alone();
    let mut stale = Stale::new(&tenant);
    stale.function.unbind(tag(1), UserId(1)).unwrap();
    let after = read_by(&mut stale.device, by_ats(tag(1)), AT);
    assert_eq!(refused(after), FaultReason::PasidEntryNotPresent);
}

/// The function's TLB is not asked for what the unit keeps of tables: a miss in it walks by those, and finds
/// what they led to when they were cached.
#[test]
fn r40_the_leaf_hint_leaves_tables_and_without_it_they_go() {
    for (cached, expected) in [(Cached::LeavesInUnit, 1), (Cached::InUnit, 2)] {
        let tenant = Tenant::alone();
        let mut stale = Stale::new(&tenant);
        let other = tenant.table();
        tenant
            .shared
            .store_u64(other + (AT >> 12) * 8, 0x11_0000 | PAGE)
            .unwrap();
        // Marked accessed, so that there is nothing to be done but to read it.
        stale.process.put(AT, 1, 0x10_0000 | PAGE | 1 << 5);
        // The table of pages is exchanged for another.
        stale.process.put(AT, 2, other | PAGE);
        let page = Scope::Pages {
            tag: tag(1),
            at: Iova::new(AT),
            len_bytes: 1,
        };
        stale.function.invalidate(page, cached);
        assert_eq!(stale.seen()[0], expected, "{cached:?}");
    }
}

#[test]
fn a_function_that_may_have_no_tlb_gets_no_translation() {
    let tenant = Tenant::alone();
    let function = function(&Iommu::new());
    let _claim = tenant.own(&function);
    let process = tenant.process();
    process.map(AT, 0x10_0000);
    let binding = Binding {
        device_tlb: DeviceTlb::Blocked,
        ..process.binding(1, 1)
    };
    function.bind(tag(1), tenant.hold(), binding).unwrap();
    let mut port = function.port();
    assert_eq!(read(&mut port, tag(1), AT), Ok(0));
    let refusal = refused(read_by(&mut port, by_ats(tag(1)), AT));
    assert_eq!(refusal, FaultReason::DeviceTlbDisabled);
    let faults = tenant.sink.faults();
    assert_eq!(faults.len(), 1);
    assert_eq!((faults[0].reason, faults[0].ats), (refusal, Ats::On));
    // What was cached before is no way around it.
    function
        .bind(tag(1), tenant.hold(), process.binding(1, 1))
        .unwrap();
    assert_eq!(read_by(&mut port, by_ats(tag(1)), AT), Ok(0));
    let binding = Binding {
        device_tlb: DeviceTlb::Blocked,
        ..process.binding(1, 1)
    };
    function.bind(tag(1), tenant.hold(), binding).unwrap();
    assert_eq!(refused(read_by(&mut port, by_ats(tag(1)), AT)), refusal);
}

/// Whether a translation that the guest can still make is a fault is for its unit to say, so that it is told which
/// kind of request it was. The operator hears of both.
#[test]
fn r79_a_missing_page_is_told_of_with_the_kind_of_the_request() {
    let tenant = Tenant::alone();
    let function = function(&Iommu::new());
    let _claim = tenant.own(&function);
    let process = tenant.process();
    function
        .bind(tag(1), tenant.hold(), process.binding(1, 1))
        .unwrap();
    let mut port = function.port();
    let reason = refused(read_by(&mut port, by_ats(tag(1)), AT));
    assert_eq!(reason, FaultReason::FirstStageNotPresent);
    read(&mut port, tag(1), AT).unwrap_err();
    let kinds: Vec<_> = tenant.sink.faults().iter().map(|fault| fault.ats).collect();
    assert_eq!(kinds, [Ats::On, Ats::Off]);
    assert_eq!(function.faults(), 2);
    // Who asks for the page has no fault.
    let asks = Requester {
        on_miss: OnMiss::Ask,
        ..by_ats(tag(1))
    };
    let missed = read_by(&mut port, asks, AT);
    assert!(matches!(missed, Err(DmaError::NotPresent { .. })));
    assert_eq!(function.faults(), 2);
}
