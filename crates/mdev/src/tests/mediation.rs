use std::collections::BTreeSet;

use palisade_dsa::EntryPoint;
use palisade_dsa::spec::{
    Command, CommandError, Descriptor, InterruptPermission, QueueMode, Status,
};
use palisade_iommu::Space;
use palisade_units::PASID_COUNT;
use palisade_vfio::{SpaceKey, Terms};

use super::rig::{Driver, Host, PERMISSIONS, SLOT, dedicated, run};
use crate::SliceType::{DedicatedQueue, SharedQueue};

const RECORD: u64 = 0x8_0000;
const FROM: u64 = 0x10_0000;
const TO: u64 = 0x20_0000;

/// The host PASIDs in a parent's log, each of which must be its tenant's.
fn forwarded(host: &Host) -> BTreeSet<u32> {
    let log = host.parent.forwarded().last();
    for entry in &log {
        assert_eq!(
            host.authority.owner_of(entry.host),
            Some(entry.tenant),
            "{entry:?}"
        );
    }
    log.iter().map(|entry| entry.host.get()).collect()
}

#[test]
fn r11_a_driver_that_programs_every_pasid_reaches_its_own_alone() {
    let host = Host::new();
    let (alice, _alices, _) = host.with_slice(1, DedicatedQueue);
    let (bob, _bobs, driver) = host.with_slice(2, DedicatedQueue);
    // Alice's numbers, those that are hers by the host's naming among them, are foreign to bob.
    (0..100).for_each(|_| _ = alice.alloc());
    alice.process(7);
    let own = bob.alloc();
    let mut accepted = Vec::new();
    for pasid in 0..PASID_COUNT {
        match driver.enable(dedicated(pasid)) {
            CommandError::SUCCESS => {
                accepted.push(pasid);
                driver.disable();
            }
            error => assert_eq!(error, CommandError::PASID_INVALID),
        }
    }
    assert_eq!(accepted, [own.get()]);
    assert_eq!(forwarded(&host), BTreeSet::from([own.get()]));
    assert_eq!(
        host.parent.forwarded().refused(),
        u64::from(PASID_COUNT) - 1
    );
}

#[test]
fn r19_a_pasid_is_forwarded_as_the_hosts_and_only_to_its_own_tenant() {
    let host = Host::new();
    let (alice, _alices, alices) = host.with_slice(1, DedicatedQueue);
    let (bob, _bobs, bobs) = host.with_slice(2, DedicatedQueue);
    // Both guests chose the same number.
    for (tenant, driver, text) in [(&alice, &alices, b"alice"), (&bob, &bobs, b"bob's")] {
        let process = tenant.process(9);
        process.map(RECORD, RECORD, 1);
        process.map(FROM, FROM, 1);
        process.map(TO, TO, 1);
        tenant.memory.write(FROM, text).unwrap();
        assert_eq!(driver.enable(dedicated(9)), CommandError::SUCCESS);
    }
    let hosts = [alice.host_of(9), bob.host_of(9)];
    assert_ne!(hosts[0], hosts[1]);
    assert_eq!(
        forwarded(&host),
        BTreeSet::from(hosts.map(palisade_units::HostPasid::get))
    );
    let copy = Descriptor::memory_move(FROM, TO, 5).with_record(RECORD);
    alices.submit(&copy);
    bobs.submit(&copy);
    run(&mut host.parent.engine());
    for (tenant, text) in [(&alice, b"alice"), (&bob, b"bob's")] {
        assert_eq!(tenant.record(RECORD).status(), Status::SUCCESS);
        assert_eq!(tenant.bytes(TO, 5), text);
    }
}

#[test]
fn r4_a_pasid_that_is_allocated_but_not_bound_gives_no_access() {
    let host = Host::new();
    let (bob, _slice, driver) = host.with_slice(2, DedicatedQueue);
    let pasid = bob.alloc();
    assert_eq!(driver.enable(dedicated(pasid.get())), CommandError::SUCCESS);
    driver.submit(&Descriptor::no_op().with_record(RECORD));
    run(&mut host.parent.engine());
    assert_eq!(bob.record(RECORD).status(), Status::NONE);
    let error = driver.error().unwrap();
    assert_eq!(
        (error.code, error.pasid),
        (Status::RECORD_FAULT.into(), pasid.get())
    );
}

/// What the guest is told of a PASID at each entry point.
fn at_each_entry_point(
    host: &Host,
    dedicated_queue: &Driver,
    shared_queue: &Driver,
    pasid: u32,
) -> [bool; 5] {
    let queue = dedicated_queue.enable(dedicated(pasid)) == CommandError::SUCCESS;
    if queue {
        dedicated_queue.disable();
    }
    let permission = InterruptPermission::new()
        .with_pasid_enable(true)
        .with_pasid(pasid);
    shared_queue.write(PERMISSIONS + 8, permission.into_bits());
    let permitted = shared_queue.read(PERMISSIONS + 8) == permission.into_bits();
    assert_eq!(shared_queue.error().is_none(), permitted);
    shared_queue.submit(&Descriptor::no_op().with_pasid(pasid));
    let submitted = shared_queue.error().is_none();
    run(&mut host.parent.engine());
    let by_pasid = [Command::DRAIN_PASID, Command::ABORT_PASID].map(|code| {
        let error = shared_queue.command(code, pasid);
        assert!(matches!(
            error,
            CommandError::SUCCESS | CommandError::PASID_INVALID
        ));
        error == CommandError::SUCCESS
    });
    [queue, permitted, submitted, by_pasid[0], by_pasid[1]]
}

#[test]
fn r70_each_point_where_a_pasid_enters_is_mediated() {
    let host = Host::new();
    let (alice, _alices, _) = host.with_slice(1, DedicatedQueue);
    let (bob, _bobs, driver) = host.with_slice(2, DedicatedQueue);
    let slice = host.slice(22, SharedQueue);
    let second = palisade_units::Bdf::new(0, 0x11, 0);
    let assigned = slice
        .assign(&bob.container, second, bob.guest.clone())
        .unwrap();
    let shared = Driver::bring_up(&assigned);
    assert_eq!(
        shared.enable(dedicated(0).with_dedicated(false)),
        CommandError::SUCCESS
    );
    let foreign = alice.alloc();
    let own = bob.alloc();
    bob.process_at(SLOT, 300);
    for pasid in [0, foreign.get(), 301, 0xf_ffff] {
        let before = host.parent.forwarded().forwarded();
        assert_eq!(
            at_each_entry_point(&host, &driver, &shared, pasid),
            [false; 5],
            "{pasid}"
        );
        assert_eq!(
            host.parent.forwarded().forwarded(),
            before,
            "nothing was forwarded"
        );
    }
    for pasid in [own.get(), 300] {
        let before = host.parent.forwarded().last().len();
        assert_eq!(
            at_each_entry_point(&host, &driver, &shared, pasid),
            [true; 5],
            "{pasid}"
        );
        let log = host.parent.forwarded().last().split_off(before);
        let points: Vec<_> = log.iter().map(|entry| entry.at).collect();
        let expected = [
            EntryPoint::QueueConfig,
            EntryPoint::InterruptPermission,
            EntryPoint::Descriptor,
            EntryPoint::CommandOperand,
            EntryPoint::CommandOperand,
        ];
        assert_eq!(points, expected);
    }
    forwarded(&host);
}

#[test]
fn r71_with_pasids_off_a_slice_uses_its_own_default_space() {
    let host = Host::new();
    let (alice, _alices, _) = host.with_slice(1, DedicatedQueue);
    let (bob, _bobs, driver) = host.with_slice(2, DedicatedQueue);
    alice.memory.write(FROM, b"secret").unwrap();
    bob.memory.write(FROM, b"bob's!").unwrap();
    let off = dedicated(0).with_pasid_enable(false);
    assert_eq!(driver.enable(off), CommandError::SUCCESS);
    let default = bob.container.default_hold(SLOT).unwrap().pasid();
    assert_eq!(forwarded(&host), BTreeSet::from([default.get()]));
    driver.submit(&Descriptor::memory_move(FROM, TO, 6).with_record(RECORD));
    run(&mut host.parent.engine());
    assert_eq!(bob.record(RECORD).status(), Status::SUCCESS);
    assert_eq!(bob.bytes(TO, 6), b"bob's!");
    // Turned to nothing by the guest's unit, the space is gone: the parent's own is not used instead.
    bob.container.unbind(SLOT, SpaceKey::WithoutPasid).unwrap();
    driver.submit(&Descriptor::memory_move(FROM, TO + 8, 6).with_record(RECORD));
    run(&mut host.parent.engine());
    assert_eq!(bob.record(RECORD).status(), Status::NONE);
    let space = Space::PassThrough;
    let key = SpaceKey::WithoutPasid;
    bob.container.bind(SLOT, key, Terms::new(space)).unwrap();
    driver.submit(&Descriptor::no_op().with_record(RECORD));
    run(&mut host.parent.engine());
    assert_eq!(bob.record(RECORD).status(), Status::SUCCESS);
    assert!(
        host.iommu.audit().iter().all(|entry| entry.tag.is_some()),
        "no request without one"
    );
}

#[test]
fn r5_a_slice_whose_capability_is_off_takes_no_pasid() {
    let host = Host::new();
    let (bob, _slice, driver) = host.with_slice(2, DedicatedQueue);
    let own = bob.alloc().get();
    driver.set_pasid_capability(0);
    assert_eq!(driver.enable(dedicated(own)), CommandError::PASID_ENABLE);
    driver.set_pasid_capability(1);
    assert_eq!(driver.enable(dedicated(own)), CommandError::SUCCESS);
}

#[test]
fn r57_a_pasid_that_was_freed_is_refused() {
    let host = Host::new();
    let (bob, _slice, driver) = host.with_slice(2, DedicatedQueue);
    let own = bob.alloc();
    assert_eq!(driver.enable(dedicated(own.get())), CommandError::SUCCESS);
    // While the queue holds it, the number is not given out again.
    bob.container.free_pasid(own).unwrap();
    assert_ne!(bob.alloc(), own);
    driver.disable();
    assert_eq!(
        driver.enable(dedicated(own.get())),
        CommandError::PASID_INVALID
    );
    assert_eq!(bob.alloc(), own);
}

#[test]
fn r18_sweeping_all_registers_and_portals_with_a_foreign_pasid_forwards_nothing() {
    let host = Host::new();
    let (alice, _alices, _) = host.with_slice(1, DedicatedQueue);
    let (_bob, _bobs, driver) = host.with_slice(2, DedicatedQueue);
    let foreign = alice.alloc().get();
    let mode = QueueMode::from_bits(0x1000_0003)
        .with_priority(1)
        .with_pasid(foreign);
    let commands = 1..=14;
    let words = [foreign, foreign << 12 | 8, mode.into_bits(), u32::MAX];
    let all_commands = commands.map(|code| code << 20 | foreign);
    for value in words.into_iter().chain(all_commands) {
        for offset in (0..0x4000).step_by(4) {
            driver.write(offset, value);
        }
        // Reset, so that the next value meets a device that can be configured.
        driver.write(0xa0, 5 << 20);
    }
    let portals = driver.function.bar_len_bytes(palisade_pci::Bar::Bar2);
    let descriptor = Descriptor::memory_move(FROM, TO, 8).with_pasid(foreign);
    let bytes = zerocopy::IntoBytes::as_bytes(&descriptor);
    for at in (0..portals).step_by(64) {
        driver
            .function
            .bar_write(palisade_pci::Bar::Bar2, at, bytes)
            .unwrap();
    }
    run(&mut host.parent.engine());
    let of_bob = host.parent.forwarded().last();
    assert!(
        of_bob.iter().all(|entry| entry.host.get() != foreign),
        "{of_bob:?}"
    );
    assert_ne!(
        host.parent.forwarded().refused(),
        0,
        "the sweep came to where a PASID enters"
    );
}
