//! Slices: bounded, for keeps, and shared with writers at the same time.

use super::{PAGE, map, ram};
use crate::{GuestMemory, HostSlice, MemoryError, Protection, SharedMemory};
use palisade_units::Gpa;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, thread};

const AT: Gpa = Gpa::new(0x4000);

fn slice(pages: u64) -> HostSlice {
    ram(pages).slice().clone()
}

#[test]
fn every_access_is_bounded_by_the_slice() {
    let memory = GuestMemory::new();
    let ram = map(&memory, AT.get(), 2).unwrap();
    let slice = memory.page(AT, 0x100).unwrap();
    let at_end = MemoryError::Unmapped {
        at: Gpa::new(0x4100),
    };
    assert_eq!(slice.read(0xf9, &mut [0; 8]), Err(at_end));
    assert_eq!(slice.write(0xf9, &[1; 8]), Err(at_end));
    assert_eq!(slice.write(0x100, &[1]), Err(at_end));
    assert_eq!(slice.store_u64(0x100, 1), Err(at_end));
    assert_eq!(slice.store_u8(0x100, 1), Err(at_end));
    assert_eq!(slice.fill(0, 0x101, 1), Err(at_end));
    assert_eq!(slice.fill_pattern(8, 0xf9, 0x12), Err(at_end));
    assert_eq!(slice.copy_to(0, &slice, 0x80, 0x81), Err(at_end));
    assert_eq!(slice.copy_to(0x80, &slice, 0, 0x81), Err(at_end));
    assert_eq!(slice.slice(0x80, 0x81).map(drop), Err(at_end));
    for offset in [u64::MAX, u64::MAX - 7, 1 << 63] {
        assert!(slice.read(offset, &mut [0; 8]).is_err());
        assert!(slice.fill(offset, u64::MAX, 1).is_err());
        assert!(slice.fill(8, offset, 1).is_err());
        assert!(slice.load_u64(offset & !7).is_err());
    }
    let mut all = vec![1; 8192];
    ram.read(0, &mut all).unwrap();
    assert!(all.iter().all(|it| *it == 0), "nothing was touched");
}

#[test]
fn a_page_lies_in_one_region() {
    let memory = GuestMemory::new();
    map(&memory, AT.get(), 1).unwrap();
    map(&memory, AT.get() + PAGE, 1).unwrap();
    let end = MemoryError::Unmapped {
        at: Gpa::new(AT.get() + PAGE),
    };
    assert_eq!(memory.page(AT, PAGE + 1).map(drop), Err(end));
    let page = memory.page(Gpa::new(AT.get() + 8), PAGE - 8).unwrap();
    assert_eq!((page.at().get(), page.len_bytes()), (0x4008, PAGE - 8));
}

#[test]
fn a_piece_of_a_slice_counts_from_its_own_start() {
    let whole = slice(1);
    let piece = whole.slice(0x100, 0x100).unwrap();
    let piece = piece.slice(0x10, 0x10).unwrap();
    piece.write(8, b"12345678").unwrap();
    assert_eq!(whole.load_u64(0x118), Ok(u64::from_le_bytes(*b"12345678")));
    assert!(piece.write(9, b"12345678").is_err());
}

#[test]
fn a_slice_of_a_read_only_region_is_read_only() {
    let memory = GuestMemory::new();
    let ram = ram(1);
    memory
        .map(AT, PAGE, ram.backing(), Protection::ReadOnly)
        .unwrap();
    let page = memory.page(AT, PAGE).unwrap();
    assert!(!page.is_writable());
    let refused = MemoryError::ReadOnly { at: AT };
    assert_eq!(page.write(0, &[1]), Err(refused));
    assert_eq!(page.store_u8(0, 1), Err(refused));
    assert_eq!(page.fill(0, PAGE, 1), Err(refused));
    assert_eq!(page.fill_pattern(0, 0, 0x12), Err(refused));
    assert_eq!(ram.slice().copy_to(0, &page, 0, 8), Err(refused));
    ram.write(0, b"x").unwrap();
    page.copy_to(0, ram.slice(), 8, 1).unwrap();
    assert_eq!(ram.load_u64(8), Ok(u64::from(b'x')));
}

/// What a translation cache holds when the tenant unmaps: it never faults, and the file is whole.
#[test]
fn r44_a_slice_reaches_the_old_memory_while_its_region_goes() {
    let memory = GuestMemory::new();
    let ram = map(&memory, AT.get(), 16).unwrap();
    ram.fill(0, 16 * PAGE, 0xa5).unwrap();
    let slice = memory.page(AT, 16 * PAGE).unwrap();
    let gone = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut passes_after = 0;
            while passes_after < 20 {
                passes_after += u32::from(gone.load(Ordering::Acquire));
                let mut seen = [0; 4096];
                for page in 0..16 {
                    slice.read(page * PAGE, &mut seen).unwrap();
                    assert!(seen.iter().all(|it| *it == 0xa5));
                }
            }
        });
        memory.unmap(AT, 16 * PAGE).unwrap();
        // Other memory takes its place in the space, and not in the slice.
        map(&memory, AT.get(), 16).unwrap();
        gone.store(true, Ordering::Release);
    });
    assert_eq!(memory.load_u64(AT), Ok(0));
    slice.store_u64(0, 3).unwrap();
    assert_eq!(ram.load_u64(0), Ok(3));
}

#[test]
fn copies_that_overlap_go_by_way_of_a_buffer() {
    for (from, to) in [(0, 100), (100, 0), (0, 0), (4096, 4095), (3, 4)] {
        let slice = slice(4);
        let data: Vec<u8> = (0..251).cycle().take(9000).collect();
        slice.write(from, &data).unwrap();
        slice.copy_to(from, &slice, to, 9000).unwrap();
        let mut moved = vec![0; 9000];
        slice.read(to, &mut moved).unwrap();
        assert!(moved == data, "{from} to {to}");
    }
}

#[test]
fn every_length_and_alignment_copies_exactly_its_bytes() {
    for len in (0..=80).chain([127, 128, 200]) {
        for offset in 0..16 {
            let slice = slice(1);
            let data: Vec<u8> = (1..=len).collect();
            slice.write(64 + offset, &data).unwrap();
            let mut around = vec![0; 512];
            slice.read(0, &mut around).unwrap();
            let start = 64 + usize::try_from(offset).unwrap();
            let end = start + usize::from(len);
            assert_eq!(around[start..end], data);
            assert!(
                around[..start]
                    .iter()
                    .chain(&around[end..])
                    .all(|b| *b == 0)
            );
            let mut back = vec![0; usize::from(len)];
            slice.read(64 + offset, &mut back).unwrap();
            assert_eq!(back, data, "{len} bytes at {offset}");
        }
    }
}

#[test]
fn a_pattern_starts_at_the_range_and_is_cut_at_its_end() {
    let slice = slice(1);
    slice.fill_pattern(3, 1021, 0x0807_0605_0403_0201).unwrap();
    let mut seen = vec![0; 1026];
    slice.read(0, &mut seen).unwrap();
    let expected = (1..=8_u8).cycle().take(1021);
    assert_eq!(seen[..3], [0; 3]);
    assert!(seen[3..1024].iter().copied().eq(expected));
    assert_eq!(seen[1024..], [0; 2]);
}

/// A descriptor or table entry that is written at the same time is never seen half a word old.
#[test]
fn short_aligned_copies_move_whole_words() {
    let memory = GuestMemory::new();
    map(&memory, 0, 1).unwrap();
    let (begun, done) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            for byte in (0..=u8::MAX).cycle() {
                memory.write(Gpa::new(64), &[byte; 64]).unwrap();
                begun.store(true, Ordering::Release);
                if done.load(Ordering::Acquire) {
                    break;
                }
            }
        });
        while !begun.load(Ordering::Acquire) {
            thread::yield_now();
        }
        let entries = (0..500_000).map(|_| memory.read_object::<[[u8; 8]; 8]>(Gpa::new(64)));
        let torn = entries
            .flat_map(Result::unwrap)
            .find(|it| *it != [it[0]; 8]);
        done.store(true, Ordering::Release);
        assert_eq!(torn, None);
    });
}

#[test]
fn threads_set_bits_without_losing_any() {
    let ram = ram(1);
    thread::scope(|scope| {
        for bit in 0..4 {
            let ram = &ram;
            scope.spawn(move || {
                for word in 0..255 {
                    ram.fetch_or_u64(word * 8, 1 << bit).unwrap();
                    ram.fetch_add_u64(2040, 1).unwrap();
                }
            });
        }
    });
    let adds = ram.load_u64(2040).unwrap();
    assert_eq!(adds, 4 * 255);
    assert!((0..255).all(|word| ram.load_u64(word * 8) == Ok(0xf)));
}

#[test]
fn shared_memory_is_made_of_whole_pages() {
    for len in [0, 1, 4097] {
        let error = SharedMemory::create("test", len).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
    let ram = ram(2);
    assert_eq!(ram.len_bytes(), 2 * PAGE);
    assert_eq!(ram.base_address() % PAGE, 0);
    let at = Gpa::new(2 * PAGE);
    assert_eq!(ram.load_u64(2 * PAGE), Err(MemoryError::Unmapped { at }));
}
