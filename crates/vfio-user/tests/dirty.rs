//! Which pages a function has written.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of tests fail like tests"
)]

mod common;

use common::Server;
use palisade_memory::{Protection, SharedMemory};
use palisade_units::Gpa;
use palisade_vfio_user::{Client, ClientError, Errno};

const AT: Gpa = Gpa::new(0x10_0000);
const RAM_BYTES: u64 = 0x20_0000;

fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Errno {
    result.unwrap_err().errno().unwrap()
}

fn with_memory() -> (Server, Client, SharedMemory) {
    let (server, mut client) = Server::with_client();
    let ram = SharedMemory::create("ram", RAM_BYTES).unwrap();
    client
        .dma_map(AT, RAM_BYTES, &ram.backing(), Protection::ReadWrite)
        .unwrap();
    (server, client, ram)
}

fn at(offset: u64) -> Gpa {
    Gpa::new(AT.get() + offset)
}

#[test]
fn pages_are_told_once_each_time_they_are_written() {
    let (server, mut client, _ram) = with_memory();
    server.memory.write(at(0), &[1]).unwrap();
    assert_eq!(refused(client.dirty_pages(AT, RAM_BYTES)), Errno::INVAL);
    assert_eq!(client.start_dma_logging(4096, &[]).unwrap(), 4096);
    assert_eq!(client.dirty_pages(AT, RAM_BYTES).unwrap(), []);
    for _ in 0..2 {
        server.memory.write(at(0x1fff), &[1, 2]).unwrap();
        server.memory.store_u64(at(RAM_BYTES - 8), 1).unwrap();
        let written = [at(0x1000), at(0x2000), at(RAM_BYTES - 0x1000)];
        assert_eq!(client.dirty_pages(AT, RAM_BYTES).unwrap(), written);
        assert_eq!(client.dirty_pages(AT, RAM_BYTES).unwrap(), []);
    }
    // Only what is asked for is taken out.
    server.memory.write(at(0x1fff), &[1, 2]).unwrap();
    assert_eq!(
        client.dirty_pages(at(0x2000), 0x1000).unwrap(),
        [at(0x2000)]
    );
    assert_eq!(client.dirty_pages(AT, RAM_BYTES).unwrap(), [at(0x1000)]);
    // The device's own reads are nothing to copy.
    server.memory.read(at(0), &mut [0; 64]).unwrap();
    assert_eq!(client.dirty_pages(AT, RAM_BYTES).unwrap(), []);

    client.stop_dma_logging().unwrap();
    client.stop_dma_logging().unwrap();
    assert_eq!(refused(client.dirty_pages(AT, RAM_BYTES)), Errno::INVAL);
}

#[test]
fn any_range_is_told_however_much_of_it_is_memory() {
    let (server, mut client, _ram) = with_memory();
    client.start_dma_logging(4096, &[]).unwrap();
    server.memory.store_u64(at(0x5000), 1).unwrap();
    let whole = 3 * (64 << 10) * 8 * 4096 + 0x7000;
    assert_eq!(
        client.dirty_pages(Gpa::new(0), whole).unwrap(),
        [at(0x5000)]
    );
    for (start, len) in [(0, 0), (1, 0x1000), (0, 0x1001)] {
        let no_range = client.dirty_pages(Gpa::new(start), len);
        assert_eq!(refused(no_range), Errno::INVAL);
    }
    let past_the_end = client.dirty_pages(Gpa::new(u64::MAX - 0xfff), 0x2000);
    assert_eq!(refused(past_the_end), Errno::OVERFLOW);
}

#[test]
fn memory_that_comes_and_goes_is_logged_too() {
    let (server, mut client, ram) = with_memory();
    client.start_dma_logging(4096, &[]).unwrap();
    server.memory.store_u64(at(0x3000), 1).unwrap();
    client.dma_unmap(AT, RAM_BYTES).unwrap();
    assert_eq!(client.dirty_pages(AT, RAM_BYTES).unwrap(), [at(0x3000)]);
    let high = Gpa::new(1 << 40);
    client
        .dma_map(high, RAM_BYTES, &ram.backing(), Protection::ReadWrite)
        .unwrap();
    server.memory.store_u64(high, 1).unwrap();
    assert_eq!(client.dirty_pages(high, 0x1000).unwrap(), [high]);
}

#[test]
fn a_log_ends_with_its_peer() {
    let (server, mut client, ram) = with_memory();
    client.start_dma_logging(4096, &[]).unwrap();
    assert_eq!(refused(client.start_dma_logging(4096, &[])), Errno::INVAL);
    let memory = server.memory.clone();
    drop(client);
    server.end().unwrap();
    memory.start_dirty_log().unwrap();
    drop(ram);
}

#[test]
fn ranges_that_make_no_sense_are_refused() {
    let (_server, mut client, _ram) = with_memory();
    let mut start = |page_bytes, ranges: &[(u64, u64)]| {
        let ranges: Vec<_> = ranges
            .iter()
            .map(|(at, len)| (Gpa::new(*at), *len))
            .collect();
        let started = client.start_dma_logging(page_bytes, &ranges);
        let started = started.map_err(|error| error.errno().unwrap());
        if started.is_ok() {
            client.stop_dma_logging().unwrap();
        }
        started
    };
    // A size that is wished is a hint.
    for page_bytes in [1, 512, 4096, 1 << 21, 1 << 63] {
        assert_eq!(start(page_bytes, &[]), Ok(4096));
    }
    for page_bytes in [0, 3, 4097] {
        assert_eq!(start(page_bytes, &[]), Err(Errno::INVAL));
    }
    let many: Vec<_> = (0..256).map(|n| (n << 13, 0x1000)).collect();
    assert_eq!(start(4096, &many), Ok(4096));
    let more: Vec<_> = (0..257).map(|n| (n << 13, 0x1000)).collect();
    assert_eq!(start(4096, &more), Err(Errno::TOOBIG));
    assert_eq!(start(4096, &[(0x2000, 0x1000), (0, 0x2000)]), Ok(4096));
    assert_eq!(start(4096, &[(u64::MAX - 4095, 4096)]), Ok(4096));
    for (ranges, errno) in [
        (&[(0, 0)][..], Errno::INVAL),
        (&[(8, 4096)], Errno::INVAL),
        (&[(0, 4097)], Errno::INVAL),
        (&[(0x1000, 0x1000), (0, 0x2000)], Errno::INVAL),
        (&[(u64::MAX - 4095, 8192)], Errno::OVERFLOW),
    ] {
        assert_eq!(start(4096, ranges), Err(errno), "{ranges:x?}");
    }
    assert_eq!(start(1 << 21, &[(0x1000, 1 << 21)]), Err(Errno::INVAL));
}
