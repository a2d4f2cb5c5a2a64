//! A guest's day with the skeleton, against a real host: the device does what the guest's tables say, and the guest is
//! told in its own names.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

#[path = "../../../crates/container/tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use common::*;
use palisade_container::{AllowedUids, FaultQueue, Server};
use palisade_iommu::{
    ExtendedAccessed, Fault, FaultReason, GroupIndex, Levels, PageRequest, PageResponse, Requester,
    Sharing, SupervisorRequests,
};
use palisade_memory::{GuestMemory, Protection};
use palisade_units::{Access, Gpa, GuestPasid, HostPasid, Iova};
use tempfile::TempDir;
use vmm::{Guest, Invalidation, Pages, PasidEntry, Viommu};

const SOON: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(30);

/// The guest's tables and queues.
#[derive(Default)]
struct Machine {
    pasid_table: BTreeMap<GuestPasid, PasidEntry>,
    faults: Vec<Fault>,
    page_requests: Vec<PageRequest>,
}

impl Guest for Machine {
    fn pasid_entry(&self, pasid: GuestPasid) -> Option<PasidEntry> {
        self.pasid_table.get(&pasid).copied()
    }

    fn present_pasids(&self) -> Vec<GuestPasid> {
        self.pasid_table.keys().copied().collect()
    }

    fn record_fault(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    fn request_page(&mut self, request: PageRequest) {
        self.page_requests.push(request);
    }
}

struct Rig {
    world: World,
    machine: Machine,
    viommu: Viommu,
    faults: FaultQueue,
    _server: Server,
    _folder: TempDir,
}

fn guest(raw: u32) -> GuestPasid {
    GuestPasid::new(raw).unwrap()
}

impl Rig {
    fn new() -> Self {
        let world = World::offering();
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("container.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let gate = Arc::new(AllowedUids::own());
        let server = Server::start(listener, world.vmm.clone(), gate).unwrap();
        let (mut viommu, faults) = Viommu::connect(&socket).unwrap();
        let ram = world.ram.backing();
        viommu.ram_added(Gpa::new(0), RAM_BYTES, &ram).unwrap();
        world.ram.store_u64(0x1000, 0xa1).unwrap();
        Self {
            world,
            machine: Machine::default(),
            viommu,
            faults,
            _server: server,
            _folder: folder,
        }
    }

    fn with_function() -> Self {
        let mut rig = Self::new();
        rig.viommu.function_added(PLACE, &rig.machine).unwrap();
        rig
    }

    fn invalidate(&mut self, what: Invalidation) {
        self.viommu.invalidated(what, &self.machine).unwrap();
    }

    /// The guest enters a process with one page.
    fn enter(&mut self, pasid: GuestPasid) -> Gpa {
        let root = self.world.process(&[(BUFFER, 0x1000)]);
        let entry = PasidEntry {
            root,
            levels: Levels::Four,
            supervisor: SupervisorRequests::Refused,
            extended_accessed: ExtendedAccessed::Off,
        };
        self.machine.pasid_table.insert(pasid, entry);
        self.invalidate(Invalidation::PasidEntry(pasid));
        root
    }

    /// The host's number for the guest's, as the device's mediation finds it.
    fn host(&self, pasid: GuestPasid) -> Option<HostPasid> {
        let hold = self.world.container.translate(PLACE, pasid);
        hold.ok().map(|hold| hold.pasid())
    }

    fn read(&self, pasid: HostPasid, at: u64) -> Option<u64> {
        read(&mut self.world.function.port(), pasid, at)
    }

    fn deliver(&mut self) {
        Viommu::deliver(&mut self.faults, SOON, &mut self.machine).unwrap();
    }
}

#[test]
fn r6_an_entry_of_the_pasid_table_is_bound_changed_and_cleared() {
    let mut rig = Rig::with_function();
    let books = rig.world.books();
    rig.enter(guest(5));
    let host = rig.host(guest(5)).unwrap();
    assert_eq!(rig.read(host, BUFFER), Some(0xa1));
    // Another process in its place.
    rig.enter(guest(5));
    assert_eq!(rig.host(guest(5)), Some(host));
    rig.machine.pasid_table.clear();
    rig.invalidate(Invalidation::PasidTable);
    assert_eq!(rig.read(host, BUFFER), None);
    assert_eq!(rig.host(guest(5)), None);
    assert_eq!(rig.world.books(), books);
}

#[test]
fn r41_nothing_stale_is_used_after_an_invalidation() {
    let mut rig = Rig::with_function();
    let root = rig.enter(guest(5)).get();
    let host = rig.host(guest(5)).unwrap();
    let mut port = rig.world.function.port();
    rig.world.ram.store_u64(0x2000, 0xb2).unwrap();
    let pages = [(0x2000, 0xb2), (0x1000, 0xa1), (0x2000, 0xb2)];
    let buffer = Pages {
        pasid: guest(5),
        at: Iova::new(BUFFER),
        len_bytes: 0x1000,
    };
    let ways = [
        Invalidation::Pages(buffer),
        Invalidation::Process(buffer.pasid),
        Invalidation::All,
    ];
    let mut before = read(&mut port, host, BUFFER);
    for ((page, holds), way) in pages.into_iter().zip(ways) {
        rig.world.map(root, BUFFER, page);
        assert_eq!(read(&mut port, host, BUFFER), before, "cached");
        rig.invalidate(way);
        before = read(&mut port, host, BUFFER);
        assert_eq!(before, Some(holds), "{way:?}");
    }
    rig.invalidate(Invalidation::PagesInDevices(buffer));
}

#[test]
fn r12_a_guest_may_name_what_it_never_entered() {
    let mut rig = Rig::with_function();
    let pasid = guest(77);
    let pages = Pages {
        pasid,
        at: Iova::new(0),
        len_bytes: 0x1000,
    };
    rig.invalidate(Invalidation::PasidEntry(pasid));
    rig.invalidate(Invalidation::Process(pasid));
    rig.invalidate(Invalidation::Pages(pages));
    rig.invalidate(Invalidation::PagesInDevices(pages));
    let (group, answer) = (GroupIndex::new(3), PageResponse::Success);
    let nobody_asked = rig
        .viommu
        .page_group_response(PLACE, Some(pasid), group, answer);
    assert_eq!(errno(nobody_asked), 2);
}

#[test]
fn r61_r66_a_fault_is_recorded_in_the_guests_names() {
    let mut rig = Rig::with_function();
    rig.enter(guest(5));
    let host = rig.host(guest(5)).unwrap();
    assert_eq!(rig.read(host, BUFFER + 0x5000), None);
    rig.deliver();
    let [fault] = rig.machine.faults[..] else {
        panic!("{:?}", rig.machine.faults);
    };
    assert_eq!((fault.bdf, fault.pasid), (PLACE, Some(guest(5))));
    assert_eq!(fault.at, Iova::new(BUFFER + 0x5000));
    assert_eq!(fault.reason, FaultReason::FirstStageNotPresent);
}

#[test]
fn r62_a_page_request_goes_to_the_guest_and_its_response_to_the_device() {
    let mut rig = Rig::with_function();
    let root = rig.enter(guest(5)).get();
    let host = rig.host(guest(5)).unwrap();
    let (tell, told) = mpsc::channel();
    let port = rig.world.function.port();
    let waiter = Box::new(move |response| tell.send(response).unwrap());
    let (by, at) = (Requester::new(Some(host.into())), BUFFER + 0x3000);
    port.request_page(by, Iova::new(at), Access::READ, waiter)
        .unwrap();
    rig.deliver();
    let [wanted] = rig.machine.page_requests[..] else {
        panic!("{:?}", rig.machine.page_requests);
    };
    assert_eq!((wanted.pasid, wanted.at), (Some(guest(5)), Iova::new(at)));
    rig.world.map(root, at, 0x1000);
    let (group, success) = (wanted.group, PageResponse::Success);
    let viommu = &mut rig.viommu;
    let mut respond = || viommu.page_group_response(wanted.bdf, wanted.pasid, group, success);
    respond().unwrap();
    assert_eq!(errno(respond()), 2, "once");
    assert_eq!(told.recv_timeout(LONG), Ok(success));
    assert_eq!(rig.read(host, at), Some(0xa1));
}

#[test]
fn r43_r44_functions_and_memory_come_and_go() {
    let mut rig = Rig::with_function();
    rig.enter(guest(5));
    let host = rig.host(guest(5)).unwrap();
    rig.viommu.function_removed(PLACE).unwrap();
    assert_eq!(rig.read(host, BUFFER), None);
    rig.viommu.function_added(PLACE, &rig.machine).unwrap();
    assert_eq!(rig.read(host, BUFFER), Some(0xa1));
    rig.viommu.ram_removed(Gpa::new(0), RAM_BYTES).unwrap();
    assert_eq!(rig.read(host, BUFFER), None);
}

/// In caching mode a guest tells of new entries by whatever invalidation covers them, and those that it entered when
/// there was no function are bound on the first that comes.
#[test]
fn r6_new_entries_are_found_by_an_invalidation_of_the_whole_table_and_by_a_new_function() {
    let mut rig = Rig::new();
    let root = rig.world.process(&[(BUFFER, 0x1000)]);
    let entry = PasidEntry {
        root,
        levels: Levels::Four,
        supervisor: SupervisorRequests::Refused,
        extended_accessed: ExtendedAccessed::Off,
    };
    rig.machine.pasid_table.insert(guest(5), entry);
    rig.viommu.function_added(PLACE, &rig.machine).unwrap();
    rig.machine.pasid_table.insert(guest(6), entry);
    rig.invalidate(Invalidation::PasidTable);
    for pasid in [5, 6] {
        let host = rig.host(guest(pasid));
        let read = host.and_then(|host| rig.read(host, BUFFER));
        assert_eq!(read, Some(0xa1), "{pasid}");
    }
}

#[test]
fn r33_an_entry_that_is_cleared_when_no_function_is_left_is_given_back() {
    let mut rig = Rig::new();
    let books = rig.world.books();
    rig.viommu.function_added(PLACE, &rig.machine).unwrap();
    rig.enter(guest(5));
    rig.viommu.function_removed(PLACE).unwrap();
    rig.machine.pasid_table.clear();
    rig.invalidate(Invalidation::PasidEntry(guest(5)));
    assert_eq!(rig.world.books(), books);
}

#[test]
fn r43_a_function_that_the_host_attaches_is_bound_when_it_comes_again() {
    let mut rig = Rig::new();
    let attach = |world: &World| {
        let memory = GuestMemory::new();
        let (ram, whole) = (world.ram.backing(), Protection::ReadWrite);
        memory.map(Gpa::new(0), RAM_BYTES, ram, whole).unwrap();
        let function = world.function.clone();
        let attached = world
            .container
            .attach(PLACE, function, Sharing::Mediated, memory);
        attached.unwrap()
    };
    let attachment = attach(&rig.world);
    rig.viommu.function_connected(&rig.machine).unwrap();
    rig.enter(guest(5));
    let host = rig.host(guest(5)).unwrap();
    assert_eq!(rig.read(host, BUFFER), Some(0xa1));
    drop(attachment);
    assert_eq!(rig.read(host, BUFFER), None);
    let _attachment = attach(&rig.world);
    assert_eq!(rig.read(host, BUFFER), None);
    rig.viommu.function_connected(&rig.machine).unwrap();
    assert_eq!(rig.read(host, BUFFER), Some(0xa1));
}

/// Three levels are not a first stage's. What was there before is gone all the same, and other entries are looked at.
#[test]
fn r36_an_entry_that_is_refused_takes_the_one_before_it_along() {
    let mut rig = Rig::with_function();
    for pasid in [5, 6, 7] {
        rig.enter(guest(pasid));
    }
    let [five, six, seven] = [5, 6, 7].map(|pasid| rig.host(guest(pasid)).unwrap());
    let entry = rig.machine.pasid_table.get_mut(&guest(5)).unwrap();
    entry.levels = Levels::Three;
    rig.machine.pasid_table.remove(&guest(6));
    let table = Invalidation::PasidTable;
    let refused = rig.viommu.invalidated(table, &rig.machine);
    assert_eq!(errno(refused), 22);
    assert_eq!(rig.read(five, BUFFER), None);
    assert_eq!(rig.read(six, BUFFER), None);
    assert_eq!(rig.read(seven, BUFFER), Some(0xa1));
}

/// Without a function there is nothing to bind on: what was taken for it is given back.
#[test]
fn r36_a_bind_that_is_refused_leaves_nothing_behind() {
    let mut rig = Rig::new();
    let books = rig.world.books();
    let root = rig.world.process(&[]);
    let entry = PasidEntry {
        root,
        levels: Levels::Four,
        supervisor: SupervisorRequests::Refused,
        extended_accessed: ExtendedAccessed::Off,
    };
    rig.machine.pasid_table.insert(guest(5), entry);
    let refused = rig
        .viommu
        .invalidated(Invalidation::PasidEntry(guest(5)), &rig.machine);
    assert_eq!(errno(refused), 95);
    assert_eq!(rig.world.books(), books);
}
