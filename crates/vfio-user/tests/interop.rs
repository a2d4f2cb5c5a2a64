//! Sessions with a client that others wrote: the published crate `vfio_user`, over a socket in a folder.
//!
//! It speaks a revision before migration and takes no errors: what is refused with a reply of its usual length looks
//! to it as if it was done.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "helpers of tests fail like tests"
)]

mod common;

use std::{
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
};

use common::{BAR0_BYTES, BAR2_BYTES, FIRE_AT, Toy, VECTORS};
use palisade_memory::{GuestMemory, SharedMemory};
use palisade_units::Gpa;
use palisade_vfio_user::{Connection, ConnectionError, End};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tempfile::TempDir;
use vfio_user::Client;

const BAR0: u32 = 0;
const BAR2: u32 = 2;
const CONFIG: u32 = 7;
const MSIX: u32 = 2;

const READ_AND_WRITE: u32 = 1 | 2;

const DATA_NONE: u32 = 1;
const DATA_EVENTFD: u32 = 4;
const TRIGGER: u32 = 32;

/// Where a session's memory is for the device, and how much.
const RAM_AT: u64 = 0x8000_0000;
const RAM_BYTES: u64 = 0x4000;

/// A server at a socket, for one session after the other.
struct Host {
    path: PathBuf,
    toy: Arc<Toy>,
    memory: GuestMemory,
    thread: JoinHandle<Vec<Result<End, ConnectionError>>>,
    _folder: TempDir,
}

impl Host {
    fn of_sessions(sessions: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let (toy, memory) = (Toy::new(), GuestMemory::new());
        let thread = std::thread::spawn({
            let (toy, memory) = (toy.clone(), memory.clone());
            move || {
                let mut ends = Vec::new();
                for _ in 0..sessions {
                    let (stream, _) = listener.accept().unwrap();
                    let space = Arc::new(memory.clone());
                    let connection = Connection::new(stream, toy.clone(), space).unwrap();
                    ends.push(connection.run());
                    memory.unmap_all();
                }
                ends
            }
        });
        Self {
            path,
            toy,
            memory,
            thread,
            _folder: folder,
        }
    }

    fn client(&self) -> Client {
        Client::new(&self.path).unwrap()
    }

    /// All sessions have ended because their clients went.
    fn ends_well(self) {
        for end in self.thread.join().unwrap() {
            assert_eq!(end.unwrap(), End::PeerClosed);
        }
    }
}

fn counter() -> OwnedFd {
    eventfd(0, EventfdFlags::NONBLOCK).unwrap()
}

/// Waits for an interrupt, and says how many there were.
fn arrived(vector: &OwnedFd) -> u64 {
    let limit = Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    poll(&mut [PollFd::new(vector, PollFlags::IN)], Some(&limit)).unwrap();
    let mut count = [0; 8];
    rustix::io::read(vector, &mut count).unwrap();
    u64::from_ne_bytes(count)
}

fn connect(client: &mut Client, first: u32, vectors: &[&OwnedFd]) {
    let fds: Vec<_> = vectors.iter().map(|it| it.as_raw_fd()).collect();
    let count = vectors.len() as u32;
    let flags = DATA_EVENTFD | TRIGGER;
    client.set_irqs(MSIX, flags, first, count, &fds).unwrap();
}

/// What the client asks before anything else, and what it makes of the answers.
fn looks_around(client: &mut Client) {
    for index in 0..9 {
        let region = client.region(index).unwrap();
        let size = match index {
            BAR0 => BAR0_BYTES,
            BAR2 => BAR2_BYTES,
            CONFIG => 4096,
            _ => 0,
        };
        let flags = if size == 0 { 0 } else { READ_AND_WRITE };
        assert_eq!((region.index, region.size), (index, size));
        assert_eq!(region.flags, flags);
        assert!(region.file_offset.is_none() && region.sparse_areas.is_empty());
    }
    assert!(client.region(9).is_none());
    for index in 0..5 {
        let info = client.get_irq_info(index).unwrap();
        let there = index == MSIX;
        let count = if there { u32::from(VECTORS) } else { 0 };
        let eventfd = u32::from(there);
        assert_eq!(
            (info.index, info.flags, info.count),
            (index, eventfd, count)
        );
    }
}

/// Registers of each size, a long access, and configuration space.
fn reads_and_writes(client: &mut Client, toy: &Toy) {
    let data: Vec<u8> = (1..=64).collect();
    for len in [1, 2, 4, 8, 64] {
        let mut read = vec![0; len];
        client.region_write(BAR0, 0x40, &data[..len]).unwrap();
        client.region_read(BAR0, 0x40, &mut read).unwrap();
        assert_eq!(read, data[..len]);
    }
    for n in 1..=10_u64 {
        client.region_write(BAR2, 0, &n.to_le_bytes()).unwrap();
    }
    assert_eq!(toy.written.load(Ordering::Relaxed), 55);
    let mut space = vec![0; 4096];
    client.region_read(CONFIG, 0, &mut space).unwrap();
    assert_eq!(space[16..20], [16, 17, 18, 19]);
    client.region_write(CONFIG, 4092, &[9; 4]).unwrap();
    client.region_read(CONFIG, 4090, &mut space[..6]).unwrap();
    assert_eq!(space[..6], [74, 75, 9, 9, 9, 9]);
}

/// The device sees what the client has in memory, and the other way round, for as long as it is mapped.
fn shares_memory(client: &mut Client, memory: &GuestMemory) {
    let ram = SharedMemory::create("ram", 0x10_0000).unwrap();
    ram.write(0x5000, b"guest").unwrap();
    let backing = ram.backing();
    let fd = backing.fd.as_fd().as_raw_fd();
    client.dma_map(0x4000, RAM_AT, RAM_BYTES, fd).unwrap();
    let (at, mut read) = (Gpa::new(RAM_AT + 0x1000), [0; 5]);
    memory.read(at, &mut read).unwrap();
    assert_eq!(&read, b"guest");
    memory.write(at, b"hosts").unwrap();
    ram.read(0x5000, &mut read).unwrap();
    assert_eq!(&read, b"hosts");

    // Refused, since it overlaps; the answer has the usual length.
    client.dma_map(0, RAM_AT + 0x2000, 0x8000, fd).unwrap();
    let beyond = Gpa::new(RAM_AT + RAM_BYTES);
    assert!(memory.read(beyond, &mut read).is_err());

    client.dma_map(0, 0x1_0000_0000, 0x1000, fd).unwrap();
    client.dma_unmap(RAM_AT, RAM_BYTES).unwrap();
    assert!(memory.read(at, &mut read).is_err());
    memory.read(Gpa::new(0x1_0000_0000), &mut read).unwrap();
    client.dma_map(0x4000, RAM_AT, RAM_BYTES, fd).unwrap();
    memory.read(at, &mut read).unwrap();
    assert_eq!(&read, b"hosts");
}

/// Connected by eventfds, fired by the device and by the client, replaced, and disconnected.
fn takes_interrupts(client: &mut Client, toy: &Toy) {
    let vectors: Vec<OwnedFd> = (0..VECTORS).map(|_| counter()).collect();
    let all: Vec<&OwnedFd> = vectors.iter().collect();
    connect(client, 0, &all[..16]);
    connect(client, 16, &all[16..]);
    assert_eq!(toy.connected_vectors(), usize::from(VECTORS));
    for vector in [5, 17, 23_u8] {
        client.region_write(BAR0, FIRE_AT, &[vector]).unwrap();
        assert_eq!(arrived(&vectors[usize::from(vector)]), 1);
    }
    let flags = DATA_NONE | TRIGGER;
    client.set_irqs(MSIX, flags, 6, 1, &[]).unwrap();
    assert_eq!(arrived(&vectors[6]), 1);

    let other = counter();
    connect(client, 5, &[&other]);
    client.region_write(BAR0, FIRE_AT, &[5]).unwrap();
    assert_eq!(arrived(&other), 1);
    let old = rustix::io::read(&vectors[5], &mut [0; 8]);
    assert!(old.is_err(), "nothing there");

    client.set_irqs(MSIX, flags, 0, 0, &[]).unwrap();
    assert_eq!(toy.connected_vectors(), 0);
    client.region_write(BAR0, FIRE_AT, &[5]).unwrap();
}

#[test]
fn a_published_client_gets_through_a_session() {
    let host = Host::of_sessions(1);
    let mut client = host.client();
    looks_around(&mut client);
    shares_memory(&mut client, &host.memory);
    reads_and_writes(&mut client, &host.toy);
    takes_interrupts(&mut client, &host.toy);

    client.reset().unwrap();
    assert_eq!(host.toy.resets.load(Ordering::Relaxed), 1);
    let mut read = [0; 8];
    client.region_read(BAR0, 0x40, &mut read).unwrap();
    assert_eq!(read, [0; 8]);
    // A reset of the device takes nothing from its peer's memory.
    host.memory.read(Gpa::new(RAM_AT), &mut read).unwrap();
    client.shutdown().unwrap();
    host.ends_well();
}

#[test]
fn a_session_after_another_begins_anew() {
    let host = Host::of_sessions(2);
    let vector = counter();
    let mut client = host.client();
    connect(&mut client, 5, &[&vector]);
    shares_memory(&mut client, &host.memory);
    // It dies with all it had set up.
    drop(client);

    let mut client = host.client();
    assert_eq!(host.toy.connected_vectors(), 0);
    assert!(host.memory.read(Gpa::new(RAM_AT), &mut [0]).is_err());
    looks_around(&mut client);
    shares_memory(&mut client, &host.memory);
    takes_interrupts(&mut client, &host.toy);
    drop(client);
    host.ends_well();
}
