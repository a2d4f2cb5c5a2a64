//! R75: a VMM's day in an iommufd's order of calls, over a real socket.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use common::*;
use palisade_container::{
    AllowedUids, Attaching, ClientError, Invalidated, IommufdClient, PageRequests, Pages, Process,
    Server, TableOptions,
};
use palisade_iommu::{PageResponse, Requester};
use palisade_memory::{Protection, SharedMemory};
use palisade_units::{Access, Bdf, Gpa, GuestPasid, HostPasid, Iova};
use palisade_vfio::abi::Number;
use palisade_vfio::abi::iommufd::{ObjectId, On};
use rustix::io::Errno;

const EBADF: i32 = 9;
const EBUSY: i32 = 16;
const ENOTTY: i32 = 25;
const LONG: Duration = Duration::from_secs(30);
const AT_ONCE: Duration = Duration::ZERO;
const SOCKET: &str = "IOMMUFD_TEST_SOCKET";
const STEPS: &str = "IOMMUFD_TEST_STEPS";
const ALL_STEPS: u64 = 8;

fn guest(raw: u32) -> GuestPasid {
    GuestPasid::new(raw).unwrap()
}

fn connect(world: &World) -> (IommufdClient, Serving) {
    let (stream, serving) = world.serve();
    (IommufdClient::over(stream).unwrap(), serving)
}

/// A client with a device, its guest's memory, a parent and a queue.
struct Vmm {
    world: World,
    client: IommufdClient,
    device: ObjectId,
    parent: ObjectId,
    requests: PageRequests,
    _serving: Serving,
}

impl Vmm {
    fn new() -> Self {
        let world = World::offering();
        let (mut client, serving) = connect(&world);
        let device = client.bind(PLACE).unwrap();
        let space = client.space().unwrap();
        let ranges = client.ranges(space).unwrap();
        assert_eq!(ranges.len(), 2);
        assert_eq!(ranges[0], (Gpa::new(0), Gpa::new(0xfedf_ffff)));
        let ram = (&world.ram.backing(), Protection::ReadWrite);
        client.map(space, Gpa::new(0), RAM_BYTES, ram).unwrap();
        let parent = client.parent(device, space).unwrap();
        let requests = client.page_requests().unwrap();
        Self {
            world,
            client,
            device,
            parent,
            requests,
            _serving: serving,
        }
    }

    fn table(&mut self, root: Gpa) -> ObjectId {
        let options = TableOptions {
            faults: Some(self.requests.id),
            ..TableOptions::default()
        };
        let process = Process::at(root);
        let table = self
            .client
            .nested(self.device, self.parent, process, options);
        table.unwrap()
    }

    /// The PASID of the host for a guest's, as mediation asks for it.
    fn host(&self, pasid: u32) -> HostPasid {
        let hold = self.world.container.translate(PLACE, guest(pasid));
        hold.unwrap().pasid()
    }

    fn ask(&self, pasid: u32, at: u64) -> mpsc::Receiver<PageResponse> {
        let (tell, told) = mpsc::channel();
        let by = Requester::new(Some(self.host(pasid).into()));
        let waiter = Box::new(move |response| tell.send(response).unwrap());
        let port = self.world.function.port();
        let asked = port.request_page(by, Iova::new(at), Access::READ, waiter);
        asked.unwrap();
        told
    }
}

#[test]
fn r75_bind_attach_copy_answer_replace_detach() {
    let mut vmm = Vmm::new();
    let [page, other, fresh] = [0x1000, 0x2000, 0x3000];
    for (at, value) in [(page, 0xa1), (other, 0xa2), (fresh, 0xa3)] {
        vmm.world.ram.store_u64(at, value).unwrap();
    }
    let told = vmm.client.hardware(vmm.device).unwrap();
    assert_eq!(told.pasid_bits, 20);
    assert_eq!(told.vtd, Some((UNIT.cap, UNIT.ecap)));
    let first = vmm.world.process(&[(BUFFER, page)]);
    let table = vmm.table(first);
    let pasid = Some(guest(700));
    assert_eq!(vmm.client.attach(PLACE, pasid, table).unwrap(), table);

    let mut port = vmm.world.function.port();
    let n = vmm.host(700);
    assert_eq!(read(&mut port, n, BUFFER), Some(0xa1));
    let by = Requester::new(Some(n.into()));
    port.write(by, Iova::new(BUFFER), &[7; 8]).unwrap();
    assert_eq!(vmm.world.ram.load_u64(page).unwrap(), 0x0707_0707_0707_0707);

    // A page comes when it is asked for.
    let missing = BUFFER + 0x1000;
    assert_eq!(read(&mut port, n, missing), None);
    let answered = vmm.ask(700, missing);
    let request = vmm.requests.wait(LONG).unwrap().unwrap();
    assert_eq!(request.device, vmm.device);
    assert_eq!((request.pasid, request.at.get()), (pasid, missing));
    assert!(request.is_last && request.access == Access::READ);
    vmm.world.map(first.get(), missing, fresh);
    vmm.requests.answer(request, PageResponse::Success).unwrap();
    assert_eq!(answered.recv_timeout(LONG).unwrap(), PageResponse::Success);
    assert_eq!(read(&mut port, n, missing), Some(0xa3));

    // A page moves.
    vmm.world.map(first.get(), missing, other);
    let ranges = [
        Pages::Leaves(Iova::new(missing), 1),
        Pages::From(Iova::new(1), 1),
        Pages::All,
    ];
    let outcome = vmm.client.invalidate(table, &ranges).unwrap();
    let refused = Some(Errno::INVAL);
    assert_eq!(outcome, Invalidated { done: 1, refused });
    assert_eq!(read(&mut port, n, missing), Some(0xa2));
    let whole = vmm.client.invalidate(table, &[Pages::All]).unwrap();
    assert_eq!(
        whole,
        Invalidated {
            done: 1,
            refused: None
        }
    );

    // Another process takes the PASID over.
    let second = vmm.world.process(&[(BUFFER, other)]);
    let next = vmm.table(second);
    assert_eq!(errno(vmm.client.destroy(table)), EBUSY);
    vmm.client.attach(PLACE, pasid, next).unwrap();
    assert_eq!(vmm.host(700), n, "the same PASID of the host");
    assert_eq!(read(&mut port, n, BUFFER), Some(0xa2));
    vmm.client.destroy(table).unwrap();

    let waits = vmm.ask(700, missing);
    vmm.client.detach(PLACE, pasid).unwrap();
    assert_eq!(waits.recv_timeout(LONG).unwrap(), PageResponse::Invalid);
    assert_eq!(read(&mut port, n, BUFFER), None);
}

#[test]
fn r62_r75_faults_come_as_events_of_a_virtual_unit() {
    let mut vmm = Vmm::new();
    let unit = vmm.client.virtual_unit(vmm.device, vmm.parent).unwrap();
    let events = vmm.client.events(unit).unwrap();
    let name = Bdf::new(1, 2, 3);
    vmm.client.virtual_device(unit, vmm.device, name).unwrap();
    let root = vmm.world.process(&[]);
    let (client, device) = (&mut vmm.client, vmm.device);
    let table = client.nested(device, unit, Process::at(root), TableOptions::default());
    client
        .attach(PLACE, Some(guest(9)), table.unwrap())
        .unwrap();
    assert_eq!(events.wait(AT_ONCE).unwrap(), None);
    let mut port = vmm.world.function.port();
    let n = vmm.host(9);
    for sequence in 0..3 {
        assert_eq!(read(&mut port, n, BUFFER), None);
        let (number, [low, high]) = events.wait(LONG).unwrap().unwrap();
        assert_eq!((number, low), (sequence, BUFFER));
        assert_eq!(high & 0xffff, u64::from(name.requester_id()));
        assert_eq!(high >> 40 & 0xf_ffff, 9);
    }
}

#[test]
fn r75_calls_are_made_on_files() {
    let vmm = &mut Vmm::new();
    let listed = vmm.client.functions().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].attaching, Attaching::ByClient);
    let bind = Number::new(0x3b76);
    let argument = [16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(
        errno(vmm.client.ioctl(On::Iommufd, bind, &argument, &[])),
        ENOTTY
    );
    vmm.client.close(PLACE).unwrap();
    assert_eq!(
        vmm.client.functions().unwrap()[0].attaching,
        Attaching::Offered
    );
    vmm.client.bind(PLACE).unwrap();
}

#[test]
fn r75_a_file_that_is_neither_is_refused_and_the_connection_goes_on() {
    use std::io::{Read, Write};
    let world = World::offering();
    let (mut stream, _serving) = world.serve();
    let mut exchange = |bytes: &[u8]| {
        stream.write_all(bytes).unwrap();
        let mut header = [0; 16];
        stream.read_exact(&mut header).unwrap();
        let word = |at: usize| i32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let mut payload = vec![0; usize::try_from(word(0)).unwrap() - 16];
        stream.read_exact(&mut payload).unwrap();
        (word(8), payload)
    };
    let version = [
        24, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 3, 0, 0, 0,
    ];
    assert_eq!(exchange(&version).0, 0);
    let mut request = [0_u8; 28];
    for (at, byte) in [(0, 28), (4, 3), (8, 0x81), (9, 0x3b), (12, 1), (16, 12)] {
        request[at] = byte;
    }
    assert_eq!(exchange(&request).0, EBADF);
    request[12] = 0;
    assert_eq!(
        exchange(&request),
        (0, vec![12, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])
    );
}

#[test]
fn r78_a_client_that_closes_or_floods_the_file_of_its_queue_harms_itself_only() {
    let mut vmm = Vmm::new();
    let root = vmm.world.process(&[]);
    let table = vmm.table(root);
    vmm.client.attach(PLACE, Some(guest(7)), table).unwrap();
    for _ in 0..2000 {
        // Full is what a client gets that writes faster than it is served.
        let _ = rustix::net::send(
            vmm.requests.file(),
            &[0xee; 24],
            rustix::net::SendFlags::DONTWAIT,
        );
    }
    assert_eq!(vmm.client.functions().unwrap().len(), 1);
    // Requests that nobody takes are answered once there is no room for more.
    let asked: Vec<_> = (0..600).map(|at| vmm.ask(7, at << 12)).collect();
    let ended = asked.iter().filter(|told| told.try_recv().is_ok()).count();
    assert!(ended >= 300, "{ended}");
    let fresh = vmm.client.page_requests().unwrap();
    let old = std::mem::replace(&mut vmm.requests, fresh);
    drop(old);
    assert_eq!(vmm.client.functions().unwrap().len(), 1);
    vmm.client.detach(PLACE, Some(guest(7))).unwrap();
    assert_eq!(vmm.world.function.outstanding_page_requests(), 0);
}

/// What waits when the last copy of the file is closed can be answered by nobody any more.
#[test]
fn r65_r75_page_requests_that_wait_in_a_queue_are_answered_when_its_client_closes_it() {
    let mut vmm = Vmm::new();
    let root = vmm.world.process(&[]);
    let table = vmm.table(root);
    vmm.client.attach(PLACE, Some(guest(7)), table).unwrap();
    let asked = vmm.ask(7, BUFFER);
    let read = vmm.ask(7, BUFFER + 0x1000);
    vmm.requests.wait(LONG).unwrap().unwrap();
    assert!(asked.try_recv().is_err() && read.try_recv().is_err());
    let fresh = vmm.client.page_requests().unwrap();
    drop(std::mem::replace(&mut vmm.requests, fresh));
    for told in [asked, read] {
        assert_eq!(told.recv_timeout(LONG), Ok(PageResponse::Invalid));
    }
    assert_eq!(vmm.ask(7, BUFFER).try_recv(), Ok(PageResponse::Failure));
}

/// Writing nothing is not closing.
#[test]
fn r75_an_empty_write_does_not_end_a_queue() {
    let mut vmm = Vmm::new();
    let root = vmm.world.process(&[]);
    let table = vmm.table(root);
    vmm.client.attach(PLACE, Some(guest(7)), table).unwrap();
    rustix::io::write(vmm.requests.file(), &[]).unwrap();
    let asked = vmm.ask(7, BUFFER);
    let request = vmm.requests.wait(LONG).unwrap().unwrap();
    vmm.requests.answer(request, PageResponse::Success).unwrap();
    assert_eq!(asked.recv_timeout(LONG), Ok(PageResponse::Success));
}

#[test]
fn r75_a_queue_is_in_use_until_its_file_is_closed() {
    let mut vmm = Vmm::new();
    let unit = vmm.client.virtual_unit(vmm.device, vmm.parent).unwrap();
    let events = vmm.client.events(unit).unwrap();
    for id in [vmm.requests.id, events.id] {
        assert_eq!(errno(vmm.client.destroy(id)), EBUSY);
    }
    let copy = vmm.requests.file().try_clone().unwrap();
    let (requests, events_id) = (vmm.requests.id, events.id);
    drop(events);
    vmm.client.destroy(events_id).unwrap();
    let fresh = vmm.client.page_requests().unwrap();
    drop(std::mem::replace(&mut vmm.requests, fresh));
    assert_eq!(errno(vmm.client.destroy(requests)), EBUSY, "a copy is open");
    drop(copy);
    vmm.client.destroy(requests).unwrap();
}

#[test]
fn r75_threads_that_wait_at_one_queue_wait_no_longer_than_they_say() {
    let mut vmm = Vmm::new();
    let root = vmm.world.process(&[]);
    let table = vmm.table(root);
    vmm.client.attach(PLACE, Some(guest(7)), table).unwrap();
    let short = Duration::from_millis(300);
    for round in 0..8 {
        let (tell, told) = mpsc::channel();
        let both = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let (tell, requests, both) = (tell.clone(), &vmm.requests, &both);
                scope.spawn(move || {
                    both.wait();
                    tell.send(requests.wait(short).unwrap()).unwrap();
                });
            }
            let asked = vmm.ask(7, round << 12);
            let ends = [(); 2].map(|()| told.recv_timeout(Duration::from_secs(5)));
            if ends.iter().any(Result::is_err) {
                // Lets go of who still waits.
                drop(vmm.ask(7, (1 << 40) + (round << 12)));
                panic!("{ends:?}");
            }
            drop(asked);
        });
    }
}

#[test]
fn r33_r75_a_queue_ends_with_its_connection() {
    let vmm = Vmm::new();
    let Vmm {
        client, requests, ..
    } = vmm;
    assert!(requests.wait(AT_ONCE).unwrap().is_none());
    drop(client);
    let over = requests.wait(LONG).map(drop);
    assert!(matches!(
        over,
        Err(ClientError::Closed | ClientError::Socket(_))
    ));
}

/// Not a test by itself: a VMM that the next test kills.
#[test]
fn a_client_process() {
    let Some(socket) = std::env::var_os(SOCKET) else {
        return;
    };
    let steps: u64 = std::env::var(STEPS).unwrap().parse().unwrap();
    let mut client = IommufdClient::connect(Path::new(&socket)).unwrap();
    let ram = SharedMemory::create("guest", RAM_BYTES).unwrap();
    let (mut ids, mut queues) = (Vec::new(), Vec::new());
    for step in 0..steps {
        match step {
            0 => ids.push(client.bind(PLACE).unwrap()),
            1 => ids.push(client.space().unwrap()),
            2 => {
                let ram = (&ram.backing(), Protection::ReadWrite);
                client.map(ids[1], Gpa::new(0), RAM_BYTES, ram).unwrap();
            }
            3 => ids.push(client.parent(ids[0], ids[1]).unwrap()),
            4 => queues.push(client.page_requests().unwrap()),
            5 => {
                let options = TableOptions {
                    faults: Some(queues[0].id),
                    ..TableOptions::default()
                };
                let process = Process::at(Gpa::new(0));
                let table = client.nested(ids[0], ids[2], process, options);
                ids.push(table.unwrap());
            }
            6 => drop(client.attach(PLACE, Some(guest(77)), ids[3]).unwrap()),
            _ => drop(client.attach(PLACE, None, ids[3]).unwrap()),
        }
    }
    eprintln!("ready");
    loop {
        std::thread::park();
    }
}

#[test]
fn r33_r75_a_vmm_that_is_killed_after_any_step_leaves_nothing() {
    let world = World::offering();
    let books = world.books();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("container.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let gate = Arc::new(AllowedUids::own());
    let _server = Server::start(listener, world.vmm.clone(), gate).unwrap();
    for steps in 0..=ALL_STEPS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_client_process", "--nocapture"])
            .env(STEPS, steps.to_string())
            .env(SOCKET, &socket)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "ready"));
        assert_eq!(world.books() != books, steps >= 1, "after {steps}");
        let (tell, told) = mpsc::channel();
        let waits = steps >= 7;
        if waits {
            let hold = world.container.translate(PLACE, guest(77)).unwrap();
            let by = Requester::new(Some(hold.pasid().into()));
            let waiter = Box::new(move |response| tell.send(response).unwrap());
            let port = world.function.port();
            let asked = port.request_page(by, Iova::new(BUFFER), Access::READ, waiter);
            asked.unwrap();
            assert!(told.try_recv().is_err());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        world.wait_for(&books);
        assert_eq!(told.try_recv().ok(), waits.then_some(PageResponse::Invalid));
        assert_eq!(world.function.outstanding_page_requests(), 0);
    }
}
