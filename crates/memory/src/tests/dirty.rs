//! The log of written pages, as who moves a guest to another host uses it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use palisade_units::Gpa;
use proptest::prelude::*;

use super::{PAGE, map, ram};
use crate::{DirtyError, DirtyRange, GuestMemory, Kept, MemoryError, Protection, SharedMemory};

const AT: u64 = 0x10_0000;
const PAGES: u64 = 96;

/// The pages of a range that were written since they were asked for last, by their number in it.
fn taken(memory: &GuestMemory, at: u64, pages: u64) -> Result<BTreeSet<u64>, DirtyError> {
    let range = DirtyRange::new(Gpa::new(at), pages * PAGE, PAGE)?;
    let bitmap = memory.take_dirty(range)?;
    let is_set = |page: &u64| bitmap[usize::try_from(page / 64).unwrap()] >> (page % 64) & 1 == 1;
    Ok((0..pages).filter(is_set).collect())
}

fn logged() -> (GuestMemory, SharedMemory) {
    let memory = GuestMemory::new();
    let ram = map(&memory, AT, PAGES).unwrap();
    memory.start_dirty_log().unwrap();
    (memory, ram)
}

#[test]
fn every_kind_of_write_is_logged_and_no_read() {
    const HERE: Gpa = Gpa::new(AT + 3 * PAGE);
    type Access = fn(&GuestMemory) -> Result<(), MemoryError>;
    let place = |memory: &GuestMemory| {
        let mut kept = Kept::new();
        let snapshot = kept.keep(&memory.snapshot());
        let place = kept.find(snapshot, HERE, PAGE).unwrap();
        (kept, place)
    };
    let writes: [Access; 16] = [
        |m| m.write(HERE, &[1; 4096]),
        |m| m.write(HERE, &[1; 3]),
        |m| m.store_u64(HERE, 1),
        |m| m.store_u32(HERE, 1),
        |m| m.fetch_or_u64(HERE, 1).map(drop),
        |m| m.compare_exchange_u64(HERE, 0, 1).map(drop),
        |m| m.page(HERE, PAGE)?.write(0, &[1]),
        |m| m.page(HERE, PAGE)?.fill(0, PAGE, 1),
        |m| m.page(HERE, PAGE)?.fill_pattern(0, PAGE, 0x1234),
        |m| m.page(HERE, PAGE)?.store_u64(8, 1),
        |m| m.page(HERE, PAGE)?.store_u32(8, 1),
        |m| m.page(HERE, PAGE)?.store_u8(8, 1),
        |m| m.page(HERE, PAGE)?.fetch_or_u64(8, 1).map(drop),
        |m| m.page(HERE, PAGE)?.fetch_add_u64(8, 1).map(drop),
        |m| m.page(HERE, PAGE)?.compare_exchange_u64(8, 0, 1).map(drop),
        |m| {
            let from = m.page(Gpa::new(AT), PAGE)?;
            from.copy_to(0, &m.page(HERE, PAGE)?, 0, 8)
        },
    ];
    for (index, write) in writes.into_iter().enumerate() {
        let (memory, _ram) = logged();
        write(&memory).unwrap();
        assert_eq!(taken(&memory, AT, PAGES), Ok([3].into()), "write {index}");
        assert_eq!(taken(&memory, AT, PAGES), Ok([].into()), "taken once");
    }

    let (memory, _ram) = logged();
    let (kept, place) = place(&memory);
    let reach = kept.reach(place, PAGE).unwrap();
    reach.write(&[1]).unwrap();
    assert_eq!(taken(&memory, AT, PAGES), Ok([3].into()));
    reach.fill_pattern(7).unwrap();
    assert_eq!(taken(&memory, AT, PAGES), Ok([3].into()));
    reach.copy_to(kept.reach(place, PAGE).unwrap()).unwrap();
    assert_eq!(taken(&memory, AT, PAGES), Ok([3].into()));
    memory.read(HERE, &mut [0; 4096]).unwrap();
    memory.load_u64(HERE).unwrap();
    reach.read(&mut [0; 8]).unwrap();
    kept.load_u64(place).unwrap();
    assert_eq!(taken(&memory, AT, PAGES), Ok([].into()));
}

#[test]
fn a_write_across_pages_and_regions_is_logged_in_all_of_them() {
    let (memory, _ram) = logged();
    let end = AT + PAGES * PAGE;
    // Mapped while the log is on.
    let _next = map(&memory, end, 1).unwrap();
    memory.write(Gpa::new(end - PAGE - 1), &[1; 4099]).unwrap();
    let last = [PAGES - 2, PAGES - 1, PAGES].into();
    assert_eq!(taken(&memory, AT, PAGES + 1), Ok(last));
}

#[test]
fn what_was_written_is_known_after_its_region_is_gone() {
    let (memory, _ram) = logged();
    let page = memory.page(Gpa::new(AT + PAGE), PAGE).unwrap();
    memory.store_u64(Gpa::new(AT), 1).unwrap();
    memory.unmap(Gpa::new(AT), PAGES * PAGE).unwrap();
    // By who keeps it a while longer.
    page.store_u64(0, 1).unwrap();
    assert_eq!(taken(&memory, AT, PAGES), Ok([0, 1].into()));
}

/// Whatever is mapped where, the log does not grow beyond its bound, and nothing is lost.
#[test]
fn r78_a_log_that_is_full_says_that_all_was_written() {
    let (memory, _ram) = logged();
    for number in 1..40_u64 {
        let at = number << 40;
        let _ram = map(&memory, at, 1).unwrap();
        memory.store_u64(Gpa::new(at), 1).unwrap();
        memory.unmap(Gpa::new(at), PAGE).unwrap();
    }
    for at in [AT, 39 << 40, 77 << 40] {
        assert_eq!(taken(&memory, at, 2), Ok([0, 1].into()));
    }
    memory.stop_dirty_log();
    memory.start_dirty_log().unwrap();
    memory.store_u64(Gpa::new(AT), 1).unwrap();
    assert_eq!(taken(&memory, AT, 2), Ok([0].into()));
    assert_eq!(taken(&memory, 39 << 40, 2), Ok([].into()));
}

#[test]
fn a_log_is_one_at_a_time_and_starts_empty() {
    let memory = GuestMemory::new();
    let _ram = map(&memory, AT, PAGES).unwrap();
    memory.store_u64(Gpa::new(AT), 1).unwrap();
    assert_eq!(taken(&memory, AT, PAGES), Err(DirtyError::NotStarted));
    memory.stop_dirty_log();
    memory.start_dirty_log().unwrap();
    assert_eq!(memory.start_dirty_log(), Err(DirtyError::Started));
    memory.store_u64(Gpa::new(AT + PAGE), 1).unwrap();
    memory.stop_dirty_log();
    assert_eq!(taken(&memory, AT, PAGES), Err(DirtyError::NotStarted));
    memory.store_u64(Gpa::new(AT + 2 * PAGE), 1).unwrap();
    memory.start_dirty_log().unwrap();
    assert_eq!(taken(&memory, AT, PAGES), Ok([].into()));
}

#[test]
fn a_write_to_memory_that_is_gone_is_an_error_all_the_same() {
    let (memory, ram) = logged();
    rustix::fs::ftruncate(&ram.backing().fd, 0).unwrap();
    let at = Gpa::new(AT);
    assert_eq!(memory.store_u64(at, 1), Err(MemoryError::Vanished { at }));
    memory.unmap(at, PAGES * PAGE).unwrap();
    let _ram = map(&memory, AT, PAGES).unwrap();
    assert_eq!(memory.store_u64(at, 1), Ok(()));
}

#[test]
fn spaces_of_one_file_have_logs_of_their_own() {
    let ram = ram(1);
    let (one, other) = (GuestMemory::new(), GuestMemory::new());
    for memory in [&one, &other] {
        memory
            .map(Gpa::new(AT), PAGE, ram.backing(), Protection::ReadWrite)
            .unwrap();
        memory.start_dirty_log().unwrap();
    }
    one.store_u64(Gpa::new(AT), 1).unwrap();
    assert_eq!(taken(&other, AT, 1), Ok([].into()));
    assert_eq!(taken(&one, AT, 1), Ok([0].into()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 24 }))]

    /// What a VMM does: it copies all pages once, then those that each report names, while several threads
    /// write. After the last report, with nobody writing, the copy is the memory.
    #[test]
    fn no_written_page_is_ever_lost(
        seeds in proptest::collection::vec(any::<u64>(), 3),
        reports in 1_usize..40,
        parts in 1_u64..5,
    ) {
        let writes = if cfg!(miri) { 30 } else { 3000 };
        let (memory, ram) = logged();
        let copy = ram_copy(&ram);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for seed in seeds {
                let (memory, stop) = (&memory, &stop);
                scope.spawn(move || {
                    let slice = memory.page(Gpa::new(AT), PAGES * PAGE).unwrap();
                    let mut state = seed | 1;
                    for step in 0..writes {
                        state ^= state << 13;
                        state ^= state >> 7;
                        state ^= state << 17;
                        let offset = (state % (PAGES * PAGE - 16)) & !7;
                        match step % 4 {
                            0 => slice.store_u64(offset, state).unwrap(),
                            1 => memory.write(Gpa::new(AT + offset), &state.to_le_bytes()).unwrap(),
                            2 => drop(memory.fetch_or_u64(Gpa::new(AT + offset), state).unwrap()),
                            _ => slice.fill(offset, 16, seed.to_le_bytes()[0]).unwrap(),
                        }
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                });
            }
            for _ in 0..reports {
                copy_dirty(&memory, &ram, &copy, parts);
            }
            stop.store(true, Ordering::Relaxed);
        });
        copy_dirty(&memory, &ram, &copy, parts);
        let (mut now, mut copied) = (vec![0; 4096], vec![0; 4096]);
        for page in 0..PAGES {
            ram.read(page * PAGE, &mut now).unwrap();
            copy.read(page * PAGE, &mut copied).unwrap();
            prop_assert!(now == copied, "page {} was written and not told", page);
        }
    }
}

fn ram_copy(from: &SharedMemory) -> SharedMemory {
    let copy = ram(PAGES);
    from.slice()
        .copy_to(0, copy.slice(), 0, PAGES * PAGE)
        .unwrap();
    copy
}

/// One round: a report in so many parts, and the pages that it names.
fn copy_dirty(memory: &GuestMemory, ram: &SharedMemory, copy: &SharedMemory, parts: u64) {
    let each = PAGES / parts;
    for first in (0..PAGES).step_by(usize::try_from(each).unwrap()) {
        let pages = each.min(PAGES - first);
        for page in taken(memory, AT + first * PAGE, pages).unwrap() {
            let offset = (first + page) * PAGE;
            ram.slice()
                .copy_to(offset, copy.slice(), offset, PAGE)
                .unwrap();
        }
    }
}
