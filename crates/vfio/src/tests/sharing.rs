use palisade_ioasid::PasidRange;
use palisade_iommu::{FaultReason, Sharing, Space};

use super::world::*;

const SECRET: u64 = 0x5ec7_e75e_c7e7;
const BUFFER: u64 = 0x7f00_0000_0000;

#[test]
fn r20_one_function_for_two_tenants_is_refused_unless_both_are_mediated() {
    let host_side = Host::new();
    let (alice, bob) = (host_side.tenant(1), host_side.tenant(2));
    let parent = host_side.parent(1);
    let books = host_side.books();
    for (first, second) in [
        (Sharing::Exclusive, Sharing::Exclusive),
        (Sharing::Exclusive, Sharing::Mediated),
        (Sharing::Mediated, Sharing::Exclusive),
    ] {
        let held = alice.attach(slot(4), &parent, first).unwrap();
        let with_her = host_side.books();
        assert_eq!(errno(bob.attach(slot(4), &parent, second)), EBUSY);
        assert_eq!(host_side.books(), with_her);
        drop(held);
        drop(bob.attach(slot(4), &parent, second).unwrap());
    }
    let _hers = alice.mediated(slot(4), &parent);
    let _his = bob.mediated(slot(4), &parent);
    assert_eq!(
        errno(alice.attach(slot(4), &parent, Sharing::Mediated)),
        EEXIST
    );
    drop((_hers, _his));
    assert_eq!(host_side.books(), books);
}

#[test]
fn r17_the_parents_one_table_holds_the_entries_of_both_tenants() {
    let (host_side, [alice, bob], parent, _slices) = neighbours(slot(4), slot(4));
    alice.ram.store_u64(0x1000, 0xa).unwrap();
    bob.ram.store_u64(0x1000, 0xb).unwrap();
    let mut port = parent.port();
    for (tenant, value) in [(&alice, 0xa), (&bob, 0xb)] {
        // The same guest PASID and the same addresses in both guests.
        let space = tenant.process(&[(BUFFER, 0x1000)]);
        tenant.bind(slot(4), pasid(5), space).unwrap();
        let hold = tenant.container.translate(slot(4), guest(5)).unwrap();
        assert_eq!(read(&mut port, holding(&hold), BUFFER), Ok(value));
    }
    let audit = host_side.iommu.audit();
    assert_eq!(audit.len(), 4, "two defaults and two of the guests");
    for entry in audit {
        assert_eq!(entry.bdf, parent.bdf());
        assert_eq!(entry.tag, Some(entry.host_pasid.into()));
        assert_eq!(
            host_side.authority.owner_of(entry.host_pasid),
            Some(entry.tenant)
        );
    }
}

#[test]
fn r19_translation_refuses_every_number_that_is_not_the_tenants() {
    let (_host, [alice, bob], _parent, _slices) = neighbours(slot(4), slot(4));
    let hers = alice.container.alloc_pasid(PasidRange::ALL).unwrap();
    alice
        .bind(slot(4), pasid(hers.get()), Space::PassThrough)
        .unwrap();
    let his = bob.container.alloc_pasid(PasidRange::ALL).unwrap();
    for number in 0..1 << 20 {
        match bob.container.translate(slot(4), guest(number)) {
            Ok(hold) => assert_eq!((number, hold.pasid()), (his.get(), his)),
            Err(error) => assert_eq!(error.errno(), ENOENT),
        }
    }
}

#[test]
fn r16_an_exclusive_owner_that_programs_any_pasid_reaches_only_its_own() {
    let host_side = Host::new();
    let (alice, bob) = (host_side.tenant(1), host_side.tenant(2));
    let (hers, his) = (host_side.parent(1), host_side.parent(2));
    let (_a, _b) = (
        alice.exclusive(slot(4), &hers),
        bob.exclusive(slot(4), &his),
    );
    alice.ram.store_u64(0x1000, SECRET).unwrap();
    let space = alice.process(&[(BUFFER, 0x1000)]);
    let n = alice.container.alloc_pasid(PasidRange::ALL).unwrap().get();
    alice.bind(slot(4), pasid(n), space).unwrap();
    assert_eq!(read(&mut hers.port(), raw(n), BUFFER), Ok(SECRET));
    bob.bind(slot(4), pasid(900), Space::PassThrough).unwrap();
    let mut port = his.port();
    for number in 0..1000 {
        for address in [BUFFER, 0x1000] {
            let seen = read(&mut port, raw(number), address);
            match (number, address) {
                (900, 0x1000) => assert_eq!(seen, Ok(0)),
                (900, _) => assert!(seen.is_err()),
                _ => assert_eq!(seen, Err(FaultReason::PasidEntryNotPresent)),
            }
        }
    }
    assert_eq!(bob.faults().len(), 1999);
    assert_eq!(alice.faults(), []);
}

#[test]
fn r14_a_bind_on_one_function_leaves_the_other_faulting() {
    let host_side = Host::new();
    let alice = host_side.tenant(1);
    let (one, two) = (host_side.parent(1), host_side.parent(2));
    let (_a, _b) = (alice.mediated(slot(4), &one), alice.mediated(slot(5), &two));
    alice.bind(slot(4), pasid(5), Space::PassThrough).unwrap();
    let hold = alice.container.translate(slot(5), guest(5)).unwrap();
    assert!(read(&mut one.port(), holding(&hold), 0x1000).is_ok());
    let absent = Err(FaultReason::PasidEntryNotPresent);
    assert_eq!(read(&mut two.port(), holding(&hold), 0x1000), absent);
}

#[test]
fn r71_each_mediated_device_has_a_default_address_space_of_its_own() {
    let (_host, [alice, bob], parent, _slices) = neighbours(slot(4), slot(4));
    alice.ram.store_u64(0x1000, SECRET).unwrap();
    let hers = alice.container.default_hold(slot(4)).unwrap();
    let his = bob.container.default_hold(slot(4)).unwrap();
    assert_ne!(hers.pasid(), his.pasid());
    assert_eq!(
        (hers.tenant(), his.tenant()),
        (alice.container.set().tenant(), bob.container.set().tenant())
    );
    assert_eq!(read(&mut parent.port(), holding(&hers), 0x1000), Ok(SECRET));
    assert_eq!(read(&mut parent.port(), holding(&his), 0x1000), Ok(0));
    assert!(
        read(&mut parent.port(), None, 0x1000).is_err(),
        "the parent itself has none"
    );
}
