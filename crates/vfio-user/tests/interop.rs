//! A session with a client that others wrote: the published crate `vfio_user`.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "helpers of tests fail like tests"
)]

mod common;

use std::{
    os::{
        fd::{AsFd, AsRawFd},
        unix::net::UnixListener,
    },
    sync::{Arc, atomic::Ordering},
};

use common::{BAR0_BYTES, FIRE_AT, Toy, VECTORS};
use palisade_memory::{GuestMemory, SharedMemory};
use palisade_units::Gpa;
use palisade_vfio_user::{Connection, End};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

const CONFIG: u32 = 7;
const MSIX: u32 = 2;
/// VFIO_IRQ_SET_DATA_EVENTFD with VFIO_IRQ_SET_ACTION_TRIGGER.
const EVENTFD_TRIGGER: u32 = 4 | 32;

#[test]
fn a_published_client_gets_through_a_session() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let (toy, memory) = (Toy::new(), GuestMemory::new());
    let server = {
        let (toy, memory) = (toy.clone(), memory.clone());
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let connection = Connection::new(stream, toy, Arc::new(memory)).unwrap();
            connection.run()
        })
    };

    let mut client = vfio_user::Client::new(&path).unwrap();
    assert_eq!(client.region(0).unwrap().size, BAR0_BYTES);
    assert_eq!(client.region(CONFIG).unwrap().size, 4096);
    assert_eq!(client.get_irq_info(MSIX).unwrap().count, u32::from(VECTORS));

    let ram = SharedMemory::create("ram", 0x10_0000).unwrap();
    ram.write(0x5000, b"guest").unwrap();
    let backing = ram.backing();
    let fd = backing.fd.as_fd().as_raw_fd();
    client.dma_map(0x4000, 0x8000_0000, 0x4000, fd).unwrap();
    let mut read = [0; 5];
    memory.read(Gpa::new(0x8000_1000), &mut read).unwrap();
    assert_eq!(&read, b"guest");

    client.region_write(0, 0x40, &[1, 2, 3, 4]).unwrap();
    client.region_read(0, 0x40, &mut read[..4]).unwrap();
    assert_eq!(read[..4], [1, 2, 3, 4]);
    client.region_read(CONFIG, 16, &mut read[..4]).unwrap();
    assert_eq!(read[..4], [16, 17, 18, 19]);

    let vector = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    client
        .set_irqs(MSIX, EVENTFD_TRIGGER, 5, 1, &[vector.as_raw_fd()])
        .unwrap();
    client.region_write(0, FIRE_AT, &[5]).unwrap();
    let mut count = [0; 8];
    let limit = Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    poll(&mut [PollFd::new(&vector, PollFlags::IN)], Some(&limit)).unwrap();
    rustix::io::read(&vector, &mut count).unwrap();
    assert_eq!(u64::from_ne_bytes(count), 1);

    client.dma_unmap(0x8000_0000, 0x4000).unwrap();
    assert!(memory.read(Gpa::new(0x8000_1000), &mut read).is_err());
    client.reset().unwrap();
    assert_eq!(toy.resets.load(Ordering::Relaxed), 1);
    client.shutdown().unwrap();
    assert_eq!(server.join().unwrap().unwrap(), End::PeerClosed);
}
