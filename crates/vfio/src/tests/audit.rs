//! What the host's audit says of a tenant's faults and binds.

use palisade_ioasid::{EventKind, PasidRange, Sequence};
use palisade_iommu::{FaultProcessing, FirstStage, Levels, Sharing, Space};
use palisade_units::{Gpa, TenantId};

use super::world::*;
use crate::Terms;

const BUFFER: u64 = 0x7f00_0000_0000;

/// Whose each fault was, by which PASID of the host, where (the parent's device number), and its code.
fn noted(host: &Host) -> Vec<(Option<TenantId>, u32, u8, u8)> {
    let events = host.authority.events_since(Sequence::FIRST).events;
    let faults = events.iter().filter_map(|event| match event.kind {
        EventKind::Faulted {
            pasid,
            place,
            reason,
        } => Some((event.tenant, pasid.get(), place.device(), reason.get())),
        _ => None,
    });
    faults.collect()
}

fn whose(number: u32) -> Option<TenantId> {
    Some(TenantId::new(number))
}

#[test]
fn r77_r79_faults_of_slices_are_events_of_their_tenants_bound_or_not() {
    let (host_side, [alice, bob], parent, _slices) = neighbours(slot(4), slot(9));
    let process = alice.process(&[(BUFFER, 0x1000)]);
    alice.bind(slot(4), pasid(777), process).unwrap();
    let hers = alice.container.translate(slot(4), guest(777)).unwrap();
    let his = bob.container.alloc_pasid(PasidRange::ALL).unwrap();
    let mut port = parent.port();
    read(&mut port, holding(&hers), BUFFER).unwrap();
    read(&mut port, holding(&hers), BUFFER + 0x1000).unwrap_err();
    read(&mut port, Some(his.into()), BUFFER).unwrap_err();
    let hers = hers.pasid().get();
    let expected = [(whose(1), hers, 1, 0x71), (whose(2), his.get(), 1, 0x59)];
    assert_eq!(noted(&host_side), expected);
}

#[test]
fn r16_r77_an_exclusive_owner_that_sweeps_faults_once_for_each_pasid_that_is_not_its_own() {
    let (host_side, alice, function, _function) = alone(Sharing::Exclusive);
    alice.bind(slot(4), pasid(777), Space::PassThrough).unwrap();
    let mut port = function.port();
    for number in 770..780 {
        let reached = read(&mut port, raw(number), 0x1000).is_ok();
        assert_eq!(reached, number == 777);
    }
    let wrong = (770..780).filter(|number| *number != 777);
    let expected: Vec<_> = wrong.map(|number| (whose(1), number, 1, 0x59)).collect();
    assert_eq!(noted(&host_side), expected);
}

#[test]
fn r79_a_guest_that_wants_no_records_cannot_hide_its_faults_from_the_host() {
    let (host_side, alice, function, _function) = alone(Sharing::Exclusive);
    let empty = alice.process(&[]);
    let terms = Terms {
        fault_processing: FaultProcessing::Disabled,
        ..Terms::new(empty)
    };
    alice.container.bind(slot(4), pasid(777), terms).unwrap();
    let hold = alice.container.translate(slot(4), guest(777)).unwrap();
    read(&mut function.port(), raw(777), BUFFER).unwrap_err();
    assert_eq!(alice.faults(), []);
    let expected = [(whose(1), hold.pasid().get(), 1, 0x71)];
    assert_eq!(noted(&host_side), expected);
}

#[test]
fn r79_a_bind_that_the_platform_refuses_is_told_as_refused_and_never_as_bound() {
    let host_side = Host::new();
    let alice = host_side.tenant(1);
    let parent = host_side.parent(1);
    let (_one, _two) = (
        alice.mediated(slot(4), &parent),
        alice.mediated(slot(5), &parent),
    );
    let n = alice.container.alloc_pasid(PasidRange::ALL).unwrap();
    let key = pasid(n.get());
    alice.bind(slot(4), key, Space::PassThrough).unwrap();
    let before = host_side.authority.events_since(Sequence::FIRST).next;
    // Another space, by another function of the same parent; and one whose table is not aligned.
    let other = alice.process(&[]);
    assert_eq!(errno(alice.bind(slot(5), key, other)), EBUSY);
    let crooked = FirstStage::new(Gpa::new(0x123), Levels::Four);
    let crooked = Space::FirstStage(crooked);
    assert_eq!(errno(alice.bind(slot(4), key, crooked)), EINVAL);
    let events = host_side.authority.events_since(before).events;
    let told = events.iter().filter(|event| {
        let pasid = match event.kind {
            EventKind::Bound { pasid, .. } | EventKind::Unbound { pasid, .. } => pasid,
            _ => return false,
        };
        pasid == n
    });
    assert_eq!(told.count(), 0, "{events:?}");
    let refused = events.iter().filter_map(|event| match event.kind {
        EventKind::BindRefused {
            pasid,
            place,
            errno,
        } => Some((event.tenant, pasid, place.device(), errno.get())),
        _ => None,
    });
    let expected = [(whose(1), n, 1, EBUSY), (whose(1), n, 1, EINVAL)];
    assert_eq!(refused.collect::<Vec<_>>(), expected);
    // What was bound is so still.
    assert_eq!(alice.container.bound(slot(4))[1], (key, Space::PassThrough));
}
