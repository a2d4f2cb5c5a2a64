//! The driver against the host's models over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod host;

use host::Host;
use palisade_driver::{
    AllocatorKind, Copy, DriverError, FunctionAddress, MissingPage, SweepMode, SweepPlan, Tenant,
    WorkloadPlan, page_table::Rights,
};
use palisade_dsa::spec::Status;
use palisade_units::{Bdf, GuestPasid, HostPasid, Iova};
use palisade_vtd::{VcmdLayout, spec::virtual_command::Layout};

const MIB: u64 = 1 << 20;
const PARENT: Bdf = Bdf::new(0x6a, 1, 0);
const OTHER_PARENT: Bdf = Bdf::new(0x6f, 1, 0);
const DEVICE: Bdf = Bdf::new(0, 0x10, 0);
const OWN_DEVICE: Bdf = Bdf::new(0, 0x11, 0);
const SECRET_AT: Iova = Iova::new(0x5a5a_0000_0000);
const SECRET: &[u8; 48] = b"what alice knows and nobody else is to know of..";

fn small_plan() -> WorkloadPlan {
    WorkloadPlan {
        copy_bytes: 24 * MIB,
        buffer_bytes: 5 * MIB,
        outstanding: 8,
        lazy_pages: 32,
        seed: 11,
    }
}

fn three(tenant: &mut Tenant) -> [GuestPasid; 3] {
    std::array::from_fn(|_| tenant.start_process().unwrap())
}

#[test]
fn r6_a_bare_metal_driver_copies_by_the_addresses_of_three_processes() {
    let host = Host::new();
    let parent = host.parent(PARENT, 4);
    let alice = host.tenant(1, VcmdLayout::Current);
    let device = alice.mediated(&parent, DEVICE, 0..3);
    let mut tenant = Tenant::connect(&alice.unit_socket, &[device], 64 * MIB).unwrap();
    let processes = three(&mut tenant);
    let mut told = 0;
    let outcome = tenant
        .run_workload(DEVICE, processes, &small_plan(), &mut |bytes| {
            told = told.max(bytes)
        })
        .unwrap();
    assert!(outcome.copied_bytes >= 24 * MIB, "{outcome:?}");
    assert_eq!(told, 24 * MIB);
    assert!(outcome.page_requests >= 3 * 2 * 32, "{outcome:?}");
    tenant.finish().unwrap();
}

#[test]
fn r6_one_queue_serves_three_processes_in_turn() {
    let host = Host::new();
    let parent = host.parent(PARENT, 1);
    let alice = host.tenant(1, VcmdLayout::Off);
    let device = alice.mediated(&parent, DEVICE, 0..1);
    let mut tenant = Tenant::connect(&alice.unit_socket, &[device], 64 * MIB).unwrap();
    assert_eq!(tenant.allocator(), AllocatorKind::Guest);
    let processes = three(&mut tenant);
    let outcome = tenant
        .run_workload(DEVICE, processes, &small_plan(), &mut |_| {})
        .unwrap();
    assert!(outcome.copied_bytes >= 24 * MIB, "{outcome:?}");
    tenant.finish().unwrap();
}

#[test]
fn r9_the_guests_pasids_are_the_hosts_and_come_back() {
    for (vcmd, layout) in [
        (VcmdLayout::Current, Layout::Current),
        (VcmdLayout::Older, Layout::Older),
    ] {
        let host = Host::new();
        let parent = host.parent(PARENT, 1);
        let alice = host.tenant(1, vcmd);
        let device = alice.mediated(&parent, DEVICE, 0..1);
        let before = alice.set.owned();
        let mut tenant = Tenant::connect(&alice.unit_socket, &[device], 16 * MIB).unwrap();
        assert_eq!(tenant.allocator(), AllocatorKind::Host(layout));
        let processes = three(&mut tenant);
        let owned = alice.set.owned();
        for pasid in processes {
            assert!(
                owned.contains(&HostPasid::new(pasid.get()).unwrap()),
                "{pasid} of {owned:?}"
            );
        }
        tenant.end_process(processes[1]).unwrap();
        assert!(
            !alice
                .set
                .owned()
                .contains(&HostPasid::new(processes[1].get()).unwrap())
        );
        tenant.finish().unwrap();
        assert_eq!(alice.set.owned(), before);
    }
}

#[test]
fn r57_the_quota_ends_in_no_pasid() {
    let host = Host::new();
    let parent = host.parent(PARENT, 1);
    let alice = host.tenant(1, VcmdLayout::Current);
    let device = alice.mediated(&parent, DEVICE, 0..1);
    let mut tenant = Tenant::connect(&alice.unit_socket, &[device], 16 * MIB).unwrap();
    let mut taken = 0;
    let error = loop {
        match tenant.start_process() {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken <= 100, "more than the quota");
    };
    assert!(matches!(error, DriverError::NoPasid(_)), "{error}");
    assert_eq!(alice.set.outstanding(), alice.set.quota());
    tenant.finish().unwrap();
}

#[test]
fn r3_a_device_sees_what_the_process_sees_after_protect_and_unmap() {
    let host = Host::new();
    let parent = host.parent(PARENT, 1);
    let alice = host.tenant(1, VcmdLayout::Current);
    let device = alice.mediated(&parent, DEVICE, 0..1);
    let mut tenant = Tenant::connect(&alice.unit_socket, &[device], 16 * MIB).unwrap();
    let process = tenant.start_process().unwrap();
    let (from, to) = (Iova::new(0x4000_0000), Iova::new(0x4100_0000));
    tenant.plant(process, from, b"one").unwrap();
    tenant.plant(process, to, b"   ").unwrap();
    let copy = Copy {
        process,
        from,
        to,
        len_bytes: 3,
        missing: MissingPage::End,
    };
    let done = tenant.copy(DEVICE, copy).unwrap();
    assert_eq!(done.status, Status::SUCCESS, "{done:?}");
    let mut seen = [0; 3];
    tenant.peek(process, to, &mut seen).unwrap();
    assert_eq!(&seen, b"one");

    tenant
        .kernel_mut()
        .protect(process, to, 4096, Rights::ReadOnly)
        .unwrap();
    let refused = tenant.copy(DEVICE, copy).unwrap();
    assert_eq!(refused.status, Status::PAGE_FAULT.with_write());
    assert_eq!(refused.fault_address.page_base(), to);

    tenant.kernel_mut().unmap(process, from, 4096).unwrap();
    let refused = tenant.copy(DEVICE, copy).unwrap();
    assert_eq!(refused.status, Status::PAGE_FAULT);
    assert_eq!(refused.fault_address.page_base(), from);
    tenant.finish().unwrap();
}

#[test]
fn r62_a_page_that_no_process_has_ends_the_copy_and_hangs_nothing() {
    let host = Host::new();
    let parent = host.parent(PARENT, 1);
    let alice = host.tenant(1, VcmdLayout::Current);
    let device = alice.mediated(&parent, DEVICE, 0..1);
    let mut tenant = Tenant::connect(&alice.unit_socket, &[device], 16 * MIB).unwrap();
    let process = tenant.start_process().unwrap();
    let to = Iova::new(0x4100_0000);
    tenant.plant(process, to, b"mine").unwrap();
    let from = Iova::new(0x6000_0000_0000);
    let copy = Copy {
        process,
        from,
        to,
        len_bytes: 4,
        missing: MissingPage::Wait,
    };
    let done = tenant.copy(DEVICE, copy).unwrap();
    assert_eq!(done.status.code(), Status::PAGE_REQUEST_REFUSED, "{done:?}");
    let requests = tenant.kernel().requests();
    assert_eq!((requests.served, requests.refused), (0, 1));
    let mut seen = [0; 4];
    tenant.peek(process, to, &mut seen).unwrap();
    assert_eq!(&seen, b"mine");
    tenant.finish().unwrap();
}

/// alice with a secret at [`SECRET_AT`], on a parent that she shares, and bob beside her with an own device.
struct Neighbours {
    host: Host,
    alice: Tenant,
    alice_process: GuestPasid,
    bob: Tenant,
    bob_processes: [GuestPasid; 3],
    /// How many PASIDs were out before the tenants came.
    outstanding: u32,
    _parents: [host::Parent; 2],
}

fn neighbours(vcmd: VcmdLayout) -> Neighbours {
    let host = Host::new();
    let parents = [host.parent(PARENT, 2), host.parent(OTHER_PARENT, 8)];
    let alice_host = host.tenant(1, vcmd);
    let bob_host = host.tenant(2, vcmd);
    let connect = |tenant: &host::HostTenant, functions: &[FunctionAddress]| {
        Tenant::connect(&tenant.unit_socket, functions, 16 * MIB).unwrap()
    };
    let of_alice = [alice_host.mediated(&parents[0], DEVICE, 0..1)];
    let of_bob = [
        bob_host.mediated(&parents[0], DEVICE, 1..2),
        bob_host.exclusive(&parents[1], OWN_DEVICE),
    ];
    let outstanding = host.authority.outstanding();
    let mut alice = connect(&alice_host, &of_alice);
    let alice_process = alice.start_process().unwrap();
    alice.plant(alice_process, SECRET_AT, SECRET).unwrap();
    let mut bob = connect(&bob_host, &of_bob);
    let bob_processes = three(&mut bob);
    Neighbours {
        host,
        alice,
        alice_process,
        bob,
        bob_processes,
        outstanding,
        _parents: parents,
    }
}

fn sweep(mode: SweepMode) -> SweepPlan {
    // Beyond the largest number that is out, and not a multiple of any batch.
    SweepPlan {
        mode,
        pasids: 0..5003,
        targets: vec![SECRET_AT],
        secret: SECRET.to_vec(),
    }
}

#[test]
fn r11_r19_a_mediated_device_refuses_every_pasid_but_ones_own() {
    for vcmd in [VcmdLayout::Current, VcmdLayout::Off] {
        let mut all = neighbours(vcmd);
        let outcome = all
            .bob
            .sweep(DEVICE, &sweep(SweepMode::Mediated), &mut |_| {})
            .unwrap();
        assert_eq!(outcome.tried, 5003, "{outcome:?}");
        assert_eq!(outcome.reached_other, 0, "{outcome:?}");
        assert_eq!(outcome.own, 3, "{outcome:?}");
        assert_eq!(outcome.refused, 5000, "{outcome:?}");
        let mut secret = [0; SECRET.len()];
        all.alice
            .peek(all.alice_process, SECRET_AT, &mut secret)
            .unwrap();
        assert_eq!(&secret, SECRET);
    }
}

#[test]
fn r11_r16_every_wrong_pasid_of_an_own_function_faults_once() {
    for vcmd in [VcmdLayout::Current, VcmdLayout::Off] {
        let mut all = neighbours(vcmd);
        let outcome = all
            .bob
            .sweep(OWN_DEVICE, &sweep(SweepMode::Exclusive), &mut |_| {})
            .unwrap();
        assert_eq!(outcome.tried, 5003, "{outcome:?}");
        assert_eq!(outcome.reached_other, 0, "{outcome:?}");
        assert!(
            (3..=4).contains(&outcome.own),
            "PASID 0 may count as own: {outcome:?}"
        );
        assert_eq!(outcome.faulted + outcome.own, 5003, "{outcome:?}");
        let fault = outcome.first_faults.last().unwrap();
        assert_eq!((fault.bdf, fault.at), (OWN_DEVICE, SECRET_AT));
        assert!(
            all.bob.kernel().fault_events() > 0,
            "faults come with their event"
        );
    }
}

#[test]
fn r11_the_sweeper_goes_on_with_its_own_work_afterwards() {
    let mut all = neighbours(VcmdLayout::Current);
    all.bob
        .sweep(DEVICE, &sweep(SweepMode::Mediated), &mut |_| {})
        .unwrap();
    all.bob
        .sweep(OWN_DEVICE, &sweep(SweepMode::Exclusive), &mut |_| {})
        .unwrap();
    let plan = WorkloadPlan {
        copy_bytes: 4 * MIB,
        buffer_bytes: MIB,
        ..small_plan()
    };
    for device in [DEVICE, OWN_DEVICE] {
        all.bob
            .run_workload(device, all.bob_processes, &plan, &mut |_| {})
            .unwrap();
    }
    all.bob.finish().unwrap();
    all.alice.finish().unwrap();
    assert_eq!(all.host.authority.outstanding(), all.outstanding);
}
