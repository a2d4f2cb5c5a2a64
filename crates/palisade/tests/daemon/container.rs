//! A VMM that brings an IOMMU of its own: requests over the container socket, devices over theirs.

use std::{
    fs,
    io::{IoSlice, Write},
    mem::MaybeUninit,
    net::{TcpListener, TcpStream},
    os::{
        fd::AsFd,
        unix::{fs::PermissionsExt, net::UnixStream},
    },
    path::Path,
    time::Duration,
};

use palisade_container::{Client, ClientError, IommufdClient, Process};
use palisade_driver::{AddressSpace, Guest, Link, page_table::Rights};
use palisade_dsa::spec::{
    Command, Descriptor, Portal, QueueConfig, QueueLimits, QueueMode, Status, portal_offset,
    register,
};
use palisade_host::control::LedgerLine;
use palisade_ioasid::PasidRange;
use palisade_pci::Bar;
use palisade_units::{GuestPasid, Iova, PageSize};
use palisade_vfio::{Abi, Nesting};
use palisade_vfio_user::{
    Errno, PasidHandler, Region, RequestNumber,
    wire::pasid::{PasidCapability, RequestAbi, Tag},
};
use rustix::net::{
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt::set_socket_linger,
};
use zerocopy::IntoBytes;

use crate::host::{CONFIG, Daemon, FIRST, copy_of_a_page, wait_until};

const MIB: u64 = 1 << 20;
const NAME: u32 = 700;
/// `docs/container.md`: the proposed /dev/ioasid's allocation.
const IOASID_ALLOCATE: u32 = 0x6966;
const QUEUES: u64 = 0x800;
const GROUPS: u64 = 0x400;

/// The usual host, where alice's VMM has an IOMMU of its own. `more` is the rest of its socket's line.
pub(crate) fn start(more: &str) -> Daemon {
    let unit = "unit = { socket = \"alice-unit.sock\" }";
    assert!(CONFIG.contains(unit));
    let container = format!("container = {{ socket = \"alice-container.sock\"{more} }}");
    let config = CONFIG.replacen(unit, &container, 1);
    Daemon::start_in(tempfile::tempdir().unwrap(), &config)
}

fn connect(daemon: &Daemon) -> Result<Client, ClientError> {
    let mut client = Client::connect(&daemon.socket("alice-container"), Abi::V7)?;
    client.set_nesting(Nesting::On)?;
    Ok(client)
}

/// How many PASIDs alice has.
fn held(daemon: &Daemon) -> usize {
    let ledger = daemon.ledger();
    let alice = ledger.tenants.iter().find(|t| t.name == "alice").unwrap();
    alice.pasids.len()
}

/// Enables a slice whose queue works for a PASID, as a guest's driver does.
fn enable(link: &mut Link, pasid: u32) {
    // Memory and bus master; then PASIDs, in the capability that a walk leads to.
    link.write(Region::Config, 4, &6_u16.to_le_bytes()).unwrap();
    let mut at = 0x100;
    while at != 0 {
        let header = link.read_u32(Region::Config, at).unwrap();
        if header & 0xffff == 0x1b {
            let on = 1_u16.to_le_bytes();
            link.write(Region::Config, at + 6, &on).unwrap();
        }
        at = u64::from(header >> 20);
    }
    let config = QueueConfig {
        size: 16,
        threshold: 0,
        mode: QueueMode::new()
            .with_dedicated(true)
            .with_priority(1)
            .with_pasid(pasid)
            .with_pasid_enable(true),
        limits: QueueLimits::new()
            .with_max_transfer_shift(21)
            .with_max_batch_shift(4),
    };
    for (at, word) in (QUEUES..).step_by(4).zip(config.words()) {
        link.write_u32(Bar::Bar0, at, word).unwrap();
    }
    link.write_u32(Bar::Bar0, GROUPS, 1).unwrap();
    link.write_u32(Bar::Bar0, GROUPS + 32, 1).unwrap();
    for command in [Command::ENABLE_DEVICE, Command::ENABLE_QUEUE] {
        let command = Command::of(command).into_bits();
        link.write_u32(Bar::Bar0, register::CMD, command).unwrap();
        let status = link.read_u32(Bar::Bar0, register::CMDSTS).unwrap();
        assert_eq!(status & 0xff, 0);
    }
}

#[test]
fn r23_r35_a_vmm_with_its_own_iommu_allocates_binds_and_has_a_device_copy() {
    let daemon = start("");
    let mut client = connect(&daemon).unwrap();
    let mut guest = Guest::new(16 * MIB).unwrap();
    let mut link = Link::connect(&daemon.socket("alice-0"), "the slice", &guest).unwrap();
    let mut space = AddressSpace::new(&mut guest).unwrap();
    let (from, to, record) = (0x5000_0000, 0x6000_0000, 0x7000_0000);
    for at in [from, to, record] {
        let page = guest.take_zeroed(PageSize::Size4K).unwrap();
        space
            .map(&mut guest, Iova::new(at), page, Rights::ReadWrite)
            .unwrap();
    }
    space
        .write(&guest, Iova::new(from), b"by the pointer of a process")
        .unwrap();
    let pasid = client.alloc_pasid(PasidRange::ALL).unwrap();
    let name = GuestPasid::new(NAME).unwrap();
    client
        .bind(pasid, Some(name), Process::at(space.root()))
        .unwrap();
    enable(&mut link, NAME);
    let copy = Descriptor::memory_move(from, to, 27).with_record(record);
    let portal = portal_offset(0, Portal::Limited);
    link.write(Bar::Bar2, portal, copy.as_bytes()).unwrap();
    let mut status = [0];
    wait_until("the copy ends", || {
        space.read(&guest, Iova::new(record), &mut status).unwrap();
        status != [0]
    });
    assert_eq!(Status(status[0]), Status::SUCCESS);
    let mut copied = [0; 27];
    space.read(&guest, Iova::new(to), &mut copied).unwrap();
    assert_eq!(&copied, b"by the pointer of a process");
    // The slice's own address space, and the process.
    assert_eq!(held(&daemon), 2);
    // The VMM's requests end, and with them what they took; the slice's queue still has the number.
    drop(client);
    wait_until("what was taken is given back", || {
        let ledger = daemon.ledger();
        let alice = ledger.tenants.iter().find(|t| t.name == "alice").unwrap();
        let freed = |line: &&LedgerLine| line.state == "free-pending" && line.bound.is_empty();
        alice.pasids.iter().filter(freed).count() == 1
    });
    drop(link);
    daemon.wait_for_end_of("alice");
}

#[test]
fn r33_the_last_connection_of_a_vmm_gives_all_back() {
    let daemon = start("");
    let mut one = connect(&daemon).unwrap();
    let mut other = connect(&daemon).unwrap();
    for client in [&mut one, &mut other] {
        client.ioasid_alloc(PasidRange::ALL).unwrap();
    }
    assert_eq!(held(&daemon), 2);
    drop(one);
    other.info().unwrap();
    assert_eq!(held(&daemon), 2);
    drop(other);
    daemon.wait_for_end_of("alice");
}

/// The state of alice's PASIDs, and how many functions each is bound on.
fn bound(daemon: &Daemon) -> Vec<(String, usize)> {
    let ledger = daemon.ledger();
    let alice = ledger.tenants.iter().find(|t| t.name == "alice").unwrap();
    let lines = alice.pasids.iter();
    lines
        .map(|line| (line.state.clone(), line.bound.len()))
        .collect()
}

#[test]
fn r33_r43_a_function_that_goes_is_unbound_and_what_comes_in_its_place_is_bound_anew() {
    let daemon = start("");
    let mut client = connect(&daemon).unwrap();
    let guest = Guest::new(1 << 20).unwrap();
    let plug = || Link::connect(&daemon.socket("alice-0"), "the slice", &guest).unwrap();
    let mut link = plug();
    let pasid = client.alloc_pasid(PasidRange::ALL).unwrap();
    let name = GuestPasid::new(NAME).unwrap();
    let process = Process::at(palisade_units::Gpa::new(0x1000));
    client.bind(pasid, Some(name), process).unwrap();
    // The slice's own, and the process.
    assert_eq!(bound(&daemon), [("active".into(), 1), ("active".into(), 1)]);
    for _ in 0..3 {
        // With the queue at work for it, too.
        enable(&mut link, NAME);
        drop(link);
        wait_until("the slice is gone", || bound(&daemon).len() == 1);
        assert_eq!(bound(&daemon)[0].1, 0);
        // It is the VMM's still, under the same name, and the function that comes is bound when the VMM says so.
        link = plug();
        assert_eq!(bound(&daemon).iter().map(|line| line.1).sum::<usize>(), 1);
        client.bind(pasid, Some(name), process).unwrap();
        assert_eq!(bound(&daemon).iter().map(|line| line.1).sum::<usize>(), 2);
    }
    drop(link);
    wait_until("the slice is gone", || bound(&daemon).len() == 1);
    client.free_pasid(pasid).unwrap_err();
    assert_eq!(held(&daemon), 1);
    client.ioasid_free(pasid).unwrap();
    assert_eq!(held(&daemon), 0);
}

#[test]
fn r33_a_vmm_whose_host_is_killed_is_told_so_and_comes_again() {
    let daemon = start("");
    let mut client = connect(&daemon).unwrap();
    let mut faults = client.fault_queue().unwrap();
    client.ioasid_alloc(PasidRange::ALL).unwrap();
    let config = fs::read_to_string(daemon.folder().join("host.toml")).unwrap();
    let folder = daemon.kill();
    let told = faults.wait(std::time::Duration::from_secs(30));
    assert!(matches!(told, Err(ClientError::Closed)), "{told:?}");
    assert!(matches!(client.info(), Err(ClientError::Closed)));
    let daemon = Daemon::start_in(folder, &config);
    assert_eq!(held(&daemon), 0);
    let mut client = connect(&daemon).unwrap();
    client.ioasid_alloc(PasidRange::ALL).unwrap();
    assert_eq!(held(&daemon), 1);
}

#[test]
fn a_ninth_connection_waits_until_one_of_eight_ends() {
    let daemon = start("");
    let mut clients: Vec<_> = (0..8).map(|_| connect(&daemon).unwrap()).collect();
    let socket = daemon.socket("alice-container");
    let ninth = std::thread::spawn(move || Client::connect(&socket, Abi::V7));
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(!ninth.is_finished());
    // A queue at one tenant's door is nobody else's, nor the operator's.
    let more: Vec<_> = (0..100)
        .map(|_| UnixStream::connect(daemon.socket("alice-container")).unwrap())
        .collect();
    let guest = Guest::new(1 << 20).unwrap();
    Link::connect(&daemon.socket("bob-0"), "the slice", &guest).unwrap();
    assert_eq!(held(&daemon), 0);
    drop(more);
    clients.pop();
    ninth.join().unwrap().unwrap().info().unwrap();
}

/// A VMM that translates for no device: the host's do not ask it.
struct NoDevice;

impl PasidHandler for NoDevice {
    fn read(&mut self, _: Tag, _: Iova, _: &mut [u8]) -> Result<(), Errno> {
        Err(Errno::NOTSUP)
    }

    fn write(&mut self, _: Tag, _: Iova, _: &[u8]) -> Result<(), Errno> {
        Err(Errno::NOTSUP)
    }
}

#[test]
fn r23_r33_requests_go_over_a_functions_own_connection_where_both_sides_name_them() {
    let daemon = start("");
    let stream = UnixStream::connect(daemon.socket("alice-0")).unwrap();
    let proposal = PasidCapability {
        requests: Some(RequestAbi::V7),
        ..PasidCapability::default()
    };
    let mut client =
        palisade_vfio_user::Client::with_pasids(stream, proposal, Box::new(NoDevice)).unwrap();
    assert_eq!(client.pasids().unwrap().requests, Some(RequestAbi::V7));
    let words = |words: [u32; 4]| words.map(u32::to_le_bytes).concat();
    let allocate = RequestNumber::new(IOASID_ALLOCATE);
    let reply = client.container_request(allocate, &words([16, 0, 40, 50]), &[]);
    assert_eq!(reply.unwrap().value, 40);
    // The slice's own, and this one.
    assert_eq!(held(&daemon), 2);
    drop(client);
    daemon.wait_for_end_of("alice");
    // Bob's guest has a unit of the host's, and nothing of this is for his VMM.
    let stream = UnixStream::connect(daemon.socket("bob-0")).unwrap();
    let mut plain =
        palisade_vfio_user::Client::with_pasids(stream, proposal, Box::new(NoDevice)).unwrap();
    assert!(plain.pasids().is_none());
    assert!(
        plain
            .container_request(allocate, &words([16, 0, 40, 50]), &[])
            .is_err()
    );
}

#[test]
fn only_users_of_the_list_are_served() {
    let own = rustix::process::geteuid().as_raw();
    let refused = start(&format!(", uids = [{}]", own + 1));
    assert!(connect(&refused).is_err());
    let served = start(&format!(", uids = [{}, {own}]", own + 1));
    connect(&served).unwrap().info().unwrap();
}

#[test]
fn the_socket_has_the_mode_and_the_owner_of_its_configuration() {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let private = start("");
    assert_eq!(mode(&private.socket("alice-container")), 0o600);
    let gid = rustix::process::getegid().as_raw();
    let shared = start(&format!(", mode = \"0660\", group = {gid}"));
    assert_eq!(mode(&shared.socket("alice-container")), 0o660);
    assert_eq!(mode(&shared.socket("alice-0")), 0o660, "its function's");
    assert_eq!(mode(&shared.socket("bob-0")), 0o600);
}

#[test]
fn a_tenant_without_a_unit_cannot_be_qemus() {
    let daemon = start("");
    let mut vm = crate::host::palisade();
    let config = daemon.folder().join("host.toml");
    vm.args(["vm", "--tenant", "alice", "--kernel", "/bin/true"]);
    vm.args(["--initrd", "/bin/true", "--qemu", "/bin/true", "--config"]);
    let said = vm.arg(config).output().unwrap();
    assert!(!said.status.success());
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(said.contains("IOMMU of its own"), "{said}");
}

#[test]
fn a_client_that_says_nothing_does_not_hold_up_the_end() {
    let mut daemon = start("");
    let _silent = UnixStream::connect(daemon.socket("alice-container")).unwrap();
    assert!(daemon.end().success());
}

/// Descriptors are the daemon's, and what a login gives a program is soon all taken by a few hostile VMMs.
#[test]
fn r78_a_vmm_that_has_the_daemon_open_what_it_may_leaves_enough_for_others() {
    let daemon = start("");
    let mut hostile = IommufdClient::connect(&daemon.socket("alice-container")).unwrap();
    let queues: Vec<_> = (0..64)
        .map_while(|_| hostile.page_requests().ok())
        .collect();
    assert_eq!(queues.len(), 64);
    let mut bob = daemon.connect("bob", 64 * MIB).unwrap();
    let copy = copy_of_a_page(bob.start_process().unwrap());
    bob.plant(copy.process, copy.from, &[7; 4096]).unwrap();
    bob.plant(copy.process, copy.to, &[0; 4096]).unwrap();
    bob.copy(FIRST, copy).unwrap();
}

/// Closing what it is sent can hold a program up for as long as the sender likes.
#[test]
fn r78_a_descriptor_that_is_slow_to_close_does_not_hold_up_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let lingering = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (_reader, _) = listener.accept().unwrap();
    lingering.set_nonblocking(true).unwrap();
    while (&lingering).write(&[0; 1 << 16]).is_ok() {}
    lingering.set_nonblocking(false).unwrap();
    set_socket_linger(&lingering, Some(Duration::from_secs(600))).unwrap();
    let mut daemon = start("");
    let stream = UnixStream::connect(daemon.socket("alice-container")).unwrap();
    let version = [
        &[24, 0, 0, 0, 1, 0][..],
        &[0; 10],
        &[1, 0, 1, 0, 7, 0, 0, 0],
    ]
    .concat();
    (&stream).write_all(&version).unwrap();
    stream.set_nonblocking(true).unwrap();
    let request = [&[16, 0, 0, 0, 3, 0, 0, 0, 0x64, 0x3b][..], &[0; 6]].concat();
    // Answers are not read, so that in the end requests are not either: the last copies are under way.
    let mut full = 0;
    while full < 20 {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [lingering.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let io = [IoSlice::new(&request)];
        if sendmsg(&stream, &io, &mut control, SendFlags::NOSIGNAL).is_err() {
            full += 1;
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    drop(lingering);
    assert!(daemon.end().success());
}
