use palisade_dsa::spec::{
    Command, CommandError, Descriptor, Flags, InterruptPermission, Status, register,
};
use palisade_iommu::PageResponse;
use palisade_pci::{AccessError, Bar};
use palisade_units::Bdf;
use palisade_vfio::SpaceKey;

use super::rig::{Driver, Host, PERMISSIONS, SLOT, dedicated, guest, run};
use crate::SliceType::{DedicatedQueue, SharedQueue};

const RECORD: u64 = 0x8_0000;
const FROM: u64 = 0x10_0000;
const TO: u64 = 0x20_0000;

fn blocking() -> Descriptor {
    let copy = Descriptor::memory_move(FROM, TO, 8).with_record(RECORD);
    copy.with_flags(Flags::BLOCK_ON_FAULT)
}

/// Work of all kinds: queued, parked, with an interrupt permission held.
fn busy(host: &Host, tenant: &super::rig::Tenant, driver: &Driver) {
    let process = tenant.process(5);
    process.map(FROM, FROM, 1);
    process.map(RECORD, RECORD, 1);
    let permission = InterruptPermission::new()
        .with_pasid_enable(true)
        .with_pasid(5);
    driver.write(PERMISSIONS + 8, permission.into_bits());
    if driver.enable(dedicated(5)) != CommandError::SUCCESS {
        assert_eq!(
            driver.enable(dedicated(0).with_dedicated(false)),
            CommandError::SUCCESS
        );
    }
    driver.submit(&blocking().with_pasid(5));
    run(&mut host.parent.engine());
    driver.submit(&Descriptor::no_op().with_pasid(5).with_interrupt(1));
}

#[test]
fn r72_a_slice_that_is_given_back_leaves_nothing_behind() {
    for kind in [DedicatedQueue, SharedQueue] {
        let host = Host::new();
        let tenant = host.tenant(1);
        let slice = host.slice(1, kind);
        for _ in 0..3 {
            let assigned = slice
                .assign(&tenant.container, SLOT, tenant.guest.clone())
                .unwrap();
            let driver = Driver::bring_up(&assigned);
            busy(&host, &tenant, &driver);
            assert_eq!(host.parent.function().outstanding_page_requests(), 1);
            assigned.release();
            assert_eq!(host.iommu.audit(), []);
            assert_eq!(host.parent.function().outstanding_page_requests(), 0);
            assert_eq!(host.authority.ledger(), [], "no hold is left");
            run(&mut host.parent.engine());
            let read = driver.function.bar_read(Bar::Bar0, 0, &mut [0; 4]);
            assert_eq!(read, Err(AccessError::NotReady { bar: Bar::Bar0 }));
            tenant.unit.take_requests();
        }
        assert_eq!(tenant.record(RECORD).status(), Status::NONE);
    }
}

#[test]
fn r72_a_whole_device_that_is_given_back_leaves_nothing_behind() {
    let host = Host::new();
    let tenant = host.tenant(1);
    for _ in 0..3 {
        let whole = host
            .parent
            .exclusive(&tenant.container, SLOT, tenant.guest.clone())
            .unwrap();
        let driver = Driver::bring_up(&whole);
        busy(&host, &tenant, &driver);
        drop(whole);
        assert_eq!(
            (host.iommu.audit(), host.authority.ledger()),
            (vec![], vec![])
        );
        assert_eq!(host.parent.exclusive_holder(), None);
        tenant.unit.take_requests();
    }
}

#[test]
fn r65_a_reset_drops_what_waits_for_a_page_and_gives_its_pasid_back() {
    let host = Host::new();
    let (tenant, _assigned, driver) = host.with_slice(1, DedicatedQueue);
    busy(&host, &tenant, &driver);
    driver.function.reset();
    tenant
        .container
        .unbind(SLOT, SpaceKey::Pasid(guest(5)))
        .unwrap();
    let ledger = host.authority.ledger();
    assert_eq!(ledger.len(), 1, "the default space alone: {ledger:?}");
    run(&mut host.parent.engine());
    assert_eq!(tenant.record(RECORD).status(), Status::NONE);
}

#[test]
fn r65_a_tenant_that_dies_with_page_requests_open_frees_everything() {
    let host = Host::new();
    let (alice, _alices, alices) = host.with_slice(1, DedicatedQueue);
    let (bob, bobs, driver) = host.with_slice(2, DedicatedQueue);
    let before = host.authority.outstanding();
    busy(&host, &bob, &driver);
    alice.process(5).map(RECORD, RECORD, 1);
    assert_eq!(alices.enable(dedicated(5)), CommandError::SUCCESS);
    // His process is gone: nobody answers.
    drop(bobs);
    bob.container.close();
    alices.submit(&Descriptor::no_op().with_record(RECORD));
    run(&mut host.parent.engine());
    assert_eq!(
        alice.record(RECORD).status(),
        Status::SUCCESS,
        "the other goes on"
    );
    assert_eq!(
        host.authority.outstanding(),
        before,
        "one of his less, one of hers more"
    );
    assert!(
        host.authority
            .ledger()
            .iter()
            .all(|entry| entry.tenant == alice.id())
    );
}

#[test]
fn r72_disabling_waits_for_a_page_beside_the_register_write() {
    let host = Host::new();
    let (tenant, _assigned, driver) = host.with_slice(1, DedicatedQueue);
    busy(&host, &tenant, &driver);
    let mut engine = host.parent.engine();
    run(&mut engine);
    assert!(driver.command_now(Command::DISABLE_QUEUES, 1).active());
    let held = tenant.host_of(5);
    assert_eq!(tenant.answer(PageResponse::Invalid), 1);
    run(&mut engine);
    assert_eq!(driver.read(register::CMDSTS), 0);
    assert_eq!(
        tenant.record(RECORD).status(),
        Status::PAGE_REQUEST_REFUSED.with_write()
    );
    // The queue and the permission held the PASID besides what any bound one has.
    tenant.process(6);
    let references = |pasid| {
        let ledger = host.authority.ledger();
        ledger
            .into_iter()
            .find(|entry| entry.pasid == pasid)
            .unwrap()
            .references
    };
    let bound = references(tenant.host_of(6));
    assert_eq!(references(held), bound + 1);
    driver.write(PERMISSIONS + 8, 0);
    assert_eq!(references(held), bound);
}

#[test]
fn r39_two_slices_with_one_pasid_count_their_users() {
    let host = Host::new();
    let (tenant, _assigned, driver) = host.with_slice(1, DedicatedQueue);
    let second = Bdf::new(0, 0x11, 0);
    let other = host.slice(2, DedicatedQueue);
    let other = other
        .assign(&tenant.container, second, tenant.guest.clone())
        .unwrap();
    let other_driver = Driver::bring_up(&other);
    tenant.process(5).map(RECORD, RECORD, 1);
    let bound = tenant.container.bound(SLOT);
    let (key, space) = bound
        .into_iter()
        .find(|(key, _)| *key != SpaceKey::WithoutPasid)
        .unwrap();
    tenant
        .container
        .bind(second, key, palisade_vfio::Terms::new(space))
        .unwrap();
    let mut engine = host.parent.engine();
    let mut works = |driver: &Driver| {
        driver.submit(&Descriptor::no_op().with_record(RECORD));
        run(&mut engine);
        driver.error();
        tenant.record(RECORD).status() == Status::SUCCESS
    };
    for driver in [&driver, &other_driver] {
        assert_eq!(driver.enable(dedicated(5)), CommandError::SUCCESS);
        assert!(works(driver));
    }
    tenant.container.unbind(SLOT, key).unwrap();
    assert!(works(&other_driver), "the entry has another user");
    tenant.container.unbind(second, key).unwrap();
    assert!(!works(&other_driver));
}
