//! R33: client processes that are killed in the middle of their work.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use common::*;
use palisade_container::{
    AllowedUids, Client, ClientError, Gate, Invalidate, NotAllowed, Peer, Process, Server, Which,
};
use palisade_ioasid::PasidRange;
use palisade_iommu::{PageResponse, Requester};
use palisade_memory::{Protection, SharedMemory};
use palisade_units::{Access, Gpa, GuestPasid, HostPasid, Iova};
use palisade_vfio::{Abi, Nesting};

const SOCKET: &str = "CONTAINER_TEST_SOCKET";
const STEPS: &str = "CONTAINER_TEST_STEPS";
const ROOT: &str = "CONTAINER_TEST_ROOT";
const OWN_FUNCTION: &str = "CONTAINER_TEST_OWN_FUNCTION";
/// How many steps a client makes at most.
const ALL_STEPS: usize = 8;
/// A client that makes all steps, and then asks on and on.
const ENDLESS: u64 = 9;

/// Not a test by itself: what the processes run that the other tests start.
#[test]
fn a_client_process() {
    let Some(socket) = std::env::var_os(SOCKET) else {
        return;
    };
    let number = |name| -> u64 { std::env::var(name).unwrap().parse().unwrap() };
    let root = Gpa::new(number(ROOT));
    let mut client = Client::connect(Path::new(&socket), Abi::V7).unwrap();
    let mut taken = Vec::new();
    for step in 0..number(STEPS) {
        match step {
            0 => client.set_nesting(Nesting::On).unwrap(),
            1 | 2 => taken.push(client.alloc_pasid(PasidRange::ALL).unwrap()),
            3 => client.bind(taken[0], None, Process::at(root)).unwrap(),
            4 => {
                let name = GuestPasid::new(700).unwrap();
                client
                    .bind(taken[1], Some(name), Process::at(root))
                    .unwrap();
            }
            5 => client
                .invalidate(Which::Translations, Invalidate::Pasid(taken[0]))
                .unwrap(),
            6 => client.unbind(taken[0]).unwrap(),
            7 => client.free_pasid(taken[1]).unwrap(),
            _ => {}
        }
    }
    eprintln!("ready");
    while number(STEPS) < ENDLESS {
        std::thread::park();
    }
    loop {
        let n = client.alloc_pasid(PasidRange::ALL).unwrap();
        client.bind(n, None, Process::at(root)).unwrap();
        client.free_pasid(n).unwrap();
    }
}

/// Not a test by itself: a VMM that brings its memory, attaches its function and is told of its faults.
#[test]
fn a_client_process_with_a_function() {
    let (Some(socket), Some(_)) = (std::env::var_os(SOCKET), std::env::var_os(OWN_FUNCTION)) else {
        return;
    };
    let steps: u64 = std::env::var(STEPS).unwrap().parse().unwrap();
    let mut client = Client::connect(Path::new(&socket), Abi::V1).unwrap();
    let ram = SharedMemory::create("guest", RAM_BYTES).unwrap();
    let (mut taken, mut rings) = (None, Vec::new());
    for step in 0..steps {
        match step {
            0 => client.set_nesting(Nesting::On).unwrap(),
            1 => {
                let whole = Protection::ReadWrite;
                client
                    .map(Gpa::new(0), RAM_BYTES, &ram.backing(), whole)
                    .unwrap();
            }
            2 => client.attach(PLACE).unwrap(),
            3 => rings.push(client.fault_queue().unwrap()),
            4 => taken = Some(client.alloc_pasid(PasidRange::only(77)).unwrap()),
            5 => {
                let process = Process::at(Gpa::new(0));
                client.bind(taken.unwrap(), None, process).unwrap();
            }
            _ => client.unmap(Gpa::new(0), RAM_BYTES).unwrap(),
        }
    }
    eprintln!("ready");
    loop {
        std::thread::park();
    }
}

/// A served socket in a folder of its own.
struct Served {
    world: World,
    server: Option<Server>,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Served {
    fn new(gate: Arc<dyn Gate>) -> Self {
        Self::of(World::new(), gate)
    }

    fn of(world: World, gate: Arc<dyn Gate>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("container.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = Server::start(listener, world.vmm.clone(), gate).unwrap();
        Self {
            world,
            server: Some(server),
            socket,
            _folder: folder,
        }
    }

    /// A process that has made so many steps.
    fn process(&self, steps: usize, root: Gpa) -> Child {
        self.started(
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "a_client_process", "--nocapture"])
                .env(STEPS, steps.to_string())
                .env(ROOT, root.get().to_string()),
        )
    }

    /// The same of one that has a function of its own.
    fn process_with_a_function(&self, steps: usize) -> Child {
        self.started(
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "a_client_process_with_a_function", "--nocapture"])
                .env(STEPS, steps.to_string())
                .env(OWN_FUNCTION, "yes"),
        )
    }

    fn started(&self, command: &mut Command) -> Child {
        let mut child = command
            .env(SOCKET, &self.socket)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "ready"));
        child
    }
}

#[test]
fn r33_a_client_that_is_killed_after_any_step_leaves_the_books_as_they_were() {
    let served = Served::new(Arc::new(AllowedUids::own()));
    let world = &served.world;
    let books = world.books();
    let root = world.process(&[(BUFFER, 0x1000)]);
    for steps in 0..=ALL_STEPS {
        let mut child = served.process(steps, root);
        assert_eq!(world.books() != books, steps >= 2, "after {steps}");
        child.kill().unwrap();
        child.wait().unwrap();
        world.wait_for(&books);
    }
}

#[test]
fn r33_r65_a_vmm_with_memory_and_a_function_that_is_killed_after_any_step_leaves_nothing() {
    let served = Served::of(World::offering(), Arc::new(AllowedUids::own()));
    let world = &served.world;
    let books = world.books();
    for steps in 0..=7 {
        let mut child = served.process_with_a_function(steps);
        assert_eq!(world.books() != books, steps >= 3, "after {steps}");
        let (tell, told) = mpsc::channel();
        let waits = steps >= 6;
        if waits {
            let pasid = HostPasid::new(77).unwrap();
            let by = Requester::new(Some(pasid.into()));
            let waiter = Box::new(move |response| tell.send(response).unwrap());
            let port = world.function.port();
            port.request_page(by, Iova::new(BUFFER), Access::READ, waiter)
                .unwrap();
            assert!(told.try_recv().is_err());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        world.wait_for(&books);
        assert_eq!(told.try_recv().ok(), waits.then_some(PageResponse::Invalid));
        assert_eq!(world.function.outstanding_page_requests(), 0);
    }
}

#[test]
fn r33_a_client_that_is_killed_while_it_asks_leaves_the_books_as_they_were() {
    let served = Served::new(Arc::new(AllowedUids::own()));
    let world = &served.world;
    let books = world.books();
    let root = world.process(&[(BUFFER, 0x1000)]);
    for round in 0..12 {
        let mut child = served.process(9, root);
        std::thread::sleep(Duration::from_micros(round * 777));
        child.kill().unwrap();
        child.wait().unwrap();
        world.wait_for(&books);
    }
}

#[test]
fn r33_of_two_clients_of_one_vmm_the_last_that_is_killed_takes_all_along() {
    let served = Served::new(Arc::new(AllowedUids::own()));
    let world = &served.world;
    let books = world.books();
    let root = world.process(&[(BUFFER, 0x1000)]);
    let mut first = served.process(1, root);
    let mut second = served.process(5, root);
    first.kill().unwrap();
    first.wait().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_ne!(world.books(), books);
    second.kill().unwrap();
    second.wait().unwrap();
    world.wait_for(&books);
}

#[test]
fn r33_the_end_of_the_server_is_the_end_of_its_clients() {
    let mut served = Served::new(Arc::new(AllowedUids::own()));
    let books = served.world.books();
    let mut client = Client::connect(&served.socket, Abi::V1).unwrap();
    client.set_nesting(Nesting::On).unwrap();
    client.alloc_pasid(PasidRange::ALL).unwrap();
    assert_ne!(served.world.books(), books);
    served.server = None;
    assert_eq!(served.world.books(), books, "it waits for them");
    assert!(client.info().is_err());
}

#[test]
fn r33_who_waits_for_faults_is_told_that_the_connection_has_ended() {
    const LONG: Duration = Duration::from_secs(15);
    let mut served = Served::of(World::offering(), Arc::new(AllowedUids::own()));
    // By the server.
    let mut client = Client::connect(&served.socket, Abi::V7).unwrap();
    let mut faults = client.fault_queue().unwrap();
    assert_eq!(faults.wait(Duration::ZERO).unwrap(), None);
    let begun = Instant::now();
    let waiter = std::thread::spawn(move || faults.wait(LONG));
    std::thread::sleep(Duration::from_millis(20));
    served.server = None;
    let told = waiter.join().unwrap();
    assert!(matches!(told, Err(ClientError::Closed)), "{told:?}");
    assert!(begun.elapsed() < LONG);
    // By the client itself, whatever its queue still holds.
    let (mut client, serving) = served.world.client(Abi::V7);
    let mut faults = client.fault_queue().unwrap();
    drop(client);
    assert_eq!(serving.end(), Ok(()));
    assert!(matches!(faults.wait(LONG), Err(ClientError::Closed)));
    assert!(begun.elapsed() < LONG);
}

#[test]
fn a_stopper_ends_the_server_from_another_thread() {
    let served = Served::new(Arc::new(AllowedUids::own()));
    let stopper = served.server.as_ref().unwrap().stopper();
    let mut client = Client::connect(&served.socket, Abi::V1).unwrap();
    stopper.stop();
    stopper.stop();
    wait_until(|| UnixStream::connect(&served.socket).is_err());
    assert!(client.info().is_err());
}

#[test]
fn users_that_are_not_on_the_list_are_not_served() {
    let own = rustix::process::geteuid().as_raw();
    let served = Served::new(Arc::new(AllowedUids::new(&[own + 1])));
    let mut stream = UnixStream::connect(&served.socket).unwrap();
    assert_eq!(stream.read(&mut [0; 16]).unwrap_or(0), 0, "closed, unread");
    assert!(Client::connect(&served.socket, Abi::V1).is_err());
}

/// Who is let in may be decided otherwise than by a list.
struct ByProcess(i32);

impl Gate for ByProcess {
    fn check(&self, peer: Peer) -> Result<(), NotAllowed> {
        match peer.pid == self.0 {
            true => Ok(()),
            false => Err(NotAllowed(peer)),
        }
    }
}

#[test]
fn who_is_let_in_is_decided_by_a_hook() {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let served = Served::new(Arc::new(ByProcess(own)));
    assert!(Client::connect(&served.socket, Abi::V1).is_ok());
    let served = Served::new(Arc::new(ByProcess(own + 1)));
    assert!(Client::connect(&served.socket, Abi::V1).is_err());
}

#[test]
fn the_sixty_fifth_client_is_not_served_until_one_goes() {
    let served = Served::new(Arc::new(AllowedUids::own()));
    let connect = || Client::connect(&served.socket, Abi::V7);
    let mut clients: Vec<_> = (0..64).map(|_| connect().unwrap()).collect();
    assert!(connect().is_err());
    clients.pop();
    wait_until(|| connect().is_ok());
}
