//! Reaching the memory that a peer has announced.

use std::{os::fd::AsFd, sync::Arc};

use palisade_memory::{GuestMemory, SharedMemory};
use palisade_units::Gpa;
use palisade_vfio_user::{Errno, wire::Command};

use crate::{
    case::{Case, File, differs, none, same},
    common::Toy,
    peer::{Peer, longs, words},
};

const LISTS: &str =
    "memory is read and written by address: there are no lists to be taken and put back";

const GET_PUT: &[Case] = &[
    none(
        "test_dma_sg_size",
        "the size of a list's entry in Python and in C",
        LISTS,
    ),
    differs(
        "test_sgl_get_with_invalid_region",
        "a list of memory that was not announced: EINVAL",
        "memory_that_was_not_announced_is_out_of_reach",
        "an error of the access, which names the address",
    ),
    differs(
        "test_sgl_get_without_fd",
        "a list of a range without a descriptor: EFAULT",
        "a_range_without_a_descriptor_is_out_of_reach",
        "an error of the access, which names the address",
    ),
    same(
        "test_get_multiple_sge",
        "an access over three ranges that follow each other",
        "an_access_may_go_over_several_ranges",
    ),
    none("test_sgl_put", "a list of three entries is put back", LISTS),
];

const NO_MESSAGES: &str =
    "a server that has no descriptor of a range does not ask its peer for what is in it";

const READ_WRITE: &[Case] = &[
    differs(
        "test_dma_read_write",
        "64 bytes go out and come back: without a descriptor by messages, with MMAP by mapping, with FILE_IO by the descriptor",
        "a_descriptor_is_mapped_or_refused",
        "a descriptor is mapped, with the flag and without; FILE_IO is ENOTSUP; without a descriptor nothing is reached",
    ),
    same(
        "test_dma_read_write_large",
        "two pages and 42 bytes go out and come back",
        "an_access_may_go_over_several_ranges",
    ),
    differs(
        "test_dma_read_write_error",
        "a peer that answers DMA_READ with EIO: the read fails with EIO",
        "a_refused_write_into_memory_is_an_answer_too",
        "DMA_READ is not sent; DMA_WRITE is, for an interrupt, and its refusal is taken note of",
    ),
    none(
        "test_dma_read_write_bad_flags",
        "an access with flags that do not exist: EINVAL",
        NO_MESSAGES,
    ),
    none(
        "test_dma_read_write_bad_sg_count",
        "an access by messages to two entries of a list: ENOTSUP",
        NO_MESSAGES,
    ),
];

pub(crate) const FILES: [File; 2] = [
    File {
        name: "test_sgl_get_put.py",
        cases: GET_PUT,
    },
    File {
        name: "test_sgl_read_write.py",
        cases: READ_WRITE,
    },
];

const PAGE: u64 = 0x1000;
const READ_AND_WRITE: u32 = 1 | 2;
const MMAP: u32 = 4;
const FILE_IO: u32 = 8;

fn map(flags: u32, at: u64, len: u64) -> Vec<u8> {
    [words(&[32, READ_AND_WRITE | flags]), longs(&[0, at, len])].concat()
}

fn peer_and_memory() -> (Peer, GuestMemory) {
    let memory = GuestMemory::new();
    (Peer::of(Toy::new(), Arc::new(memory.clone())), memory)
}

#[test]
fn memory_that_was_not_announced_is_out_of_reach() {
    let (_peer, memory) = peer_and_memory();
    assert!(memory.read(Gpa::new(PAGE), &mut [0; 8]).is_err());
    assert!(memory.write(Gpa::new(PAGE), &[0; 8]).is_err());
}

#[test]
fn a_range_without_a_descriptor_is_out_of_reach() {
    let (mut peer, memory) = peer_and_memory();
    peer.ask(Command::DmaMap, &map(0, PAGE, PAGE)).unwrap();
    assert!(memory.read(Gpa::new(PAGE), &mut [0; 8]).is_err());
    assert!(memory.write(Gpa::new(PAGE), &[0; 8]).is_err());
}

#[test]
fn an_access_may_go_over_several_ranges() {
    let (mut peer, memory) = peer_and_memory();
    let files: Vec<_> = (1..4)
        .map(|n| {
            let file = SharedMemory::create("ram", PAGE).unwrap();
            let backing = file.backing();
            let request = map(0, n * PAGE, PAGE);
            peer.ask_with(Command::DmaMap, &request, &[backing.fd.as_fd()])
                .unwrap();
            file
        })
        .collect();
    let data: Vec<u8> = (0..2 * PAGE + 42).map(|n| (n % 251) as u8).collect();
    memory.write(Gpa::new(PAGE), &data).unwrap();
    let mut read = vec![0; data.len()];
    memory.read(Gpa::new(PAGE), &mut read).unwrap();
    assert_eq!(read, data);
    let mut tail = [0; 42];
    files[2].read(0, &mut tail).unwrap();
    assert_eq!(tail, data[2 * PAGE as usize..]);
}

#[test]
fn a_descriptor_is_mapped_or_refused() {
    for flags in [0, MMAP] {
        let (mut peer, memory) = peer_and_memory();
        let file = SharedMemory::create("ram", 16 * PAGE).unwrap();
        let backing = file.backing();
        let fds = [backing.fd.as_fd()];
        let request = map(flags, 0x1000_0000, 16 * PAGE);
        peer.ask_with(Command::DmaMap, &request, &fds).unwrap();
        let (at, data) = (Gpa::new(0x1000_1000), [7; 64]);
        memory.write(at, &data).unwrap();
        let mut read = [0; 64];
        file.read(PAGE, &mut read).unwrap();
        assert_eq!(read, data);
        memory.read(at, &mut read).unwrap();
        assert_eq!(read, data);
    }
    let (mut peer, memory) = peer_and_memory();
    let file = SharedMemory::create("ram", PAGE).unwrap();
    let backing = file.backing();
    let fds = [backing.fd.as_fd()];
    for (flags, errno) in [(FILE_IO, Errno::NOTSUP), (MMAP | FILE_IO, Errno::INVAL)] {
        let request = map(flags, PAGE, PAGE);
        let refused = peer.ask_with(Command::DmaMap, &request, &fds);
        assert_eq!(refused, Err(errno));
    }
    // Nothing to map.
    let refused = peer.ask(Command::DmaMap, &map(MMAP, PAGE, PAGE));
    assert_eq!(refused, Err(Errno::INVAL));
    assert!(memory.read(Gpa::new(PAGE), &mut [0; 8]).is_err());
}
