use std::sync::mpsc;

use palisade_ioasid::PasidRange;
use palisade_iommu::{FaultReason, OnMiss, PageResponse, Requester, Sharing, Space};
use palisade_units::{Access, Gpa, Iova};

use super::world::*;
use crate::SpaceKey;

const BUFFER: u64 = 0x7f00_0000_0000;

#[test]
fn r33_close_gives_everything_back_and_the_container_serves_the_next_client() {
    let host_side = Host::new();
    let alice = host_side.tenant(1);
    let (shared, own) = (host_side.parent(1), host_side.parent(2));
    let _mediated = alice.mediated(slot(4), &shared);
    let _exclusive = alice.exclusive(slot(5), &own);
    let books = host_side.books();
    for _ in 0..2 {
        let n = alice.container.alloc_pasid(PasidRange::ALL).unwrap().get();
        alice.container.alloc_pasid(PasidRange::ALL).unwrap();
        let space = alice.process(&[(BUFFER, 0x1000)]);
        for at in [slot(4), slot(5)] {
            alice.bind(at, pasid(n), space).unwrap();
            alice.bind(at, pasid(500), space).unwrap();
        }
        alice.bind(slot(4), SpaceKey::WithoutPasid, space).unwrap();
        alice
            .container
            .unbind(slot(5), SpaceKey::WithoutPasid)
            .unwrap();
        assert!(read(&mut own.port(), raw(500), BUFFER).is_ok());
        alice.container.close();
        assert_eq!(host_side.books(), books);
        assert!(read(&mut own.port(), raw(500), BUFFER).is_err());
        assert!(read(&mut own.port(), None, 0x1000).is_ok());
    }
    alice.container.close();
    assert_eq!(host_side.books(), books);
}

#[test]
fn r33_a_tenant_that_goes_away_leaves_the_ledger_as_it_was() {
    let host_side = Host::new();
    let bob = host_side.tenant(2);
    let parent = host_side.parent(1);
    let _his = bob.mediated(slot(4), &parent);
    let books = host_side.books();
    let alice = host_side.tenant(1);
    let attachment = alice.mediated(slot(4), &parent);
    alice.container.alloc_pasid(PasidRange::ALL).unwrap();
    alice.bind(slot(4), pasid(9), Space::PassThrough).unwrap();
    drop(alice);
    drop(attachment);
    assert_eq!(host_side.books(), books);
}

#[test]
fn r43_detaching_unbinds_all_and_gives_the_function_back() {
    let host_side = Host::new();
    let (alice, bob) = (host_side.tenant(1), host_side.tenant(2));
    let parent = host_side.parent(1);
    let attachment = alice.exclusive(slot(4), &parent);
    let n = alice.container.alloc_pasid(PasidRange::ALL).unwrap();
    alice
        .bind(slot(4), pasid(n.get()), Space::PassThrough)
        .unwrap();
    alice.bind(slot(4), pasid(50), Space::PassThrough).unwrap();
    let mut port = parent.port();
    attachment.detach();
    attachment.detach();
    assert_eq!(host_side.iommu.audit(), []);
    assert_eq!(alice.container.guest_bdfs(), []);
    assert_eq!(
        alice.container.set().owned(),
        [n],
        "what the guest allocated stays"
    );
    for tag in [raw(n.get()), raw(50), None] {
        assert!(read(&mut port, tag, 0x1000).is_err());
    }
    assert_eq!(
        alice.faults(),
        [],
        "no fault of the next owner's comes here"
    );
    let _his = bob.attach(slot(7), &parent, Sharing::Mediated).unwrap();
    drop(attachment);
    assert_eq!(host_side.iommu.audit().len(), 1);
}

#[test]
fn r43_an_attachment_that_was_detached_has_no_power_over_the_next_one_in_its_place() {
    let (host_side, alice, parent, first) = alone(Sharing::Mediated);
    first.detach();
    let _second = alice.mediated(slot(4), &parent);
    let books = host_side.books();
    drop(first);
    assert_eq!(host_side.books(), books);
}

#[test]
fn r43_where_one_of_two_devices_leaves_the_other_goes_on_in_its_own_memory() {
    let (_host, alice, parent, first) = alone(Sharing::Mediated);
    let _second = alice.mediated(slot(5), &parent);
    let space = alice.process(&[(BUFFER, 0x1000)]);
    alice.ram.store_u64(0x1000, 7).unwrap();
    alice.bind(slot(4), pasid(8), space).unwrap();
    alice.bind(slot(5), pasid(8), space).unwrap();
    let hold = alice.container.translate(slot(5), guest(8)).unwrap();
    first.unmap_all();
    drop(first);
    assert_eq!(read(&mut parent.port(), holding(&hold), BUFFER), Ok(7));
}

#[test]
fn r44_memory_that_was_removed_is_out_of_reach_when_the_removal_is_answered() {
    let host_side = Host::new();
    for sharing in [Sharing::Mediated, Sharing::Exclusive] {
        let alice = host_side.tenant(if sharing == Sharing::Mediated { 1 } else { 2 });
        let parent = host_side.parent(if sharing == Sharing::Mediated { 1 } else { 2 });
        let attachment = alice.attach(slot(4), &parent, sharing).unwrap();
        let space = alice.process(&[(BUFFER, 0x1000)]);
        alice.bind(slot(4), pasid(8), space).unwrap();
        let hold = alice.container.translate(slot(4), guest(8)).unwrap();
        let tag = match sharing {
            Sharing::Mediated => holding(&hold),
            Sharing::Exclusive => raw(8),
        };
        let mut port = parent.port();
        assert!(read(&mut port, tag, BUFFER).is_ok());
        assert!(attachment.unmap(Gpa::new(0), 0x1000).is_err());
        assert!(read(&mut port, tag, BUFFER).is_ok());
        attachment.unmap(Gpa::new(0), RAM_BYTES).unwrap();
        assert!(read(&mut port, tag, BUFFER).is_err());
    }
}

fn asking(hold: &palisade_ioasid::Hold) -> Requester {
    Requester {
        on_miss: OnMiss::Ask,
        ..Requester::new(holding(hold))
    }
}

#[test]
fn r65_r63_unbinding_answers_open_page_requests_and_a_later_response_finds_none() {
    let (_host, alice, parent, _function) = alone(Sharing::Mediated);
    let space = alice.process(&[]);
    let container = &alice.container;
    alice.bind(slot(4), pasid(8), space).unwrap();
    let hold = container.translate(slot(4), guest(8)).unwrap();
    let port = parent.port();
    let (answered, answers) = mpsc::channel();
    let ask = |at: u64| {
        let answered = answered.clone();
        let waiter = Box::new(move |response| answered.send(response).unwrap());
        port.request_page(asking(&hold), Iova::new(at), Access::READ, waiter)
            .unwrap();
        *alice.unit.requests.lock().unwrap().last().unwrap()
    };

    let request = ask(BUFFER);
    assert_eq!((request.bdf, request.pasid), (slot(4), Some(guest(8))));
    let respond = |key, group| container.respond(slot(4), key, group, PageResponse::Success);
    assert_eq!(errno(respond(pasid(9), request.group)), ENOENT);
    assert_eq!(
        errno(respond(SpaceKey::WithoutPasid, request.group)),
        ENOENT
    );
    respond(pasid(8), request.group).unwrap();
    assert_eq!(answers.try_recv(), Ok(PageResponse::Success));
    assert_eq!(errno(respond(pasid(8), request.group)), ENOENT);

    let request = ask(BUFFER);
    container.unbind(slot(4), pasid(8)).unwrap();
    assert_eq!(answers.try_recv(), Ok(PageResponse::Invalid));
    assert_eq!(errno(respond(pasid(8), request.group)), ENOENT);
}

#[test]
fn r52_no_late_access_and_no_late_response_reaches_the_next_owner_of_a_pasid() {
    let (_host, [alice, bob], parent, _slices) = neighbours(slot(4), slot(4));
    let n = alice.container.alloc_pasid(PasidRange::ALL).unwrap();
    let space = alice.process(&[(BUFFER, 0x1000)]);
    alice.bind(slot(4), pasid(n.get()), space).unwrap();
    let hold = alice.container.translate(slot(4), guest(n.get())).unwrap();
    let mut port = parent.port();
    assert!(read(&mut port, holding(&hold), BUFFER).is_ok());
    port.request_page(asking(&hold), Iova::new(0), Access::READ, Box::new(|_| ()))
        .unwrap();
    let group = alice.unit.requests.lock().unwrap()[0].group;
    drop(hold);
    alice.container.free_pasid(n).unwrap();

    assert_eq!(bob.container.alloc_pasid(PasidRange::only(n.get())), Ok(n));
    let his_space = bob.process(&[]);
    bob.bind(slot(4), pasid(n.get()), his_space).unwrap();
    let his = bob.container.translate(slot(4), guest(n.get())).unwrap();
    assert_eq!(
        read(&mut port, holding(&his), BUFFER),
        Err(FaultReason::FirstStageNotPresent)
    );
    let (answered, answers) = mpsc::channel();
    let waiter = Box::new(move |response| {
        let _ = answered.send(response);
    });
    port.request_page(asking(&his), Iova::new(0), Access::READ, waiter)
        .unwrap();
    let late = alice
        .container
        .respond(slot(4), pasid(n.get()), group, PageResponse::Failure);
    assert_eq!(errno(late), ENOENT);
    assert!(answers.try_recv().is_err());
}

#[test]
fn r51_the_four_lives_of_a_pasid_end_clean() {
    let (host_side, alice, parent, _function) = alone(Sharing::Mediated);
    let books = host_side.books();
    let container = &alice.container;
    let bind = |n| alice.bind(slot(4), pasid(n), Space::PassThrough).unwrap();
    let unbind = |n| container.unbind(slot(4), pasid(n)).unwrap();
    let access = |n| {
        let hold = container.translate(slot(4), guest(n)).unwrap();
        assert!(read(&mut parent.port(), holding(&hold), 0x1000).is_ok());
    };
    let lives: [&[&dyn Fn(u32)]; 4] = [&[], &[&bind, &unbind], &[&bind], &[&bind, &access]];
    for life in lives {
        let n = container.alloc_pasid(PasidRange::ALL).unwrap();
        for step in life {
            step(n.get());
        }
        container.free_pasid(n).unwrap();
        assert_eq!(host_side.books(), books);
    }
}
