//! What a device writes is in the log of the tenant's memory, however it gets there: who moves the guest to another
//! host copies what the log names.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;

use palisade_memory::DirtyRange;

use super::*;

const PAGE_BYTES: u64 = 4096;
const PAGES: u64 = MEMORY_BYTES / PAGE_BYTES;
/// Tables stand behind what is written to.
const DATA_BYTES: u64 = FIRST_TABLE;

/// The pages that were written since they were asked for last, by number.
fn dirty(tenant: &Tenant) -> BTreeSet<u64> {
    let all = DirtyRange::new(Gpa::new(0), MEMORY_BYTES, PAGE_BYTES).unwrap();
    let bitmap = tenant.memory.take_dirty(all).unwrap();
    let is_set = |page: &u64| bitmap[usize::try_from(page / 64).unwrap()] >> (page % 64) & 1 == 1;
    (0..PAGES).filter(is_set).collect()
}

#[test]
fn writes_by_whatever_translation_are_logged_again_after_each_report() {
    let tenant = Tenant::alone();
    let function = function(&Iommu::new());
    let _claim = tenant.own(&function);
    function
        .bind(tag(1), tenant.hold(), tenant.pass_through(1))
        .unwrap();
    let mut port = function.port();
    // Cached, as a piece of 2 MiB, before the log is on.
    write(&mut port, tag(1), 0x5000, 1).unwrap();
    tenant.memory.start_dirty_log().unwrap();
    for _ in 0..3 {
        write(&mut port, tag(1), 0x5000, 1).unwrap();
        assert_eq!(dirty(&tenant), [5].into());
    }
    port.fill(by(tag(1)), Iova::new(0x7ff8), 16, 1).unwrap();
    assert_eq!(dirty(&tenant), [7, 8].into());
    let (from, to) = (Iova::new(0x1000), Iova::new(0x20_0000));
    port.copy(by(tag(1)), from, by(tag(1)), to, 0x3000).unwrap();
    assert_eq!(dirty(&tenant), [0x200, 0x201, 0x202].into());
    port.in_one_piece(|work| work.write(by(tag(1)), Iova::new(0x9000), &[1]))
        .unwrap();
    assert_eq!(dirty(&tenant), [9].into());
    read(&mut port, tag(1), 0x5000).unwrap();
    assert_eq!(dirty(&tenant), [].into());
    tenant.memory.stop_dirty_log();
    write(&mut port, tag(1), 0x5000, 1).unwrap();
}

#[test]
fn r38_marks_that_walks_leave_in_tables_are_logged() {
    let tenant = Tenant::alone();
    let function = function(&Iommu::new());
    let _claim = tenant.own(&function);
    let process = tenant.process();
    process.map(0x5000, 0x3000);
    let tables: BTreeSet<u64> = (1..=4)
        .map(|level| process.entry(0x5000, level) / PAGE_BYTES)
        .collect();
    let leaf = process.entry(0x5000, 1) / PAGE_BYTES;
    function
        .bind(tag(1), tenant.hold(), process.binding(1, 1))
        .unwrap();
    tenant.memory.start_dirty_log().unwrap();
    let mut port = function.port();
    read(&mut port, tag(1), 0x5000).unwrap();
    assert_eq!(dirty(&tenant), tables, "accessed, at each level");
    write(&mut port, tag(1), 0x5000, 1).unwrap();
    assert_eq!(dirty(&tenant), [3, leaf].into(), "dirty, in the leaf");
}

/// A random number generator that needs no state but this (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// An engine that writes here and there, by 2 MiB pieces and by 4 KiB pages of a process.
fn work(function: &FunctionHandle, seed: u64, stop: &AtomicBool) {
    let (mut port, mut random) = (function.port(), Random(seed));
    while !stop.load(Ordering::SeqCst) {
        let tag = tag(1 + u32::from(random.below(2) == 0));
        let at = random.below(DATA_BYTES - 0x4000) & !7;
        let len_bytes = 8 + random.below(0x3000);
        let done = match random.below(4) {
            0 => port.fill(by(tag), Iova::new(at), len_bytes, seed),
            1 => {
                let from = Iova::new(random.below(DATA_BYTES - 0x4000));
                let copied = port.copy(by(tag), from, by(tag), Iova::new(at), len_bytes);
                copied.map_err(|partial| partial.error)
            }
            _ => write(&mut port, tag, at, random.0),
        };
        done.unwrap();
    }
}

/// What a VMM does: it copies all memory once, then in each round what the log names, while engines are at work and
/// translations come and go. After the last round, with the engines stopped, the copy is the memory.
#[test]
fn no_page_that_a_device_writes_is_ever_lost() {
    let tenant = Tenant::alone();
    let function = function(&Iommu::new());
    let _claim = tenant.own(&function);
    let process = tenant.process();
    for page in 0..DATA_BYTES / PAGE_BYTES {
        process.map(page * PAGE_BYTES, page * PAGE_BYTES);
    }
    function
        .bind(tag(1), tenant.hold(), tenant.pass_through(1))
        .unwrap();
    function
        .bind(tag(2), tenant.hold(), process.binding(2, 2))
        .unwrap();
    let copy = SharedMemory::create("copy", MEMORY_BYTES).unwrap();
    let copy_page = |page: u64| {
        let at = page * PAGE_BYTES;
        let source = tenant.shared.slice();
        source.copy_to(at, copy.slice(), at, PAGE_BYTES).unwrap();
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in [3, 0x1234_5678_9abc_def1, 77] {
            let (function, stop) = (&function, &stop);
            scope.spawn(move || work(function, seed, stop));
        }
        let on_panic = OnDrop(&stop);
        std::thread::yield_now();
        tenant.memory.start_dirty_log().unwrap();
        (0..PAGES).for_each(copy_page);
        for round in 0..100_u64 {
            if round % 10 == 0 {
                function.invalidate(Scope::All, Cached::Everywhere);
            }
            dirty(&tenant).into_iter().for_each(copy_page);
        }
        drop(on_panic);
    });
    dirty(&tenant).into_iter().for_each(copy_page);
    let (mut now, mut copied) = (vec![0; 4096], vec![0; 4096]);
    for page in 0..PAGES {
        tenant.shared.read(page * PAGE_BYTES, &mut now).unwrap();
        copy.read(page * PAGE_BYTES, &mut copied).unwrap();
        assert!(now == copied, "page {page} was written and not told");
    }
}

/// Ends the other threads' loops, also when this one fails.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
