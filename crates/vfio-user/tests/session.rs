//! What a well-behaved client gets.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of tests fail like tests"
)]

mod common;

use std::{
    io::Read,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::Ordering,
    time::Duration,
};

use common::{BAR0_BYTES, BAR2_BYTES, FIRE_AT, Server, Toy, VECTORS, raw::negotiated};
use palisade_memory::{Protection, SharedMemory};
use palisade_pci::Bar;
use palisade_units::Gpa;
use palisade_vfio_user::{
    Client, ClientError, End, Errno, IrqIndex, PeerGone, Region,
    wire::{DEVICE_IS_PCI, DEVICE_RESETS, IRQ_IS_EVENTFD, REGION_READS, REGION_WRITES},
};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

const BAR0: Region = Region::Bar(Bar::Bar0);
const BAR2: Region = Region::Bar(Bar::Bar2);

fn eventfds(count: usize) -> Vec<OwnedFd> {
    (0..count)
        .map(|_| eventfd(0, EventfdFlags::empty()).unwrap())
        .collect()
}

fn borrowed(eventfds: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    eventfds.iter().map(AsFd::as_fd).collect()
}

/// Waits for an interrupt. They come in the order in which they were raised.
fn arrives(eventfd: &OwnedFd) -> bool {
    let limit = Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(eventfd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&limit)), Ok(1)) && count_of(eventfd) > 0
}

/// The count of an eventfd; 0 where nobody signalled.
fn count_of(eventfd: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    match rustix::io::read(eventfd, &mut count) {
        Ok(_) => u64::from_ne_bytes(count),
        Err(Errno::AGAIN) => 0,
        Err(errno) => panic!("{errno}"),
    }
}

#[test]
fn the_server_answers_what_qemu_asks_at_start() {
    let (server, mut client) = Server::with_client();
    let said = client.server();
    assert_eq!(said.minor, 0, "minor 1 is refused by QEMU");
    assert_eq!(said.capabilities.max_descriptors, 16);
    assert_eq!(said.capabilities.page_sizes, 4096);
    assert!(said.capabilities.write_multi);

    let info = client.device_info().unwrap();
    assert_eq!(info.argsz.get(), 16);
    assert_eq!(info.flags.get(), DEVICE_RESETS | DEVICE_IS_PCI);
    assert_eq!((info.regions.get(), info.irqs.get()), (9, 5));

    let sizes: Vec<u64> = (0..9)
        .map(|index| {
            let region = Region::from_index(index).unwrap();
            let info = client.region_info(region).unwrap();
            let there = info.flags == REGION_READS | REGION_WRITES;
            assert_eq!(there, info.len_bytes > 0);
            info.len_bytes
        })
        .collect();
    assert_eq!(sizes, [BAR0_BYTES, 0, BAR2_BYTES, 0, 0, 0, 0, 4096, 0]);

    let msix = client.irq_info(IrqIndex::Msix).unwrap();
    assert_eq!((msix.count, msix.flags), (VECTORS.into(), IRQ_IS_EVENTFD));
    assert_eq!(client.irq_info(IrqIndex::Intx).unwrap().count, 0);

    drop(client);
    assert_eq!(server.end().unwrap(), End::PeerClosed);
}

#[test]
fn registers_and_configuration_space_are_read_and_written() {
    let (server, mut client) = Server::with_client();
    client.region_write(BAR0, 0x100, &[1, 2, 3, 4]).unwrap();
    let mut read = [0; 6];
    client.region_read(BAR0, 0xff, &mut read).unwrap();
    assert_eq!(read, [0, 1, 2, 3, 4, 0]);

    client.region_write(Region::Config, 4092, &[9; 4]).unwrap();
    let mut space = vec![0; 4096];
    client.region_read(Region::Config, 0, &mut space).unwrap();
    assert_eq!(&space[4090..], [74, 75, 9, 9, 9, 9]);

    client.reset().unwrap();
    assert_eq!(server.toy.resets.load(Ordering::Relaxed), 1);
    client.region_read(BAR0, 0xff, &mut read).unwrap();
    assert_eq!(read, [0; 6]);
}

#[test]
fn what_cannot_be_is_refused_and_the_session_goes_on() {
    let (_server, mut client) = Server::with_client();
    let mut byte = [0];
    let mut refused = |region, offset, len: usize| {
        let mut buffer = vec![0; len];
        let read = client.region_read(region, offset, &mut buffer);
        let write = client.region_write(region, offset, &buffer);
        (read.unwrap_err().errno(), write.unwrap_err().errno())
    };
    let both = (Some(Errno::INVAL), Some(Errno::INVAL));
    assert_eq!(refused(BAR0, BAR0_BYTES, 1), both);
    assert_eq!(refused(BAR0, BAR0_BYTES - 4, 8), both);
    assert_eq!(refused(BAR0, u64::MAX, 8), both);
    assert_eq!(refused(Region::Config, 4095, 2), both);
    assert_eq!(refused(Region::Config, 0x1_0000, 1), both);
    assert_eq!(refused(Region::Rom, 0, 1), both);
    assert_eq!(refused(Region::Vga, 0, 1), both);
    assert_eq!(refused(Region::Bar(Bar::Bar1), 0, 1), both);
    let odd = client.region_write(BAR2, 0, &[0; 4]).unwrap_err();
    assert_eq!(
        odd.errno(),
        Some(Errno::INVAL),
        "the function's own refusal"
    );
    client.region_read(BAR0, 0, &mut byte).unwrap();
}

#[test]
fn memory_is_mapped_from_descriptors_and_taken_back() {
    let (server, mut client) = Server::with_client();
    let ram = SharedMemory::create("ram", 0x4000).unwrap();
    ram.write(0x2000, b"guest").unwrap();
    let mut part = ram.backing();
    part.offset_bytes = 0x2000;
    client
        .dma_map(Gpa::new(0x10_0000), 0x2000, &part, Protection::ReadWrite)
        .unwrap();
    client
        .dma_map(Gpa::new(0), 0x1000, &ram.backing(), Protection::ReadOnly)
        .unwrap();
    client
        .dma_announce(Gpa::new(0xc_0000), 0x2_0000, Protection::ReadOnly)
        .unwrap();

    let mut read = [0; 5];
    server.memory.read(Gpa::new(0x10_0000), &mut read).unwrap();
    assert_eq!(&read, b"guest");
    server.memory.write(Gpa::new(0x10_0000), b"hello").unwrap();
    ram.read(0x2000, &mut read).unwrap();
    assert_eq!(&read, b"hello");
    assert!(server.memory.write(Gpa::new(0), b"x").is_err());
    assert!(server.memory.read(Gpa::new(0xc_0000), &mut read).is_err());

    let again = client.dma_map(Gpa::new(0x10_1000), 0x1000, &part, Protection::ReadWrite);
    assert_eq!(again.unwrap_err().errno(), Some(Errno::EXIST));
    let half = client.dma_unmap(Gpa::new(0x10_0000), 0x1000);
    assert_eq!(half.unwrap_err().errno(), Some(Errno::INVAL));
    client.dma_unmap(Gpa::new(0xc_0000), 0x2_0000).unwrap();
    client.dma_unmap(Gpa::new(0x10_0000), 0x2000).unwrap();
    assert!(server.memory.read(Gpa::new(0x10_0000), &mut read).is_err());
    client.dma_unmap_all().unwrap();
    assert!(server.memory.read(Gpa::new(0), &mut read).is_err());
    let gone = client.dma_unmap(Gpa::new(0), 0x1000);
    assert_eq!(gone.unwrap_err().errno(), Some(Errno::NOENT));
}

#[test]
fn maps_that_the_host_refuses_are_not_remembered() {
    let (_server, mut client) = Server::with_client();
    let ram = SharedMemory::create("short", 0x1000).unwrap();
    for _ in 0..2 {
        let beyond = client.dma_map(Gpa::new(0), 0x2000, &ram.backing(), Protection::ReadOnly);
        assert_ne!(beyond.unwrap_err().errno(), Some(Errno::EXIST));
    }
    client
        .dma_map(Gpa::new(0), 0x1000, &ram.backing(), Protection::ReadOnly)
        .unwrap();
}

#[test]
fn the_end_of_a_connection_leaves_its_memory_to_the_owner() {
    let (server, mut client) = Server::with_client();
    let ram = SharedMemory::create("ram", 0x1000).unwrap();
    client
        .dma_map(Gpa::new(0), 0x1000, &ram.backing(), Protection::ReadOnly)
        .unwrap();
    client.set_irqs(0, &borrowed(&eventfds(2))).unwrap();
    assert_eq!(server.toy.connected_vectors(), 2);
    let (memory, toy, peer) = (
        server.memory.clone(),
        server.toy.clone(),
        server.peer.clone(),
    );
    drop(client);
    assert_eq!(server.end().unwrap(), End::PeerClosed);
    assert_eq!(toy.connected_vectors(), 0);
    assert_eq!(peer.write_memory(Gpa::new(0), &[1]), Err(PeerGone));
    memory.read(Gpa::new(0), &mut [0]).unwrap();
}

#[test]
fn vectors_are_connected_replaced_fired_and_disconnected() {
    let (server, mut client) = Server::with_client();
    let first = eventfds(16);
    client.set_irqs(0, &borrowed(&first)).unwrap();
    let rest = eventfds(8);
    client.set_irqs(16, &borrowed(&rest)).unwrap();
    assert_eq!(server.toy.connected_vectors(), 24);

    client.region_write(BAR0, FIRE_AT, &[3]).unwrap();
    assert!(arrives(&first[3]));
    client.region_write(BAR0, FIRE_AT, &[17]).unwrap();
    assert!(arrives(&rest[1]));
    client.trigger_irqs(2, 2).unwrap();
    assert!(arrives(&first[3]) && arrives(&first[2]));
    let counts: Vec<u64> = first.iter().take(5).map(count_of).collect();
    assert_eq!(counts, [0; 5], "nobody fired the others");

    let other = eventfds(1);
    client.set_irqs(3, &borrowed(&other)).unwrap();
    client.region_write(BAR0, FIRE_AT, &[3]).unwrap();
    assert!(arrives(&other[0]));
    assert_eq!(count_of(&first[3]), 0);

    client.clear_irqs(3, 1).unwrap();
    assert_eq!(server.toy.connected_vectors(), 23);
    client.region_write(BAR0, FIRE_AT, &[3]).unwrap();
    client.region_write(BAR0, FIRE_AT, &[17]).unwrap();
    assert!(arrives(&rest[1]));
    assert_eq!(count_of(&other[0]), 0);
    client.disable_irqs().unwrap();
    assert_eq!(server.toy.connected_vectors(), 0);

    let beyond = client.set_irqs(23, &borrowed(&eventfds(2)));
    assert_eq!(beyond.unwrap_err().errno(), Some(Errno::INVAL));
    let many = client.set_irqs(0, &borrowed(&eventfds(17)));
    assert!(matches!(many, Err(ClientError::TooManyDescriptors(17, 16))));
}

#[test]
fn an_eventfd_that_is_full_or_none_at_all_does_no_harm() {
    let (server, mut client) = Server::with_client();
    let full = eventfds(1);
    rustix::io::write(&full[0], &(u64::MAX - 1).to_ne_bytes()).unwrap();
    client.set_irqs(0, &borrowed(&full)).unwrap();
    client.region_write(BAR0, FIRE_AT, &[0]).unwrap();
    server.toy.fire(0);

    let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let (reader, writer) = std::io::pipe().unwrap();
    for wrong in [file, reader.into(), writer.into()] {
        let good = eventfds(1);
        let refused = client.set_irqs(1, &[good[0].as_fd(), wrong.as_fd()]);
        assert_eq!(refused.unwrap_err().errno(), Some(Errno::INVAL));
    }
    assert_eq!(server.toy.connected_vectors(), 1);
}

#[test]
fn posted_writes_and_queued_reads_keep_their_order() {
    let (server, mut client) = Server::with_client();
    let mut tickets = Vec::new();
    for n in 0..5000_u32 {
        client.post_write(BAR0, 8, &n.to_le_bytes()).unwrap();
        client.post_write(BAR2, 0, &1_u64.to_le_bytes()).unwrap();
        tickets.push(client.queue_read(BAR0, 8, 4).unwrap());
    }
    // Taken out of order, all is still there.
    for (n, ticket) in (0..5000_u32).zip(tickets).rev() {
        assert_eq!(client.take(ticket).unwrap(), n.to_le_bytes());
    }
    assert_eq!(server.toy.written.load(Ordering::Relaxed), 5000);
    // A refusal of what was posted is not answered: the next answer is that of the read.
    client.post_write(BAR0, BAR0_BYTES, &[0]).unwrap();
    client.region_read(BAR0, 8, &mut [0; 4]).unwrap();
}

#[test]
fn two_full_sockets_do_not_wait_for_each_other() {
    let (server, mut client) = Server::with_client();
    let mut tickets = Vec::new();
    // Far more than both sockets hold, in both directions, and nothing taken in between.
    for n in 0..200_u64 {
        tickets.push(client.queue_read(BAR2, 0, 60_000).unwrap());
        client.post_write(BAR2, 8 * n, &[0; 60_000]).unwrap();
        server.peer.write_memory(Gpa::new(n), &[7; 64]).unwrap();
    }
    for ticket in tickets {
        assert_eq!(client.take(ticket).unwrap(), [0x5a; 60_000]);
    }
    let mut next = 0;
    while next < 200 {
        client
            .poll_messages(|write| {
                assert_eq!((write.at, write.data), (Gpa::new(next), &[7; 64][..]));
                next += 1;
            })
            .unwrap();
    }
}

#[test]
fn the_server_writes_into_memory_from_any_thread() {
    let (server, stream) = Server::start();
    // Before the version is agreed, requests to the peer wait.
    server
        .peer
        .write_memory(Gpa::new(0xfee0_0000), &[1, 0, 0, 0])
        .unwrap();
    let mut client = Client::from_stream(stream).unwrap();
    let threads: Vec<_> = (1..4_u64)
        .map(|thread| {
            let peer = server.peer.clone();
            std::thread::spawn(move || {
                for n in 0..1000_u64 {
                    peer.write_memory(Gpa::new(thread << 32 | n), &n.to_le_bytes())
                        .unwrap();
                }
            })
        })
        .collect();
    let mut first = None;
    let mut next = [0_u64; 4];
    let mut total = 0;
    while total < 3001 {
        client.wait_messages(Duration::from_secs(10)).unwrap();
        client.region_write(BAR0, 0, &[0; 8]).unwrap();
        let polled = client.poll_messages(|write| {
            if write.at == Gpa::new(0xfee0_0000) {
                first = Some(write.data.to_vec());
                return;
            }
            let thread = (write.at.get() >> 32) as usize;
            assert_eq!(write.at.get() & 0xffff_ffff, next[thread]);
            assert_eq!(write.data, next[thread].to_le_bytes());
            next[thread] += 1;
        });
        total += polled.unwrap();
    }
    assert_eq!(first, Some(vec![1, 0, 0, 0]));
    assert_eq!(next, [0, 1000, 1000, 1000]);
    for thread in threads {
        thread.join().unwrap();
    }
    // The server has taken note of all answers: one more round trip works.
    client.region_read(BAR0, 0, &mut [0; 8]).unwrap();
}

#[test]
fn writes_that_wait_are_sent_to_a_peer_that_only_reads() {
    const WRITES: u64 = 200;
    const FRAME_BYTES: usize = 16 + 16 + 4096;
    let (server, mut stream) = negotiated();
    let write = |n: u64| {
        server
            .peer
            .write_memory(Gpa::new(n << 12), &[n as u8; 4096])
    };
    for round in 0..2 {
        // More than the socket holds.
        (0..WRITES).for_each(|n| write(n).unwrap());
        let mut frame = [0; FRAME_BYTES];
        let limit = Some(Duration::from_secs(10));
        stream.set_read_timeout(limit).unwrap();
        for n in 0..WRITES {
            stream.read_exact(&mut frame).unwrap();
            assert_eq!(frame[16..24], (n << 12).to_ne_bytes(), "round {round}");
            assert_eq!(frame[32..], [n as u8; 4096]);
        }
    }
    server.peer.stop();
    assert_eq!(server.end().unwrap(), End::Stopped);
}

#[test]
fn a_connection_is_stopped_while_it_sleeps_and_while_it_is_busy() {
    let (server, client) = Server::with_client();
    let peer = server.peer.clone();
    peer.stop();
    assert_eq!(server.end().unwrap(), End::Stopped);
    drop(client);

    let toy = Toy::new();
    let (server, stream) = Server::serve(toy.clone());
    let busy = std::thread::spawn(move || {
        let mut client = Client::from_stream(stream).unwrap();
        loop {
            if let Err(error) = client.region_write(BAR2, 0, &1_u64.to_le_bytes()) {
                return error;
            }
        }
    });
    while toy.written.load(Ordering::Relaxed) < 100 {
        std::thread::yield_now();
    }
    server.peer.stop();
    assert_eq!(server.end().unwrap(), End::Stopped);
    assert!(matches!(busy.join().unwrap(), ClientError::Closed));
}
