//! Announcing memory and taking it back.

use std::{io::Write, os::fd::AsFd, sync::Arc};

use palisade_memory::{GuestMemory, SharedMemory};
use palisade_units::Gpa;
use palisade_vfio_user::{
    End, Errno,
    wire::{Command, MAX_DATA_BYTES},
};

use crate::{
    case::{Case, File, differs, none, same},
    common::{Toy, raw::message},
    errors::BUSY,
    peer::{Peer, longs, words},
};

const MAP_CASES: &[Case] = &[
    differs(
        "test_dma_region_too_big",
        "a range of 8 TiB and a page: ENOSPC",
        "a_range_is_as_large_as_its_file_may_be",
        "accepted where no descriptor comes with it, since such a range costs nothing; ENOSPC beyond 4 TiB of memory",
    ),
    differs(
        "test_dma_region_too_many",
        "as many ranges as the server has room for are accepted, the next: EINVAL",
        "ranges_are_accepted_until_there_is_no_room",
        "ENOSPC, as VFIO has it",
    ),
    none(
        "test_dma_map_busy",
        "a range while the device is busy: the answer waits for the device",
        BUSY,
    ),
    same(
        "test_dma_map_reply_fail",
        "a peer that goes before its range is answered: the connection ends as when it goes at another time",
        "a_peer_may_go_before_its_range_is_answered",
    ),
    none(
        "test_dma_map_busy_reply_fail",
        "a peer that goes while the device is busy: its range is not kept",
        BUSY,
    ),
];

const UNMAP_CASES: &[Case] = &[
    same("test_dma_unmap_short_write", "8 bytes: EINVAL", SENSE),
    same("test_dma_unmap_bad_argsz", "an argsz of 8: EINVAL", SENSE),
    differs(
        "test_dma_unmap_bad_argsz2",
        "an argsz that is larger than any reply: EINVAL",
        "an_argsz_may_be_larger_than_any_reply",
        "accepted: the reply is as long as it is, and no room is made for more",
    ),
    same(
        "test_dma_unmap_dirty_bad_argsz",
        "a bitmap whose length makes the reply longer than 2^64: EINVAL",
        BITMAP,
    ),
    same(
        "test_dma_unmap_dirty_not_tracking",
        "a bitmap when writes are not logged: EINVAL",
        BITMAP,
    ),
    same(
        "test_dma_unmap_invalid_flags",
        "a flag that is not known: EINVAL",
        SENSE,
    ),
    same(
        "test_dma_unmap",
        "a range that was announced is taken back",
        "what_was_announced_is_taken_back",
    ),
    same(
        "test_dma_unmap_invalid_addr",
        "a range that was not announced: ENOENT",
        "what_was_not_announced_is_not_there",
    ),
    none(
        "test_dma_unmap_async",
        "a range is taken back while the device is busy: the answer waits for the device",
        BUSY,
    ),
    same(
        "test_dma_unmap_all",
        "all ranges are taken back in one request",
        "all_ranges_are_taken_back_at_once",
    ),
    same(
        "test_dma_unmap_all_invalid_addr",
        "all ranges with an address and a length: EINVAL",
        SENSE,
    ),
    same(
        "test_dma_unmap_all_invalid_flags",
        "all ranges with a bitmap: EINVAL",
        SENSE,
    ),
];

const SENSE: &str = "taking_back_must_make_sense";
const BITMAP: &str = "taking_back_brings_no_bitmap";

pub(crate) const FILES: [File; 2] = [
    File {
        name: "test_dma_map.py",
        cases: MAP_CASES,
    },
    File {
        name: "test_dma_unmap.py",
        cases: UNMAP_CASES,
    },
];

const PAGE: u64 = 0x1000;
const READ_AND_WRITE: u32 = 1 | 2;
const BITMAP_FLAG: u32 = 1;
const ALL: u32 = 2;
/// How many ranges the server has room for.
const ROOM: u64 = 1024;

pub(crate) fn map(at: u64, len: u64) -> Vec<u8> {
    [words(&[32, READ_AND_WRITE]), longs(&[0, at, len])].concat()
}

fn unmap(argsz: u32, flags: u32, at: u64, len: u64) -> Vec<u8> {
    [words(&[argsz, flags]), longs(&[at, len])].concat()
}

/// A peer that has announced a page at 0, with memory.
fn with_page() -> (Peer, GuestMemory) {
    let memory = GuestMemory::new();
    let mut peer = Peer::of(Toy::new(), Arc::new(memory.clone()));
    let ram = SharedMemory::create("ram", PAGE).unwrap();
    let backing = ram.backing();
    let fds = [backing.fd.as_fd()];
    peer.ask_with(Command::DmaMap, &map(0, PAGE), &fds).unwrap();
    memory.read(Gpa::new(0), &mut [0; 8]).unwrap();
    (peer, memory)
}

#[test]
fn a_range_is_as_large_as_its_file_may_be() {
    const TIB: u64 = 1 << 40;
    let mut peer = Peer::any();
    let large = map(16 * PAGE, 8 * TIB + PAGE);
    peer.ask(Command::DmaMap, &large).unwrap();
    let beyond = map(16 * TIB, 4 * TIB + PAGE);
    let ram = SharedMemory::create("large", 4 * TIB + PAGE).unwrap();
    let backing = ram.backing();
    let refused = peer.ask_with(Command::DmaMap, &beyond, &[backing.fd.as_fd()]);
    assert_eq!(refused, Err(Errno::NOSPC));
}

#[test]
fn ranges_are_accepted_until_there_is_no_room() {
    let mut peer = Peer::any();
    for n in 0..ROOM {
        peer.ask(Command::DmaMap, &map(n * PAGE, PAGE)).unwrap();
    }
    let one_more = peer.ask(Command::DmaMap, &map(ROOM * PAGE, PAGE));
    assert_eq!(one_more, Err(Errno::NOSPC));
}

#[test]
fn a_peer_may_go_before_its_range_is_answered() {
    let mut peer = Peer::any();
    let bytes = message(Command::DmaMap, &map(0x1_0000, PAGE));
    peer.stream.write_all(&bytes).unwrap();
    assert_eq!(peer.end().unwrap(), End::PeerClosed);
}

#[test]
fn taking_back_must_make_sense() {
    let (mut peer, memory) = with_page();
    for payload in [
        vec![0; 8],
        unmap(8, 0, 0, PAGE),
        unmap(24, 4, 0, PAGE),
        unmap(24, ALL, 16 * PAGE, PAGE),
        unmap(24, ALL, 0, PAGE),
        unmap(24, ALL | BITMAP_FLAG, 0, 0),
    ] {
        let refused = peer.ask(Command::DmaUnmap, &payload);
        assert_eq!(refused, Err(Errno::INVAL), "{payload:?}");
    }
    memory.read(Gpa::new(0), &mut [0; 8]).unwrap();
}

#[test]
fn an_argsz_may_be_larger_than_any_reply() {
    let (mut peer, _memory) = with_page();
    let request = unmap(MAX_DATA_BYTES + 8, 0, 0, PAGE);
    assert_eq!(peer.ask(Command::DmaUnmap, &request), Ok(request.clone()));
}

#[test]
fn taking_back_brings_no_bitmap() {
    let (mut peer, memory) = with_page();
    for (argsz, bitmap_bytes, room) in [(40, u64::MAX - 40 + 8, 0), (48, 8, 8)] {
        let bitmap = longs(&[PAGE, bitmap_bytes]);
        let payload = [unmap(argsz, BITMAP_FLAG, 0, PAGE), bitmap, vec![0; room]].concat();
        let refused = peer.ask(Command::DmaUnmap, &payload);
        assert_eq!(refused, Err(Errno::INVAL));
    }
    let alone = peer.ask(Command::DmaUnmap, &unmap(24, BITMAP_FLAG, 0, PAGE));
    assert_eq!(alone, Err(Errno::NOTSUP));
    memory.read(Gpa::new(0), &mut [0; 8]).unwrap();
}

#[test]
fn what_was_announced_is_taken_back() {
    let (mut peer, memory) = with_page();
    let request = unmap(24, 0, 0, PAGE);
    assert_eq!(peer.ask(Command::DmaUnmap, &request), Ok(request.clone()));
    assert!(memory.read(Gpa::new(0), &mut [0; 8]).is_err());
}

#[test]
fn what_was_not_announced_is_not_there() {
    let (mut peer, _memory) = with_page();
    let refused = peer.ask(Command::DmaUnmap, &unmap(24, 0, 16 * PAGE, PAGE));
    assert_eq!(refused, Err(Errno::NOENT));
}

#[test]
fn all_ranges_are_taken_back_at_once() {
    let (mut peer, memory) = with_page();
    for n in 1..ROOM {
        peer.ask(Command::DmaMap, &map(n * PAGE, PAGE)).unwrap();
    }
    peer.ask(Command::DmaUnmap, &unmap(24, ALL, 0, 0)).unwrap();
    assert!(memory.read(Gpa::new(0), &mut [0; 8]).is_err());
    peer.ask(Command::DmaMap, &map(0, ROOM * PAGE)).unwrap();
}
