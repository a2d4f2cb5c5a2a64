//! Spaces: what may be mapped, what an access reaches, and what is left after an unmap.

use super::{PAGE, map, ram};
use crate::{Backing, Budget, Errno, GuestMemory, Limits, MapError, MemoryError, Protection};
use palisade_units::Gpa;
use rustix::fs::{MemfdFlags, Mode, OFlags, ftruncate, memfd_create, open};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// The last page of the space.
const LAST_PAGE: u64 = !(PAGE - 1);

#[test]
fn what_is_written_is_in_the_file() {
    let memory = GuestMemory::new();
    let ram = map(&memory, 0x10_0000, 2).unwrap();
    memory.write(Gpa::new(0x10_0ffd), b"across pages").unwrap();
    let mut seen = [0; 12];
    ram.read(0xffd, &mut seen).unwrap();
    assert_eq!(&seen, b"across pages");
    ram.store_u64(0x1100, 7).unwrap();
    assert_eq!(memory.load_u64(Gpa::new(0x10_1100)), Ok(7));
}

#[test]
fn a_region_starts_at_its_offset_of_the_file() {
    let ram = ram(3);
    ram.store_u64(2 * PAGE, 42).unwrap();
    let memory = GuestMemory::new();
    let backing = Backing {
        offset_bytes: 2 * PAGE,
        ..ram.backing()
    };
    memory
        .map(Gpa::new(0), PAGE, backing, Protection::ReadOnly)
        .unwrap();
    assert_eq!(memory.load_u64(Gpa::new(0)), Ok(42));
}

#[test]
fn an_access_crosses_adjacent_regions_and_touches_nothing_before_a_hole() {
    let memory = GuestMemory::new();
    let first = map(&memory, 0, 1).unwrap();
    let second = map(&memory, PAGE, 1).unwrap();
    memory.write(Gpa::new(PAGE - 3), b"abcdef").unwrap();
    let mut halves = ([0; 3], [0; 3]);
    first.read(PAGE - 3, &mut halves.0).unwrap();
    second.read(0, &mut halves.1).unwrap();
    assert_eq!((&halves.0, &halves.1), (b"abc", b"def"));
    assert_eq!(
        memory.read_object::<[u8; 6]>(Gpa::new(PAGE - 3)),
        Ok(*b"abcdef")
    );

    let hole = MemoryError::Unmapped {
        at: Gpa::new(2 * PAGE),
    };
    assert_eq!(memory.write(Gpa::new(2 * PAGE - 3), b"xyzxyz"), Err(hole));
    let mut tail = [1; 3];
    second.read(PAGE - 3, &mut tail).unwrap();
    assert_eq!(tail, [0; 3], "a refused write touches nothing");
}

#[test]
fn accesses_at_the_end_of_the_space_do_not_wrap_round() {
    let memory = GuestMemory::new();
    map(&memory, 0, 1).unwrap();
    let last = LAST_PAGE;
    assert!(matches!(
        map(&memory, last, 1),
        Err(MapError::Overflow { .. })
    ));
    map(&memory, last - PAGE, 1).unwrap();
    for at in [last - 1, u64::MAX - 1, u64::MAX] {
        assert!(matches!(
            memory.read(Gpa::new(at), &mut [0; 16]),
            Err(MemoryError::Unmapped { .. })
        ));
    }
    assert_eq!(memory.read(Gpa::new(u64::MAX), &mut []), Ok(()));
}

#[test]
fn map_refuses_what_is_no_range_of_pages() {
    let memory = GuestMemory::new();
    let ram = ram(4);
    let map = |at: u64, len: u64, offset: u64| {
        let backing = Backing {
            offset_bytes: offset,
            ..ram.backing()
        };
        memory.map(Gpa::new(at), len, backing, Protection::ReadWrite)
    };
    assert_eq!(map(0, 0, 0), Err(MapError::Empty));
    for (at, len, offset) in [(1, PAGE, 0), (0, PAGE + 8, 0), (0, PAGE, 512)] {
        assert!(matches!(
            map(at, len, offset),
            Err(MapError::Misaligned { .. })
        ));
    }
    for (at, len, offset) in [
        (0, LAST_PAGE, PAGE),
        (LAST_PAGE, 2 * PAGE, 0),
        (0, PAGE, 1 << 63),
    ] {
        let refusal = map(at, len, offset).unwrap_err();
        assert!(matches!(
            refusal,
            MapError::Overflow { .. } | MapError::TooLarge { .. }
        ));
    }
    let beyond = map(0, 4 * PAGE, PAGE).unwrap_err();
    assert_eq!(
        beyond,
        MapError::BeyondEndOfFile {
            end_bytes: 5 * PAGE,
            file_bytes: 4 * PAGE
        }
    );
    assert_eq!(beyond.errno(), Errno::INVAL);
    assert_eq!(memory.generation(), 0, "nothing changed");
}

#[test]
fn map_refuses_overlap_on_either_side_and_inside() {
    let memory = GuestMemory::new();
    map(&memory, 4 * PAGE, 4).unwrap();
    for (at, pages) in [(4, 4), (3, 2), (7, 2), (5, 1), (0, 9)] {
        let refusal = map(&memory, at * PAGE, pages).unwrap_err();
        assert_eq!(
            refusal,
            MapError::Overlap {
                at: Gpa::new(4 * PAGE),
                len_bytes: 4 * PAGE
            }
        );
        assert_eq!(refusal.errno(), Errno::EXIST);
    }
    map(&memory, 3 * PAGE, 1).unwrap();
    map(&memory, 8 * PAGE, 1).unwrap();
}

#[test]
fn map_refuses_files_of_the_wrong_kind_or_mode() {
    let memory = GuestMemory::new();
    let attempt = |fd: OwnedFd, protection| {
        let mapped = memory.map(Gpa::new(0), PAGE, Backing::new(fd, 0), protection);
        let errno = mapped.map_err(MapError::errno);
        memory.unmap_all();
        errno
    };
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    let open = |path: &str, flags| open(path, flags, Mode::empty()).unwrap();
    for fd in [
        reader,
        writer,
        socket.into(),
        open("/dev/zero", OFlags::RDWR),
        open("/proc/self/maps", OFlags::RDONLY),
        open("/", OFlags::RDONLY),
    ] {
        assert_eq!(attempt(fd, Protection::ReadOnly), Err(Errno::NODEV));
    }

    let file = memfd_create("test-mode", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, PAGE).unwrap();
    let reopen = |flags| {
        use std::os::fd::AsRawFd;
        open(&format!("/proc/self/fd/{}", file.as_raw_fd()), flags)
    };
    let read_only = || reopen(OFlags::RDONLY);
    assert_eq!(
        attempt(read_only(), Protection::ReadWrite),
        Err(Errno::ACCESS)
    );
    assert_eq!(attempt(read_only(), Protection::ReadOnly), Ok(()));
    let write_only = reopen(OFlags::WRONLY);
    assert_eq!(
        attempt(write_only, Protection::ReadOnly),
        Err(Errno::ACCESS)
    );
}

#[test]
fn a_space_has_a_limit_of_regions_and_of_bytes() {
    let memory = GuestMemory::with_limits(Limits {
        regions: 2,
        bytes: 5 * PAGE,
    });
    map(&memory, 0, 3).unwrap();
    let too_large = map(&memory, 8 * PAGE, 3).unwrap_err();
    assert_eq!(too_large, MapError::TooLarge { bytes: 5 * PAGE });
    map(&memory, 8 * PAGE, 1).unwrap();
    let too_many = map(&memory, 16 * PAGE, 1).unwrap_err();
    assert_eq!(too_many, MapError::TooManyRegions { regions: 2 });
    assert_eq!(too_many.errno(), Errno::NOSPC);
    memory.unmap(Gpa::new(0), 3 * PAGE).unwrap();
    map(&memory, 16 * PAGE, 1).unwrap();
}

#[test]
fn unmap_takes_whole_regions_only() {
    let memory = GuestMemory::new();
    for at in [0, 1, 2, 4] {
        map(&memory, at * PAGE, 1).unwrap();
    }
    map(&memory, 8 * PAGE, 2).unwrap();
    let unmap = |first: u64, pages: u64| memory.unmap(Gpa::new(first * PAGE), pages * PAGE);
    for (first, pages) in [(3, 1), (2, 3), (4, 2), (8, 1), (9, 1), (7, 3), (20, 1)] {
        let refusal = unmap(first, pages).unwrap_err();
        assert!(
            matches!(refusal, MapError::NotFound { .. }),
            "{first}+{pages}"
        );
        assert_eq!(refusal.errno(), Errno::NOENT);
    }
    assert_eq!(unmap(0, 0), Err(MapError::Empty));
    unmap(0, 3).unwrap();
    unmap(8, 2).unwrap();
    assert!(memory.load_u64(Gpa::new(4 * PAGE)).is_ok());
    assert_eq!(memory.snapshot().region_count(), 1);
}

#[test]
fn r44_after_an_unmap_there_is_no_memory_and_the_generation_is_another() {
    let memory = GuestMemory::new();
    let _ram = map(&memory, 0x1000, 1).unwrap();
    let at = Gpa::new(0x1000);
    memory.store_u64(at, 1).unwrap();
    let before = memory.generation();
    memory.unmap(at, PAGE).unwrap();
    assert_ne!(memory.generation(), before);
    let unmapped = MemoryError::Unmapped { at };
    assert_eq!(memory.load_u64(at), Err(unmapped));
    assert_eq!(memory.write(at, &[1]), Err(unmapped));
    assert_eq!(memory.page(at, 8).map(|_| ()), Err(unmapped));
    map(&memory, 0x1000, 1).unwrap();
    assert_eq!(memory.load_u64(at), Ok(0), "other memory now");
}

#[test]
fn r44_unmap_returns_after_the_accesses_in_flight_have_ended() {
    let memory = GuestMemory::new();
    let ram = map(&memory, 0, 1).unwrap();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let inside = memory.with_snapshot(|old| {
            let before = memory.generation();
            let unmapper = scope.spawn(|| {
                memory.unmap(Gpa::new(0), PAGE).unwrap();
                assert!(ended.load(Ordering::Acquire), "an access was in flight");
            });
            while memory.generation() == before {
                thread::yield_now();
            }
            assert!(memory.load_u64(Gpa::new(0)).is_err(), "new accesses fail");
            for value in 0..1000 {
                old.store_u64(Gpa::new(0), value).unwrap();
                thread::yield_now();
            }
            ended.store(true, Ordering::Release);
            unmapper
        });
        inside.join().unwrap();
    });
    assert_eq!(ram.load_u64(0), Ok(999));
}

#[test]
fn a_snapshot_for_keeps_delays_no_unmap() {
    let memory = GuestMemory::new();
    map(&memory, 0, 1).unwrap();
    let kept = memory.snapshot();
    memory.unmap(Gpa::new(0), PAGE).unwrap();
    assert_eq!(kept.load_u64(Gpa::new(0)), Ok(0));
}

#[test]
fn read_only_regions_are_not_written() {
    let memory = GuestMemory::new();
    let ram = ram(1);
    memory
        .map(Gpa::new(0), PAGE, ram.backing(), Protection::ReadOnly)
        .unwrap();
    let at = Gpa::new(8);
    let refused = MemoryError::ReadOnly { at };
    assert_eq!(memory.write(at, &[1; 4]), Err(refused));
    assert_eq!(memory.store_u64(at, 1), Err(refused));
    assert_eq!(memory.store_u32(at, 1), Err(refused));
    assert_eq!(memory.fetch_or_u64(at, 1), Err(refused));
    assert_eq!(memory.compare_exchange_u64(at, 0, 1), Err(refused));
    assert_eq!(memory.load_u64(at), Ok(0));
}

#[test]
fn atomics_are_aligned_and_do_what_they_say() {
    let memory = GuestMemory::new();
    map(&memory, 0, 1).unwrap();
    let at = Gpa::new(16);
    memory.store_u64(at, 0x1_0000_0002).unwrap();
    assert_eq!(memory.load_u32(Gpa::new(20)), Ok(1));
    assert_eq!(memory.fetch_or_u64(at, 0x61), Ok(0x1_0000_0002));
    assert_eq!(
        memory.compare_exchange_u64(at, 5, 6),
        Ok(Err(0x1_0000_0063))
    );
    assert_eq!(
        memory.compare_exchange_u64(at, 0x1_0000_0063, 6),
        Ok(Ok(0x1_0000_0063))
    );
    memory.store_u32(Gpa::new(20), 9).unwrap();
    assert_eq!(memory.load_u64(at), Ok(0x9_0000_0006));
    for at in [1, 4, 12].map(Gpa::new) {
        assert_eq!(memory.load_u64(at), Err(MemoryError::Misaligned { at }));
        assert_eq!(memory.store_u64(at, 0), Err(MemoryError::Misaligned { at }));
    }
    let at = Gpa::new(2);
    assert_eq!(memory.store_u32(at, 0), Err(MemoryError::Misaligned { at }));
    let at = Gpa::new(PAGE);
    assert_eq!(memory.load_u64(at), Err(MemoryError::Unmapped { at }));
}

#[test]
fn spaces_that_share_a_budget_have_it_once() {
    let limits = Limits {
        regions: 3,
        bytes: 8 * PAGE,
    };
    let budget = Budget::new(limits);
    let [one, two] = [(); 2].map(|()| GuestMemory::within(limits, &budget));
    map(&one, 0, 3).unwrap();
    map(&two, 0, 3).unwrap();
    let spent = MapError::BudgetSpent {
        regions: 3,
        bytes: 8 * PAGE,
    };
    assert_eq!(map(&two, 8 * PAGE, 3).unwrap_err(), spent);
    assert_eq!(spent.errno(), Errno::NOSPC);
    map(&one, 8 * PAGE, 1).unwrap();
    assert_eq!(map(&two, 8 * PAGE, 1).unwrap_err(), spent);
    // What could not be mapped is not charged, and neither is what was unmapped, who else may keep it.
    let kept = [one.snapshot(), two.snapshot()];
    one.unmap(Gpa::new(8 * PAGE), PAGE).unwrap();
    assert_eq!(map(&two, 1, 1).unwrap_err().errno(), Errno::INVAL);
    map(&two, 8 * PAGE, 1).unwrap();
    two.unmap_all();
    map(&two, 0, 5).unwrap();
    assert_eq!(map(&two, 8 * PAGE, 1).unwrap_err(), spent);
    drop(one);
    map(&two, 8 * PAGE, 3).unwrap();
    drop(kept);
}

#[test]
fn a_range_with_holes_gives_up_the_regions_that_it_has_whole() {
    let memory = GuestMemory::new();
    for at in [2, 4, 5, 9] {
        map(&memory, at * PAGE, 1).unwrap();
    }
    let unmap = |at, len_bytes| memory.unmap_all_in(Gpa::new(at), len_bytes);
    for (at, len_bytes) in [
        (0, 2 * PAGE),
        (0, 2 * PAGE + 1),
        (2 * PAGE + 1, 7 * PAGE),
        (3 * PAGE, PAGE),
        (6 * PAGE, 4 * PAGE - 1),
        (10 * PAGE, u64::MAX),
        (2 * PAGE, 0),
    ] {
        let refused = unmap(at, len_bytes).unwrap_err();
        assert_eq!(refused.errno(), Errno::NOENT, "{at:#x} {len_bytes:#x}");
    }
    assert_eq!(unmap(0, 9 * PAGE), Ok(3 * PAGE));
    assert_eq!(unmap(PAGE + 5, u64::MAX - PAGE), Ok(PAGE));
    assert_eq!(memory.snapshot().region_count(), 0);
}
