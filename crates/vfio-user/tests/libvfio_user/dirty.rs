//! The log of written pages.

use std::{os::fd::AsFd, sync::Arc};

use palisade_memory::{Backing, GuestMemory, Protection, SharedMemory};
use palisade_units::Gpa;
use palisade_vfio_user::{ClientMemory, End, Errno, wire::Command};

use crate::{
    case::{Case, File, differs, same},
    common::Toy,
    dma::map,
    peer::{Peer, longs, words},
};

const CASES: &[Case] = &[
    same(
        "test_dirty_pages_start_zero_pgsize",
        "a log by pages of 0 bytes: EINVAL",
        "a_log_by_pages_of_no_bytes_is_refused",
    ),
    differs(
        "test_dirty_pages_start",
        "a log of all ranges is started, and started again",
        "a_log_is_started_once",
        "EINVAL for the second, as VFIO has it",
    ),
    same(
        "test_dirty_pages_start_different_pgsize",
        "a running log is started with half and with twice the page size: EINVAL",
        "a_log_is_started_once",
    ),
    same(
        "test_dirty_pages_get_unmodified",
        "nothing was written: a bitmap of zeros",
        "a_bitmap_tells_what_was_written_since_the_last",
    ),
    differs(
        "test_dirty_pages_get_modified",
        "bitmaps of single pages, of pages across bytes, and by pages of half, twice and 16 times the size; each page is told once",
        "a_bitmap_tells_what_was_written_since_the_last",
        "pages below 4 KiB are EINVAL, as in VFIO; a page is told from its write on, and there is nothing to put back",
    ),
    differs(
        "test_dirty_pages_invalid_arguments",
        "a range that was not announced: ENOENT; one that is not exactly a range: ENOTSUP; a bitmap that is shorter than its room, or of a range without a descriptor: EINVAL",
        "a_bitmap_is_of_any_whole_pages",
        "any range of whole pages is told, memory or not, and pages may be larger than the range, as in VFIO; what is no whole page is EINVAL",
    ),
    same(
        "test_dirty_pages_stop",
        "a log is stopped by a request with a range's worth of data",
        "a_log_is_stopped",
    ),
    differs(
        "test_dirty_pages_uninitialised_dma",
        "a server without memory: EINVAL for start and report",
        "memory_without_a_log_has_no_such_feature",
        "ENOTTY, as VFIO has it for a feature that is not there",
    ),
    differs(
        "test_dirty_pages_ctx_no_stop",
        "a range is taken back while a log runs: a report of it is ENOENT, one of another range has its page; then the peer goes without stopping the log",
        "a_log_outlives_its_ranges_and_not_its_peer",
        "what was written before a range was taken back is still told, so that none is lost",
    ),
];

pub(crate) const FILE: File = File {
    name: "test_dirty_pages.py",
    cases: CASES,
};

const PAGE: u64 = 0x1000;
/// Where memory starts, and where more of it starts.
const AT: u64 = 0x10 * PAGE;
const ALSO_AT: u64 = 0x30 * PAGE;

const SET: u32 = 0x2_0000;
const GET: u32 = 0x1_0000;
const START: u32 = 6;
const STOP: u32 = 7;
const REPORT: u32 = 8;

fn ask(peer: &mut Peer, argsz: u32, flags: u32, data: &[u8]) -> Result<Vec<u8>, Errno> {
    let payload = [&words(&[argsz, flags]), data].concat();
    peer.ask(Command::DeviceFeature, &payload)
}

fn start(peer: &mut Peer, page_bytes: u64) -> Result<(), Errno> {
    let control = [longs(&[page_bytes]), words(&[0, 0])].concat();
    ask(peer, 24, SET | START, &control).map(drop)
}

/// The bitmap of a range, which must have one of 64 bits.
fn report(peer: &mut Peer, at: u64, len: u64, page_bytes: u64) -> Result<u64, Errno> {
    let range = longs(&[at, len, page_bytes]);
    let reply = ask(peer, 40, GET | REPORT, &range)?;
    assert_eq!(reply[..32], [words(&[40, GET | REPORT]), range].concat());
    Ok(u64::from_ne_bytes(reply[32..].try_into().unwrap()))
}

/// The bitmap of the first sixteen pages.
fn bits(peer: &mut Peer) -> u64 {
    report(peer, AT, 16 * PAGE, PAGE).unwrap()
}

fn with_memory() -> (Peer, GuestMemory) {
    let memory = GuestMemory::new();
    let mut peer = Peer::of(Toy::new(), Arc::new(memory.clone()));
    for (at, pages) in [(AT, 0x20), (ALSO_AT, 0x10)] {
        let file = SharedMemory::create("ram", pages * PAGE).unwrap();
        let backing = file.backing();
        let request = map(at, pages * PAGE);
        peer.ask_with(Command::DmaMap, &request, &[backing.fd.as_fd()])
            .unwrap();
    }
    (peer, memory)
}

/// Writes pages, counted from where memory starts.
fn write(memory: &GuestMemory, first: u64, pages: u64) {
    let bytes = vec![1; (pages * PAGE) as usize];
    memory.write(Gpa::new(AT + first * PAGE), &bytes).unwrap();
}

#[test]
fn a_log_by_pages_of_no_bytes_is_refused() {
    let (mut peer, _memory) = with_memory();
    assert_eq!(start(&mut peer, 0), Err(Errno::INVAL));
}

#[test]
fn a_log_is_started_once() {
    let (mut peer, _memory) = with_memory();
    start(&mut peer, PAGE).unwrap();
    for page_bytes in [PAGE, PAGE / 2, 2 * PAGE] {
        assert_eq!(start(&mut peer, page_bytes), Err(Errno::INVAL));
    }
}

#[test]
fn a_bitmap_tells_what_was_written_since_the_last() {
    let (mut peer, memory) = with_memory();
    start(&mut peer, PAGE).unwrap();
    assert_eq!(bits(&mut peer), 0);
    let some = || {
        write(&memory, 0, 1);
        write(&memory, 6, 4);
    };
    some();
    // The device's own reads are nothing to copy.
    memory.read(Gpa::new(AT + PAGE), &mut [0; 64]).unwrap();
    assert_eq!(bits(&mut peer), 0b11_1100_0001);
    for (page_bytes, expected) in [(2 * PAGE, 0b1_1001), (16 * PAGE, 1), (16 * PAGE, 0)] {
        if expected != 0 {
            some();
        }
        let told = report(&mut peer, AT, 16 * PAGE, page_bytes);
        assert_eq!(told, Ok(expected));
    }
    let half = report(&mut peer, AT, 16 * PAGE, PAGE / 2);
    assert_eq!(half, Err(Errno::INVAL));
    for (first, pages, expected) in [
        (0, 1, 0x1),
        (7, 1, 0x80),
        (0, 7, 0x7f),
        (0, 8, 0xff),
        (0, 9, 0x1ff),
        (7, 2, 0x180),
        (15, 1, 0x8000),
    ] {
        write(&memory, first, pages);
        assert_eq!(bits(&mut peer), expected);
        assert_eq!(bits(&mut peer), 0);
    }
    write(&memory, 0x16, 1);
    write(&memory, 2, 2);
    let whole = report(&mut peer, AT, 32 * PAGE, PAGE);
    assert_eq!(whole, Ok(0x40_000c));
}

#[test]
fn a_bitmap_is_of_any_whole_pages() {
    let (mut peer, memory) = with_memory();
    start(&mut peer, PAGE).unwrap();
    write(&memory, 0, 1);
    for (at, len) in [(0xdead_beef, 16 * PAGE), (AT + 1, 32 * PAGE - 1)] {
        let refused = report(&mut peer, at, len, PAGE);
        assert_eq!(refused, Err(Errno::INVAL));
    }
    let nowhere = report(&mut peer, 0x1_0000_0000, 16 * PAGE, PAGE);
    assert_eq!(nowhere, Ok(0));
    assert_eq!(report(&mut peer, AT, 16 * PAGE, 1 << 24), Ok(1));
}

#[test]
fn a_log_is_stopped() {
    let (mut peer, _memory) = with_memory();
    start(&mut peer, PAGE).unwrap();
    let control = [longs(&[PAGE]), words(&[0, 0])].concat();
    ask(&mut peer, 24, SET | STOP, &control).unwrap();
    let told = report(&mut peer, AT, 16 * PAGE, PAGE);
    assert_eq!(told, Err(Errno::INVAL));
    start(&mut peer, PAGE).unwrap();
}

/// Memory of which nobody logs the writes.
struct Unlogged;

impl ClientMemory for Unlogged {
    fn map(&self, _: Gpa, _: u64, _: Protection, _: Option<Backing>) -> Result<(), Errno> {
        Ok(())
    }
    fn unmap(&self, _: Gpa, _: u64) -> Result<(), Errno> {
        Ok(())
    }
    fn unmap_all(&self) {}
}

#[test]
fn memory_without_a_log_has_no_such_feature() {
    let mut peer = Peer::of(Toy::new(), Arc::new(Unlogged));
    assert_eq!(start(&mut peer, PAGE), Err(Errno::NOTTY));
    let told = report(&mut peer, AT, 16 * PAGE, PAGE);
    assert_eq!(told, Err(Errno::NOTTY));
}

#[test]
fn a_log_outlives_its_ranges_and_not_its_peer() {
    let (mut peer, memory) = with_memory();
    start(&mut peer, PAGE).unwrap();
    write(&memory, 0, 1);
    memory.write(Gpa::new(ALSO_AT), &[1]).unwrap();
    let unmap = [words(&[24, 0]), longs(&[AT, 0x20 * PAGE])].concat();
    peer.ask(Command::DmaUnmap, &unmap).unwrap();
    assert_eq!(bits(&mut peer), 1);
    assert_eq!(report(&mut peer, ALSO_AT, 16 * PAGE, PAGE), Ok(1));
    assert_eq!(peer.end().unwrap(), End::PeerClosed);
    // The next one may start its own.
    memory.start_dirty_log().unwrap();
}
