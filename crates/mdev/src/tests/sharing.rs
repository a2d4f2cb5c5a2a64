use palisade_dsa::spec::{
    Command, CommandError, Descriptor, Portal, QueueState, Status, portal_offset, table,
};
use palisade_iommu::FaultReason;
use palisade_pci::{AccessError, Bar};
use palisade_units::Bdf;
use uuid::Uuid;
use zerocopy::IntoBytes;

use super::rig::{Driver, Host, PARENT, QUEUES, SLOT, dedicated, run};
use crate::SliceType::{DedicatedQueue, SharedQueue};
use crate::{MdevError, QueueUse};

const RECORD: u64 = 0x8_0000;
const OTHER_SLOT: Bdf = Bdf::new(0, 0x11, 0);
const EBUSY: i32 = 16;

fn errno<T>(result: Result<T, MdevError>) -> i32 {
    result.err().unwrap().errno()
}

#[test]
fn r17_entries_of_all_slices_live_in_the_parents_one_table() {
    let host = Host::new();
    let (alice, _alices, _) = host.with_slice(1, DedicatedQueue);
    let (bob, _bobs, _) = host.with_slice(2, SharedQueue);
    alice.process(5);
    bob.process(5);
    let expected = [(&alice, alice.host_of(5)), (&bob, bob.host_of(5))];
    let audit = host.iommu.audit();
    for (tenant, pasid) in expected {
        let entry = audit
            .iter()
            .find(|entry| entry.host_pasid == pasid)
            .unwrap();
        assert_eq!((entry.bdf, entry.tag), (PARENT, Some(pasid.into())));
        assert_eq!(entry.tenant, tenant.id());
    }
    assert_eq!(audit.len(), 4, "each has its default space besides");
}

#[test]
fn r20_one_device_is_not_given_to_two_tenants_without_mediation() {
    let host = Host::new();
    let (alice, bob) = (host.tenant(1), host.tenant(2));
    let exclusive = |tenant: &super::rig::Tenant| {
        host.parent
            .exclusive(&tenant.container, SLOT, tenant.guest.clone())
    };
    let whole = exclusive(&alice).unwrap();
    let error = exclusive(&bob).err().unwrap();
    assert_eq!(error.errno(), EBUSY);
    assert_eq!(
        error.to_string(),
        "dsa0 is held by tenant 1 exclusively: it must be released first"
    );
    let uuid = Uuid::from_u128(1);
    assert_eq!(
        errno(host.registry.create(uuid, &host.parent, DedicatedQueue)),
        EBUSY
    );
    whole.release();
    // In the other order.
    let slice = host
        .registry
        .create(uuid, &host.parent, DedicatedQueue)
        .unwrap();
    assert_eq!(errno(exclusive(&bob)), EBUSY, "it is cut into slices");
    let assigned = slice
        .assign(&alice.container, SLOT, alice.guest.clone())
        .unwrap();
    let error = exclusive(&bob).err().unwrap();
    assert!(error.to_string().contains(&uuid.to_string()), "{error}");
    assert_eq!(error.errno(), EBUSY);
    drop(assigned);
}

#[test]
fn r20_a_device_that_is_set_aside_is_held_whether_it_is_used_or_not() {
    let host = Host::new();
    let (alice, bob) = (host.tenant(1), host.tenant(2));
    let uuid = Uuid::from_u128(1);
    let whole = host.parent.claim(alice.id()).unwrap();
    assert_eq!(host.parent.exclusive_holder(), Some(alice.id()));
    let held = MdevError::HeldExclusively {
        parent: "dsa0".into(),
        holder: alice.id(),
    };
    let refusals = [
        host.parent.claim(bob.id()).err(),
        host.parent.claim(alice.id()).err(),
        host.registry.create(uuid, &host.parent, SharedQueue).err(),
        whole.assign(&bob.container, SLOT, bob.guest.clone()).err(),
    ];
    assert_eq!(refusals, [(); 4].map(|()| Some(held.clone())));
    for _ in 0..2 {
        let assigned = whole.assign(&alice.container, SLOT, alice.guest.clone());
        let assigned = assigned.unwrap();
        let twice = whole.assign(&alice.container, OTHER_SLOT, alice.guest.clone());
        assert_eq!(twice.err().unwrap(), held);
        drop(assigned);
        assert_eq!(host.iommu.audit(), []);
        assert_eq!(host.parent.exclusive_holder(), Some(alice.id()));
    }
    drop(whole);
    assert_eq!(host.parent.exclusive_holder(), None);
    let slice = host.registry.create(uuid, &host.parent, SharedQueue);
    assert!(slice.is_ok());
    // In the other order.
    assert_eq!(errno(host.parent.claim(alice.id())), EBUSY);
}

#[test]
fn r22_a_device_changes_its_way_of_sharing_only_when_idle() {
    let host = Host::new();
    let (alice, bob) = (host.tenant(1), host.tenant(2));
    let uuid = Uuid::from_u128(1);
    for _ in 0..3 {
        let whole = host
            .parent
            .exclusive(&alice.container, SLOT, alice.guest.clone())
            .unwrap();
        let driver = Driver::bring_up(&whole);
        alice.process(4).map(RECORD, RECORD, 1);
        assert_eq!(driver.enable(dedicated(4)), CommandError::SUCCESS);
        driver.submit(&Descriptor::no_op().with_record(RECORD));
        run(&mut host.parent.engine());
        assert_eq!(alice.record(RECORD).status(), Status::SUCCESS);
        assert_eq!(
            errno(host.registry.create(uuid, &host.parent, SharedQueue)),
            EBUSY
        );
        drop(whole);
        assert_eq!(host.iommu.audit(), [], "no entries in between");

        let slice = host
            .registry
            .create(uuid, &host.parent, SharedQueue)
            .unwrap();
        let assigned = slice
            .assign(&bob.container, SLOT, bob.guest.clone())
            .unwrap();
        bob.process(4).map(RECORD, RECORD, 1);
        let driver = Driver::bring_up(&assigned);
        assert_eq!(
            driver.enable(dedicated(0).with_dedicated(false)),
            CommandError::SUCCESS
        );
        driver.submit(&Descriptor::no_op().with_record(RECORD).with_pasid(4));
        run(&mut host.parent.engine());
        assert_eq!(bob.record(RECORD).status(), Status::SUCCESS);
        assert_eq!(errno(host.registry.remove(uuid)), EBUSY, "a tenant has it");
        drop(assigned);
        assert_eq!(host.iommu.audit(), []);
        drop(slice);
        host.registry.remove(uuid).unwrap();
    }
}

#[test]
fn r16_r21_an_exclusive_owner_programs_directly_and_wrong_pasids_fault() {
    let host = Host::new();
    let alice = host.tenant(1);
    let whole = host
        .parent
        .exclusive(&alice.container, SLOT, alice.guest.clone())
        .unwrap();
    let driver = Driver::bring_up(&whole);
    alice.process(4).map(RECORD, RECORD, 1);
    let mut engine = host.parent.engine();
    for pasid in (0..2000).chain(0xf_ff00..0x10_0000) {
        assert_eq!(driver.enable(dedicated(pasid)), CommandError::SUCCESS);
        driver.submit(&Descriptor::no_op().with_record(RECORD));
        run(&mut engine);
        driver.disable();
        let own = pasid == 4;
        assert_eq!(
            alice.record(RECORD).status() == Status::SUCCESS,
            own,
            "{pasid}"
        );
        let faults = alice.unit.take_faults();
        assert_eq!(faults.len(), usize::from(!own), "{pasid}");
        for fault in faults {
            assert_eq!(fault.reason, FaultReason::PasidEntryNotPresent);
            assert_eq!((fault.bdf, fault.pasid.unwrap().get()), (SLOT, pasid));
        }
        driver.error();
    }
    let log = host.parent.forwarded();
    assert_eq!(
        (log.forwarded(), log.refused()),
        (0, 0),
        "no mediation on this path"
    );
}

#[test]
fn r68_a_dedicated_queue_has_one_owner() {
    let host = Host::new();
    let slices: Vec<_> = (0..8).map(|n| host.slice(n, DedicatedQueue)).collect();
    let queues: Vec<_> = slices.iter().map(|slice| slice.info().queue).collect();
    assert_eq!(queues, [0, 1, 2, 3, 4, 5, 6, 7]);
    let uuid = Uuid::from_u128(9);
    let none_left = host
        .registry
        .create(uuid, &host.parent, DedicatedQueue)
        .err()
        .unwrap();
    assert_eq!(
        none_left,
        MdevError::NoFreeQueue {
            parent: "dsa0".into(),
            queues: 8
        }
    );
    let error = host
        .registry
        .create(Uuid::from_u128(3), &host.parent, SharedQueue);
    assert_eq!(
        error.err().unwrap(),
        MdevError::Exists {
            uuid: Uuid::from_u128(3)
        }
    );
    let (alice, bob) = (host.tenant(1), host.tenant(2));
    let taken = slices[3]
        .assign(&alice.container, SLOT, alice.guest.clone())
        .unwrap();
    let error = slices[3]
        .assign(&bob.container, SLOT, bob.guest.clone())
        .err()
        .unwrap();
    assert_eq!(
        error,
        MdevError::InUse {
            uuid: Uuid::from_u128(3),
            holder: alice.id()
        }
    );
    assert_eq!(host.registry.list()[3].holder, Some(alice.id()));
    drop(taken);
    slices[3]
        .assign(&bob.container, SLOT, bob.guest.clone())
        .unwrap()
        .release();
    // Removed, the queue is another's, and the slice nobody's.
    host.registry.remove(Uuid::from_u128(3)).unwrap();
    let gone = slices[3]
        .assign(&bob.container, SLOT, bob.guest.clone())
        .err()
        .unwrap();
    assert_eq!(
        gone,
        MdevError::NotFound {
            uuid: Uuid::from_u128(3)
        }
    );
    assert_eq!(host.registry.get(Uuid::from_u128(3)).err(), Some(gone));
    drop(slices);
    assert_eq!(host.parent.queues()[3], QueueUse::Free);
    assert_eq!(host.slice(10, DedicatedQueue).info().queue, 3);
}

#[test]
fn r68_shared_queues_are_shared_and_used_as_such() {
    let host = Host::new();
    let slices: Vec<_> = (0..20).map(|n| host.slice(n, SharedQueue)).collect();
    let shares: Vec<_> = host
        .parent
        .queues()
        .iter()
        .map(|queue| match queue {
            QueueUse::Shared(slices) => slices.len(),
            QueueUse::Free => 0,
            QueueUse::Dedicated(_) => panic!("nobody asked for that"),
        })
        .collect();
    assert_eq!(shares, [8, 8, 4, 0, 0, 0, 0, 0]);
    let alice = host.tenant(1);
    let one = slices[0]
        .assign(&alice.container, SLOT, alice.guest.clone())
        .unwrap();
    let other = slices[1]
        .assign(&alice.container, OTHER_SLOT, alice.guest.clone())
        .unwrap();
    let driver = Driver::bring_up(&one);
    let own = alice.alloc().get();
    assert_eq!(driver.enable(dedicated(own)), CommandError::QUEUE_MODE);
    assert_eq!(
        driver.enable(dedicated(own).with_dedicated(false)),
        CommandError::SUCCESS
    );
    // One driver's commands leave the other's work on the same queue alone.
    let second = Driver::bring_up(&other);
    assert_eq!(
        second.enable(dedicated(0).with_dedicated(false)),
        CommandError::SUCCESS
    );
    alice.process_at(OTHER_SLOT, own).map(RECORD, RECORD, 1);
    second.submit(&Descriptor::no_op().with_pasid(own).with_record(RECORD));
    for code in [
        Command::ABORT_ALL,
        Command::RESET_QUEUES,
        Command::RESET_DEVICE,
    ] {
        assert_eq!(driver.command(code, 1), CommandError::SUCCESS);
    }
    run(&mut host.parent.engine());
    assert_eq!(alice.record(RECORD).status(), Status::SUCCESS);
}

/// A neighbour on the same queue neither sees how much a tenant has there, nor has less room for it.
#[test]
fn r67_r68_each_slice_of_a_shared_queue_has_its_own_occupancy() {
    let host = Host::new();
    let shared = dedicated(0).with_dedicated(false);
    let [(alice, _a, one), (bob, _b, other)] = [1, 2].map(|n| host.with_slice(n, SharedQueue));
    for (tenant, driver) in [(&alice, &one), (&bob, &other)] {
        tenant.process(5).map(RECORD, RECORD, 1);
        assert_eq!(driver.enable(shared), CommandError::SUCCESS);
    }
    let occupancy = |driver: &Driver| {
        let word = driver.read(QUEUES + table::WQCFG_STATE);
        QueueState::from_bits(word).occupancy()
    };
    let no_op = Descriptor::no_op().with_pasid(5).with_record(RECORD);
    (0..64).for_each(|_| one.submit(&no_op));
    let limited = portal_offset(0, Portal::Limited);
    let again = AccessError::Retry { bar: Bar::Bar2 };
    let more = |driver: &Driver| {
        let function = &driver.function;
        function.bar_write(Bar::Bar2, limited, no_op.as_bytes())
    };
    assert_eq!(more(&one), Err(again));
    assert_eq!([&one, &other].map(occupancy), [64, 0]);
    assert_eq!(more(&other), Ok(()));
    assert_eq!([&one, &other].map(occupancy), [64, 1]);
    run(&mut host.parent.engine());
    assert_eq!([&one, &other].map(occupancy), [0, 0]);
}
