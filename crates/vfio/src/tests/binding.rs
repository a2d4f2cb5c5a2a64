use palisade_ioasid::{EventKind, PasidRange, PasidState, Sequence};
use palisade_iommu::{
    Cached, FaultProcessing, FaultReason, FirstStage, Levels, PasidSupport, Sharing, Space,
};
use palisade_units::{Bdf, Gpa, Iova};

use super::world::*;
use crate::{GuestScope, SpaceKey, Terms};

const BUFFER: u64 = 0x7f00_0000_0000;

#[test]
fn r3_the_device_reads_what_the_process_sees_also_after_later_changes() {
    let (_host, alice, parent, _function) = alone(Sharing::Mediated);
    let n = alice.container.alloc_pasid(PasidRange::ALL).unwrap().get();
    alice.ram.store_u64(0x1000, 0xa1).unwrap();
    alice.ram.store_u64(0x2000, 0xa2).unwrap();
    let process = alice.process(&[(BUFFER, 0x1000)]);
    alice.bind(slot(4), pasid(n), process).unwrap();
    let hold = alice.container.translate(slot(4), guest(n)).unwrap();
    let (mut port, tag) = (parent.port(), holding(&hold));

    assert_eq!(read(&mut port, tag, BUFFER), Ok(0xa1));
    write(&mut port, tag, BUFFER, 0xb1).unwrap();
    assert_eq!(alice.ram.load_u64(0x1000), Ok(0xb1));

    alice.map(process, BUFFER + 0x1000, 0x2000);
    assert_eq!(read(&mut port, tag, BUFFER + 0x1000), Ok(0xa2));

    alice.unmap(process, BUFFER);
    let page = GuestScope::Pages {
        key: pasid(n),
        at: Iova::new(BUFFER),
        len_bytes: 0x1000,
    };
    alice.container.invalidate(slot(4), page, Cached::InUnit);
    let not_present = Err(FaultReason::FirstStageNotPresent);
    assert_eq!(read(&mut port, tag, BUFFER), not_present);
    alice.unmap(process, BUFFER + 0x1000);
    alice
        .container
        .invalidate(slot(4), GuestScope::All, Cached::InUnit);
    assert_eq!(read(&mut port, tag, BUFFER + 0x1000), not_present);
}

#[test]
fn r4_allocating_gives_no_access_and_programming_what_was_not_allocated_gives_none() {
    let host_side = Host::new();
    let alice = host_side.tenant(1);
    let (shared, own) = (host_side.parent(1), host_side.parent(2));
    let _mediated = alice.mediated(slot(4), &shared);
    let _exclusive = alice.exclusive(slot(5), &own);
    let n = alice.container.alloc_pasid(PasidRange::ALL).unwrap().get();
    let absent = Err(FaultReason::PasidEntryNotPresent);
    let hold = alice.container.translate(slot(4), guest(n)).unwrap();
    assert_eq!(read(&mut shared.port(), holding(&hold), 0x1000), absent);
    assert_eq!(read(&mut own.port(), raw(n), 0x1000), absent);

    assert_eq!(
        errno(alice.container.translate(slot(4), guest(n + 1))),
        ENOENT
    );
    assert_eq!(read(&mut own.port(), raw(n + 1), 0x1000), absent);
}

#[test]
fn r35_pasid_0_cannot_be_bound_and_a_place_without_a_function_neither() {
    let host_side = Host::new();
    let alice = host_side.tenant(1);
    let _function = alice.mediated(slot(4), &host_side.parent(1));
    let books = host_side.books();
    assert_eq!(
        errno(alice.bind(slot(4), pasid(0), Space::PassThrough)),
        EINVAL
    );
    assert_eq!(
        errno(alice.bind(slot(9), pasid(1), Space::PassThrough)),
        ENODEV
    );
    assert_eq!(errno(alice.container.unbind(slot(9), pasid(1))), ENODEV);
    assert_eq!(errno(alice.container.unbind(slot(4), pasid(1))), ENOENT);
    assert_eq!(errno(alice.container.default_hold(slot(9))), ENODEV);
    assert_eq!(errno(alice.container.translate(slot(9), guest(1))), ENODEV);
    assert_eq!(host_side.books(), books);
}

#[test]
fn r5_r35_a_bind_that_the_platform_refuses_leaves_no_pasid_behind() {
    let host_side = Host::new();
    let alice = host_side.tenant(1);
    let bdf = Bdf::new(0x6a, 9, 0);
    let plain = host_side
        .iommu
        .add_function(bdf, PasidSupport::None)
        .unwrap();
    let _plain = alice.exclusive(slot(4), &plain);
    let _capable = alice.mediated(slot(5), &host_side.parent(1));
    let books = host_side.books();
    assert_eq!(
        errno(alice.bind(slot(4), pasid(5), Space::PassThrough)),
        EOPNOTSUPP
    );
    let crooked = Space::FirstStage(FirstStage::new(Gpa::new(0x1008), Levels::Four));
    assert_eq!(errno(alice.bind(slot(5), pasid(5), crooked)), EINVAL);
    assert_eq!(host_side.books(), books);
}

#[test]
fn r39_unbind_removes_access_and_the_pasid_stays_allocated_and_can_be_bound_again() {
    let (_host, alice, parent, _function) = alone(Sharing::Mediated);
    let n = alice.container.alloc_pasid(PasidRange::ALL).unwrap();
    let hold = alice.container.translate(slot(4), guest(n.get())).unwrap();
    let (mut port, tag) = (parent.port(), holding(&hold));
    for _ in 0..2 {
        alice
            .bind(slot(4), pasid(n.get()), Space::PassThrough)
            .unwrap();
        assert!(read(&mut port, tag, 0x1000).is_ok());
        alice.container.unbind(slot(4), pasid(n.get())).unwrap();
        let absent = Err(FaultReason::PasidEntryNotPresent);
        assert_eq!(read(&mut port, tag, 0x1000), absent);
        assert_eq!(
            errno(alice.container.unbind(slot(4), pasid(n.get()))),
            ENOENT
        );
        assert_eq!(alice.container.set().state_of(n), Ok(PasidState::Active));
    }
    drop(hold);
    assert_eq!(alice.container.set().state_of(n), Ok(PasidState::Idle));
}

#[test]
fn r39_two_mediated_devices_of_one_parent_count_and_the_last_unbind_tears_down() {
    let (_host, alice, parent, _one) = alone(Sharing::Mediated);
    let _two = alice.mediated(slot(5), &parent);
    let space = alice.process(&[(BUFFER, 0x1000)]);
    alice.bind(slot(4), pasid(8), space).unwrap();
    alice.bind(slot(5), pasid(8), space).unwrap();
    let hold = alice.container.translate(slot(4), guest(8)).unwrap();
    assert_eq!(
        alice
            .container
            .translate(slot(5), guest(8))
            .unwrap()
            .pasid(),
        hold.pasid()
    );
    let (mut port, tag) = (parent.port(), holding(&hold));
    alice.container.unbind(slot(4), pasid(8)).unwrap();
    assert!(read(&mut port, tag, BUFFER).is_ok());
    alice.container.unbind(slot(5), pasid(8)).unwrap();
    assert_eq!(
        read(&mut port, tag, BUFFER),
        Err(FaultReason::PasidEntryNotPresent)
    );
}

#[test]
fn r57_a_number_of_the_guests_own_gets_a_host_pasid_that_goes_with_the_last_unbind() {
    let host_side = Host::new();
    let alice = host_side.tenant(1);
    let _one = alice.mediated(slot(4), &host_side.parent(1));
    let _two = alice.exclusive(slot(5), &host_side.parent(2));
    let books = host_side.books();
    let outstanding = alice.container.set().outstanding();
    alice.bind(slot(4), pasid(777), Space::PassThrough).unwrap();
    alice.bind(slot(5), pasid(777), Space::PassThrough).unwrap();
    let given = alice
        .container
        .translate(slot(4), guest(777))
        .unwrap()
        .pasid();
    assert_ne!(given.get(), 777);
    assert_eq!(alice.container.set().outstanding(), outstanding + 1);
    alice.container.unbind(slot(4), pasid(777)).unwrap();
    assert_eq!(
        alice
            .container
            .translate(slot(5), guest(777))
            .unwrap()
            .pasid(),
        given
    );
    alice.container.unbind(slot(5), pasid(777)).unwrap();
    assert_eq!(
        errno(alice.container.translate(slot(5), guest(777))),
        ENOENT
    );
    assert_eq!(host_side.books(), books);
}

#[test]
fn r35_binding_the_same_again_changes_nothing_and_another_space_replaces_the_first() {
    let (host_side, alice, parent, _function) = alone(Sharing::Exclusive);
    let mut port = parent.port();
    alice.ram.store_u64(0x1000, 1).unwrap();
    alice.ram.store_u64(0x2000, 2).unwrap();
    let first = alice.process(&[(BUFFER, 0x1000)]);
    let second = alice.process(&[(BUFFER, 0x2000)]);
    alice.bind(slot(4), pasid(3), first).unwrap();
    let books = host_side.books();
    alice.bind(slot(4), pasid(3), first).unwrap();
    assert_eq!(host_side.books(), books);
    assert_eq!(read(&mut port, raw(3), BUFFER), Ok(1));
    alice.bind(slot(4), pasid(3), second).unwrap();
    assert_eq!(read(&mut port, raw(3), BUFFER), Ok(2));
    assert_eq!(
        alice.container.bound(slot(4)),
        [
            (SpaceKey::WithoutPasid, Space::PassThrough),
            (pasid(3), second)
        ]
    );
}

#[test]
fn r12_a_second_space_for_a_pasid_in_use_on_the_same_parent_is_refused_without_effect() {
    let (host_side, alice, parent, _one) = alone(Sharing::Mediated);
    let _two = alice.mediated(slot(5), &parent);
    alice.bind(slot(4), pasid(3), Space::PassThrough).unwrap();
    let books = host_side.books();
    let other = alice.process(&[]);
    assert_eq!(errno(alice.bind(slot(5), pasid(3), other)), EBUSY);
    assert_eq!(host_side.books(), books);
    assert_eq!(alice.container.bound(slot(4)).len(), 2);
    assert_eq!(alice.container.bound(slot(5)).len(), 1);
}

#[test]
fn r1_requests_without_a_pasid_pass_through_at_first_and_then_as_they_are_bound() {
    let (_host, alice, parent, _function) = alone(Sharing::Exclusive);
    let mut port = parent.port();
    alice.ram.store_u64(0x3000, 33).unwrap();
    assert_eq!(read(&mut port, None, 0x3000), Ok(33));
    alice
        .container
        .unbind(slot(4), SpaceKey::WithoutPasid)
        .unwrap();
    assert!(read(&mut port, None, 0x3000).is_err());
    let space = alice.process(&[(BUFFER, 0x3000)]);
    alice.bind(slot(4), SpaceKey::WithoutPasid, space).unwrap();
    assert_eq!(read(&mut port, None, BUFFER), Ok(33));
    assert!(read(&mut port, None, 0x3000).is_err());
}

#[test]
fn r66_faults_come_to_the_tenants_unit_in_the_guests_names() {
    let host_side = Host::new();
    let alice = host_side.tenant(1);
    let (shared, own) = (host_side.parent(1), host_side.parent(2));
    let _mediated = alice.mediated(slot(4), &shared);
    let _exclusive = alice.exclusive(slot(5), &own);
    let space = alice.process(&[]);
    alice.bind(slot(4), pasid(777), space).unwrap();
    let hold = alice.container.translate(slot(4), guest(777)).unwrap();
    let default = alice.container.default_hold(slot(4)).unwrap();
    read(&mut shared.port(), holding(&hold), BUFFER).unwrap_err();
    read(&mut shared.port(), holding(&default), RAM_BYTES).unwrap_err();
    read(&mut own.port(), raw(12), BUFFER).unwrap_err();
    let told: Vec<_> = alice.faults().iter().map(|f| (f.bdf, f.pasid)).collect();
    assert_eq!(
        told,
        [
            (slot(4), Some(guest(777))),
            (slot(4), None),
            (slot(5), Some(guest(12)))
        ]
    );
}

#[test]
fn r60_fault_processing_can_be_turned_off_for_a_binding() {
    let (_host, alice, parent, _function) = alone(Sharing::Exclusive);
    let space = alice.process(&[]);
    let container = &alice.container;
    let terms = Terms {
        fault_processing: FaultProcessing::Disabled,
        ..Terms::new(space)
    };
    container.bind(slot(4), pasid(1), terms).unwrap();
    read(&mut parent.port(), raw(1), BUFFER).unwrap_err();
    assert_eq!(alice.faults(), []);
    let terms = Terms::new(space);
    container.bind(slot(4), pasid(1), terms).unwrap();
    read(&mut parent.port(), raw(1), BUFFER).unwrap_err();
    assert_eq!(alice.faults().len(), 1);
}

#[test]
fn a_tenant_without_a_unit_loses_its_faults_and_nothing_else() {
    let host_side = Host::new();
    let mut alice = host_side.tenant(1);
    let parent = host_side.parent(1);
    let _function = alice.attach(slot(4), &parent, Sharing::Exclusive).unwrap();
    alice.unit = std::sync::Arc::default();
    assert!(read(&mut parent.port(), raw(1), BUFFER).is_err());
    assert!(read(&mut parent.port(), None, 0).is_ok());
}

#[test]
fn r79_the_authoritys_ledger_and_events_tell_what_is_bound_and_where() {
    let host_side = Host::new();
    let alice = host_side.tenant(1);
    let parent = host_side.parent(1);
    let (_one, _two) = (
        alice.mediated(slot(4), &parent),
        alice.mediated(slot(5), &parent),
    );
    let n = alice.container.alloc_pasid(PasidRange::ALL).unwrap();
    let since = host_side.authority.events_since(Sequence::FIRST).next;
    let space = alice.process(&[(BUFFER, 0x1000)]);
    let bindings = || {
        let ledger = host_side.authority.ledger();
        let entry = ledger.iter().find(|entry| entry.pasid == n).unwrap();
        let places = entry.bindings.iter();
        places.map(|place| place.entries).sum::<u32>()
    };
    alice.bind(slot(4), pasid(n.get()), space).unwrap();
    alice.bind(slot(5), pasid(n.get()), space).unwrap();
    assert_eq!(bindings(), 2);
    let unbind = |at| alice.container.unbind(at, pasid(n.get())).unwrap();
    unbind(slot(4));
    assert_eq!(bindings(), 1);
    unbind(slot(5));
    assert_eq!(bindings(), 0);
    let (pasid, place) = (n, parent.bdf());
    let bound = EventKind::Bound { pasid, place };
    let unbound = EventKind::Unbound { pasid, place };
    let events = host_side.authority.events_since(since).events;
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [bound, bound, unbound, unbound]);
}
