//! Faults as events of the authority: each once, in the host's names.

use palisade_ioasid::{EventKind, Listener, Notification, Priority, Sequence};
use palisade_units::Access;

use super::*;

const OTHER_GUEST: Bdf = Bdf::new(0, 0x11, 0);

/// One fault in the audit: whose, by which PASID, and the code.
type Noted = (Option<TenantId>, u32, u8);

/// A host whose platform tells its authority of faults.
struct Audited {
    authority: Authority,
    function: FunctionHandle,
}

impl Audited {
    fn new() -> Self {
        Self::of_width(20)
    }

    fn of_width(width: u8) -> Self {
        let authority = Authority::new(&[]);
        let support = PasidSupport::Width(width);
        let function = Iommu::audited_by(&authority).add_function(HOST, support);
        Self {
            authority,
            function: function.unwrap(),
        }
    }

    fn tenant(&self, number: u32) -> Tenant {
        Tenant::new(&self.authority, number)
    }

    /// Every fault so far, all of the one function.
    fn noted(&self) -> Vec<Noted> {
        let found = self.authority.events_since(Sequence::FIRST);
        assert_eq!(found.dropped, 0);
        let faults = found.events.iter().filter_map(|event| match event.kind {
            EventKind::Faulted {
                pasid,
                place,
                reason,
            } => {
                assert_eq!(place, HOST);
                Some((event.tenant, pasid.get(), reason.get()))
            }
            _ => None,
        });
        let faults: Vec<_> = faults.collect();
        assert_eq!(faults.len() as u64, self.function.faults(), "each once");
        faults
    }
}

#[test]
fn r16_r77_an_exclusive_owner_that_sweeps_pasids_leaves_one_event_for_each_wrong_one() {
    let host = Audited::new();
    let tenant = host.tenant(1);
    let _claim = tenant.own(&host.function);
    let process = tenant.process();
    process.map(0x5000, 0x1000);
    let binding = process.binding(1, 7);
    host.function.bind(tag(7), tenant.hold(), binding).unwrap();
    let mut port = host.function.port();
    for number in 2..64 {
        assert_eq!(read(&mut port, tag(number), 0x5000).is_ok(), number == 7);
    }
    let wrong = (2..64).filter(|number| *number != 7);
    let expected: Vec<_> = wrong.map(|number| (number, 0x59)).collect();
    let noted: Vec<_> = host
        .noted()
        .iter()
        .map(|fault| (fault.1, fault.2))
        .collect();
    assert_eq!(noted, expected);
}

#[test]
fn r79_an_exclusive_owner_cannot_put_its_faults_on_whose_number_it_programs() {
    let host = Audited::new();
    let (alice, bob) = (host.tenant(1), host.tenant(2));
    let _claim = alice.own(&host.function);
    let foreign = bob.hold();
    let mut port = host.function.port();
    assert!(read(&mut port, tag(foreign.pasid().get()), 0).is_err());
    assert_eq!(
        host.noted(),
        [(Some(alice.id), foreign.pasid().get(), 0x59)]
    );
}

#[test]
fn r77_a_walk_that_faults_is_an_event_of_the_entrys_pasid_and_not_of_the_guests_number() {
    let host = Audited::new();
    let tenant = host.tenant(1);
    let _claim = tenant.own(&host.function);
    let process = tenant.process();
    process.put(0x6000, 1, 0x1000 | READ_ONLY_PAGE);
    process.put(0x7000, 1, 0x1000 | PAGE | 1 << 51);
    // So that the host's number is not the guest's.
    let _others = [tenant.hold(), tenant.hold()];
    let (hold, untagged) = (tenant.hold(), tenant.hold());
    let (pasid, default) = (hold.pasid().get(), untagged.pasid().get());
    host.function
        .bind(tag(77), hold, process.binding(1, 77))
        .unwrap();
    host.function
        .bind(None, untagged, tenant.pass_through(1))
        .unwrap();
    let mut port = host.function.port();
    assert!(read(&mut port, tag(77), 0x5000).is_err());
    assert!(write(&mut port, tag(77), 0x6000, 1).is_err());
    assert!(read(&mut port, tag(77), 1 << 60).is_err());
    assert!(read(&mut port, None, MEMORY_BYTES).is_err());
    let alice = Some(tenant.id);
    let expected = [
        (alice, pasid, 0x71),
        (alice, pasid, 0x85),
        (alice, pasid, 0x80),
        (alice, default, 0x79),
    ];
    assert_eq!(host.noted(), expected);
}

#[test]
fn r79_a_copy_that_faults_is_one_event_of_the_side_that_was_refused() {
    let host = Audited::new();
    let tenant = host.tenant(1);
    let _claim = tenant.own(&host.function);
    let (from, to) = (tenant.process(), tenant.process());
    from.map(0x5000, 0x1000);
    let (source, target) = (tenant.hold(), tenant.hold());
    let refused = target.pasid().get();
    host.function
        .bind(tag(8), source, from.binding(1, 8))
        .unwrap();
    host.function
        .bind(tag(9), target, to.binding(1, 9))
        .unwrap();
    let mut port = host.function.port();
    let (from, to) = (Iova::new(0x5000), Iova::new(0x9000));
    let copied = port.copy(by(tag(8)), from, by(tag(9)), to, 64);
    assert_eq!(copied.unwrap_err().side, Side::Destination);
    assert_eq!(host.noted(), [(Some(tenant.id), refused, 0x71)]);
}

#[test]
fn r77_a_fault_on_a_shared_function_is_its_pasids_owners_bound_or_not() {
    let host = Audited::new();
    let (alice, bob) = (host.tenant(1), host.tenant(2));
    let _hers = host.function.claim(alice.id, Sharing::Mediated).unwrap();
    let _his = host.function.claim(bob.id, Sharing::Mediated).unwrap();
    let (bound, unbound) = (alice.hold(), bob.hold());
    let (hers, his) = (bound.pasid(), unbound.pasid());
    let process = alice.process();
    host.function
        .bind(shared_tag(hers), bound, process.binding(1, 77))
        .unwrap();
    let mut port = host.function.port();
    assert!(read(&mut port, shared_tag(hers), 0x5000).is_err());
    assert!(read(&mut port, shared_tag(his), 0x5000).is_err());
    // Freed, and the device works with it still.
    bob.set.free(his).unwrap();
    assert!(read(&mut port, shared_tag(his), 0x5000).is_err());
    drop(unbound);
    assert!(read(&mut port, shared_tag(his), 0x5000).is_err());
    // The parent's own requests.
    assert!(read(&mut port, None, 0x5000).is_err());
    let (a, b) = (Some(alice.id), Some(bob.id));
    let expected = [
        (a, hers.get(), 0x71),
        (b, his.get(), 0x59),
        (b, his.get(), 0x59),
        (None, his.get(), 0x59),
        (None, 0, 0x59),
    ];
    assert_eq!(host.noted(), expected);
}

#[test]
fn r79_a_function_that_nobody_has_blames_nobody() {
    let host = Audited::new();
    let tenant = host.tenant(1);
    let foreign = tenant.hold().pasid().get();
    let mut port = host.function.port();
    assert!(read(&mut port, tag(foreign), 0).is_err());
    let claim = tenant.own(&host.function);
    assert!(read(&mut port, tag(9), 0).is_err());
    drop(claim);
    assert!(read(&mut port, tag(9), 0).is_err());
    let expected = [(None, 0, 0x59), (Some(tenant.id), 9, 0x59), (None, 9, 0x59)];
    assert_eq!(host.noted(), expected);
}

#[test]
fn r79_fault_processing_disable_hides_a_fault_from_the_guest_and_not_from_the_host() {
    let host = Audited::new();
    let tenant = host.tenant(1);
    let _claim = tenant.own(&host.function);
    let binding = Binding {
        fault_disable: FaultProcessing::Disabled,
        ..tenant.process().binding(1, 1)
    };
    let hold = tenant.hold();
    let pasid = hold.pasid().get();
    host.function.bind(tag(1), hold, binding).unwrap();
    assert!(read(&mut host.function.port(), tag(1), 0).is_err());
    assert_eq!(tenant.sink.faults(), []);
    assert_eq!(host.noted(), [(Some(tenant.id), pasid, 0x71)]);
}

#[test]
fn r77_45h_and_46h_are_events_too() {
    let host = Audited::of_width(8);
    let tenant = host.tenant(1);
    let _claim = tenant.own(&host.function);
    let mut port = host.function.port();
    assert!(read(&mut port, tag(256), 0).is_err());
    host.function.set_pasid_enabled(PasidEnable::Off);
    assert!(read(&mut port, tag(3), 0).is_err());
    let noted: Vec<_> = host
        .noted()
        .iter()
        .map(|fault| (fault.1, fault.2))
        .collect();
    assert_eq!(noted, [(256, 0x46), (3, 0x45)]);
}

#[test]
fn r62_r77_a_page_request_is_no_fault_and_its_refusal_none_but_the_access_after_it_is() {
    let host = Audited::new();
    let tenant = host.tenant(1);
    let _claim = tenant.own(&host.function);
    let hold = tenant.hold();
    let pasid = hold.pasid().get();
    host.function
        .bind(tag(1), hold, tenant.process().binding(1, 1))
        .unwrap();
    let mut port = host.function.port();
    let at = Iova::new(0x5000);
    let asked = port.write(asking(tag(1)), at, &[1]);
    assert!(matches!(asked, Err(DmaError::NotPresent { .. })));
    port.request_page(by(tag(1)), at, Access::WRITE, Box::new(|_| ()))
        .unwrap();
    let group = tenant.sink.requests()[0].group;
    host.function
        .respond(tag(1), group, PageResponse::Invalid)
        .unwrap();
    assert_eq!(host.noted(), []);
    assert!(port.write(by(tag(1)), at, &[1]).is_err());
    assert_eq!(host.noted(), [(Some(tenant.id), pasid, 0x71)]);
    // Nothing is bound to 2: not even a request for a page can be made.
    let asked = port.request_page(by(tag(2)), at, Access::WRITE, Box::new(|_| ()));
    assert!(asked.is_err());
    assert_eq!(host.noted().len(), 2);
}

/// A sink that counts the events that it finds when it is told.
struct Auditor(Authority, AtomicU64);

impl Sink for Auditor {
    fn fault(&self, _: Fault) {
        let faults = self.0.events_since(Sequence::FIRST).events;
        let faults = faults.iter();
        let noted = faults.filter(|event| matches!(event.kind, EventKind::Faulted { .. }));
        self.1.store(noted.count() as u64, Ordering::SeqCst);
    }

    fn page_request(&self, _: PageRequest) -> Result<(), QueueFull> {
        Ok(())
    }
}

#[test]
fn r79_who_is_told_of_a_fault_finds_its_event() {
    let host = Audited::new();
    let tenant = host.tenant(1);
    let _claim = host.function.claim(tenant.id, Sharing::Exclusive).unwrap();
    let sink = Arc::new(Auditor(host.authority.clone(), AtomicU64::new(0)));
    let names = UnknownTags::AsGuestPasid;
    host.function
        .set_default_sink(Some(sink.clone()), OTHER_GUEST, names);
    assert!(read(&mut host.function.port(), tag(3), 0).is_err());
    assert_eq!(sink.1.load(Ordering::SeqCst), 1);
}

/// A listener whose own device strays.
struct Straying(Mutex<DmaPort>);

impl Listener for Straying {
    fn notify(&self, _: &Notification) {
        assert!(read(&mut self.0.lock().unwrap(), tag(3), 0).is_err());
    }
}

#[test]
fn r50_a_fault_waits_for_no_listener_and_may_happen_within_one() {
    let host = Audited::new();
    let tenant = host.tenant(1);
    let listener = Arc::new(Straying(Mutex::new(host.function.port())));
    let _subscription = host.authority.listen(Priority::Device, listener);
    tenant.set.alloc(PasidRange::ALL).unwrap();
    assert_eq!(host.noted(), [(None, 3, 0x59)]);
}
