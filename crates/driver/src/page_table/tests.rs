//! The builder against a map from pages to frames, read back by a walk that shares nothing with it.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const MIB: u64 = 1 << 20;
const LARGE: u64 = PageSize::Size2M.bytes();

/// A walk as the manual's figure draws it: shifts, masks and loads, no types.
fn naive_walk(guest: &Guest, root: u64, at: u64) -> Option<(u64, bool, bool)> {
    let mut table = root;
    for shift in [39, 30, 21, 12] {
        let entry = guest
            .load_u64(Gpa::new(table + ((at >> shift) & 0x1ff) * 8))
            .unwrap();
        if entry & 1 == 0 {
            return None;
        }
        let address = entry & 0x000f_ffff_ffff_f000;
        if shift == 12 || (shift < 39 && entry & 0x80 != 0) {
            let inside = at & ((1 << shift) - 1);
            return Some((address + inside, entry & 2 != 0, entry & 4 != 0));
        }
        table = address;
    }
    None
}

fn seen(guest: &Guest, table: &PageTable, at: u64) -> Option<(u64, Rights)> {
    naive_walk(guest, table.root().get(), at).map(|(physical, write, user)| {
        let rights = match (user, write) {
            (false, _) => Rights::Kernel,
            (true, true) => Rights::ReadWrite,
            (true, false) => Rights::ReadOnly,
        };
        (physical, rights)
    })
}

#[test]
fn r3_a_page_is_where_it_was_mapped_and_nowhere_else() {
    let mut guest = Guest::new(8 * MIB).unwrap();
    let mut table = PageTable::new(&mut guest).unwrap();
    let frame = guest.take_zeroed(PageSize::Size4K).unwrap();
    let at = Iova::new(0x7f12_3456_7000);
    table.map(&mut guest, at, frame, Rights::ReadWrite).unwrap();
    let expected = Some((frame.at.get() + 0x123, Rights::ReadWrite));
    assert_eq!(seen(&guest, &table, at.get() + 0x123), expected);
    assert_eq!(seen(&guest, &table, at.get() + 0x1000), None);
    assert_eq!(seen(&guest, &table, at.get() - 1), None);
    let leaf = table.walk(&guest, at).unwrap();
    assert_eq!(
        leaf,
        Some(Leaf {
            frame,
            rights: Rights::ReadWrite
        })
    );
}

#[test]
fn r3_a_hole_in_a_large_page_leaves_the_rest_of_it() {
    let mut guest = Guest::new(8 * MIB).unwrap();
    let mut table = PageTable::new(&mut guest).unwrap();
    let frame = guest.take_zeroed(PageSize::Size2M).unwrap();
    table
        .map(&mut guest, Iova::new(LARGE), frame, Rights::ReadOnly)
        .unwrap();
    table
        .unmap(&mut guest, Iova::new(LARGE + 0x5000), 0x1000)
        .unwrap();
    assert_eq!(seen(&guest, &table, LARGE + 0x5000), None);
    for offset in [0, 0x4fff, 0x6000, LARGE - 1] {
        let expected = Some((frame.at.get() + offset, Rights::ReadOnly));
        assert_eq!(seen(&guest, &table, LARGE + offset), expected);
    }
}

#[test]
fn what_is_mapped_is_not_mapped_over() {
    let mut guest = Guest::new(8 * MIB).unwrap();
    let mut table = PageTable::new(&mut guest).unwrap();
    let small = guest.take_zeroed(PageSize::Size4K).unwrap();
    let large = guest.take_zeroed(PageSize::Size2M).unwrap();
    table
        .map(&mut guest, Iova::new(0x3000), small, Rights::ReadWrite)
        .unwrap();
    let refused = table.map(&mut guest, Iova::new(0), large, Rights::ReadWrite);
    assert!(
        matches!(refused, Err(DriverError::Mapped { .. })),
        "{refused:?}"
    );
    table.unmap(&mut guest, Iova::new(0x3000), 0x1000).unwrap();
    table
        .map(&mut guest, Iova::new(0), large, Rights::ReadWrite)
        .unwrap();
    let refused = table.map(&mut guest, Iova::new(0x3000), small, Rights::ReadWrite);
    assert!(
        matches!(refused, Err(DriverError::Mapped { .. })),
        "{refused:?}"
    );
}

#[test]
fn addresses_that_no_process_has_are_refused() {
    let mut guest = Guest::new(4 * MIB).unwrap();
    let mut table = PageTable::new(&mut guest).unwrap();
    let frame = guest.take_zeroed(PageSize::Size4K).unwrap();
    for at in [1 << 47, u64::MAX - 0xfff, 0x1001] {
        let refused = table.map(&mut guest, Iova::new(at), frame, Rights::ReadOnly);
        assert!(
            matches!(refused, Err(DriverError::BadRange { .. })),
            "{at:#x}: {refused:?}"
        );
    }
    assert!(table.unmap(&mut guest, Iova::new(0), !0xfff).is_err());
    assert!(
        table
            .protect(&mut guest, Iova::new(0), 0, Rights::ReadOnly)
            .is_err()
    );
}

#[test]
fn released_tables_can_be_used_again() {
    let mut guest = Guest::new(4 * MIB).unwrap();
    let before = guest.free_bytes();
    let mut table = PageTable::new(&mut guest).unwrap();
    let frame = guest.take_zeroed(PageSize::Size4K).unwrap();
    table
        .map(&mut guest, Iova::new(0x4000_0000), frame, Rights::ReadOnly)
        .unwrap();
    table.release(&mut guest);
    guest.give_back(frame);
    assert_eq!(guest.free_bytes(), before);
}

#[derive(Clone, Debug)]
enum Step {
    Map4K(u64),
    Map2M(u64),
    Unmap(u64, u64),
    Protect(u64, u64, Rights),
}

/// Addresses around a boundary of every level, in units of 4 KiB, over 8 MiB.
const BASE: u64 = (1 << 39) - 4 * MIB;
const PAGES: u64 = 8 * MIB / PAGE_BYTES;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let rights = prop_oneof![
        Just(Rights::ReadOnly),
        Just(Rights::ReadWrite),
        Just(Rights::Kernel)
    ];
    let step = prop_oneof![
        3 => (0..PAGES).prop_map(Step::Map4K),
        3 => (0..4_u64).prop_map(Step::Map2M),
        2 => (0..PAGES, 1..1200_u64).prop_map(|(at, len)| Step::Unmap(at, len)),
        2 => (0..PAGES, 1..1200_u64, rights).prop_map(|(at, len, to)| Step::Protect(at, len, to)),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn r3_the_tables_say_what_was_mapped_unmapped_and_protected(steps in steps()) {
        let mut guest = Guest::new(48 * MIB).unwrap();
        let mut table = PageTable::new(&mut guest).unwrap();
        let mut model: BTreeMap<u64, (u64, Rights)> = BTreeMap::new();
        // Frames are only numbers here: nothing is written through them.
        let mut next_frame = 1_u64 << 32;
        for step in steps {
            match step {
                Step::Map4K(page) | Step::Map2M(page) => {
                    let size = match step {
                        Step::Map4K(_) => PageSize::Size4K,
                        _ => PageSize::Size2M,
                    };
                    let pages = size.bytes() / PAGE_BYTES;
                    let first = if pages == 1 { page } else { page * pages };
                    let frame = Frame { at: Gpa::new(next_frame), size };
                    next_frame += LARGE;
                    let at = Iova::new(BASE + first * PAGE_BYTES);
                    let done = table.map(&mut guest, at, frame, Rights::ReadWrite);
                    let free = model.range(first..first + pages).next().is_none();
                    prop_assert_eq!(done.is_ok(), free);
                    if free {
                        model.extend((0..pages).map(|i| {
                            (first + i, (frame.at.get() + i * PAGE_BYTES, Rights::ReadWrite))
                        }));
                    }
                }
                Step::Unmap(first, len) => {
                    let at = Iova::new(BASE + first * PAGE_BYTES);
                    table.unmap(&mut guest, at, len * PAGE_BYTES).unwrap();
                    model.retain(|page, _| !(first..first + len).contains(page));
                }
                Step::Protect(first, len, rights) => {
                    let at = Iova::new(BASE + first * PAGE_BYTES);
                    table.protect(&mut guest, at, len * PAGE_BYTES, rights).unwrap();
                    model.range_mut(first..first + len).for_each(|(_, to)| to.1 = rights);
                }
            }
        }
        for page in 0..PAGES {
            let at = BASE + page * PAGE_BYTES;
            prop_assert_eq!(seen(&guest, &table, at), model.get(&page).copied(), "{:#x}", at);
            let leaf = table.walk(&guest, Iova::new(at)).unwrap();
            prop_assert_eq!(leaf.map(|leaf| leaf.rights), model.get(&page).map(|to| to.1));
        }
    }
}
