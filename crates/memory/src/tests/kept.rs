//! Regions kept under numbers: bounded, for keeps, and let go when told.

use super::{PAGE, map, ram};
use crate::{GuestMemory, Kept, MemoryError, Protection};
use palisade_units::Gpa;

#[test]
fn a_place_is_where_the_snapshot_has_it_and_is_bounded_by_its_region() {
    let memory = GuestMemory::new();
    let low = map(&memory, 0x4000, 1).unwrap();
    let high = map(&memory, 0x8000, 4).unwrap();
    let mut kept = Kept::new();
    assert!(kept.is_empty());
    let snapshot = memory.snapshot();
    let now = kept.keep(&snapshot);
    assert_eq!(kept.keep(&snapshot), now, "kept once");
    low.store_u64(8, 1).unwrap();
    high.store_u64(16, 2).unwrap();
    let place = kept.find(now, Gpa::new(0x4000), PAGE).unwrap();
    assert_eq!(kept.load_u64(place.after(8)), Ok(1));
    let other = kept.find(now, Gpa::new(0x8010), 8).unwrap();
    assert_eq!(kept.load_u64(other), Ok(2));
    assert!(kept.reach(place, PAGE + 1).is_err());
    assert!(kept.reach(place.after(PAGE), 1).is_err());
    assert!(kept.reach(place.after(u64::MAX), 1).is_err());
    let hole = kept.find(now, Gpa::new(0x5000), 1);
    let at = Gpa::new(0x5000);
    assert_eq!(hole, Err(MemoryError::Unmapped { at }));
    assert!(kept.find(now, Gpa::new(0x4000), PAGE + 1).is_err());
}

#[test]
fn bytes_move_between_places_and_only_where_they_may() {
    let memory = GuestMemory::new();
    map(&memory, 0, 1).unwrap();
    let fixed = ram(1);
    let backing = fixed.backing();
    memory
        .map(Gpa::new(0x1000), PAGE, backing, Protection::ReadOnly)
        .unwrap();
    let mut kept = Kept::new();
    let now = kept.keep(&memory.snapshot());
    let reach = |kept: &Kept, at: u64, len| kept.find(now, Gpa::new(at), len).map(|it| (it, len));
    let (from, len) = reach(&kept, 0, 8).unwrap();
    let from = kept.reach(from, len).unwrap();
    assert!(from.is_writable());
    assert_eq!(from.len_bytes(), 8);
    from.write(b"abcdefgh").unwrap();
    let (to, len) = reach(&kept, 0x100, 8).unwrap();
    let to = kept.reach(to, len).unwrap();
    from.copy_to(to).unwrap();
    let mut back = [0; 8];
    to.read(&mut back).unwrap();
    assert_eq!(&back, b"abcdefgh");
    to.fill_pattern(0x0101_0101_0101_0101).unwrap();
    to.read(&mut back).unwrap();
    assert_eq!(back, [1; 8]);
    let (fixed, len) = reach(&kept, 0x1000, 8).unwrap();
    let fixed = kept.reach(fixed, len).unwrap();
    assert!(!fixed.is_writable());
    let at = Gpa::new(0x1000);
    assert_eq!(fixed.write(&[1]), Err(MemoryError::ReadOnly { at }));
    assert_eq!(from.copy_to(fixed), Err(MemoryError::ReadOnly { at }));
}

#[test]
fn r44_what_is_let_go_is_reached_no_more_and_the_rest_stays() {
    let memory = GuestMemory::new();
    map(&memory, 0, 1).unwrap();
    map(&memory, 0x1000, 1).unwrap();
    let mut kept = Kept::new();
    let now = kept.keep(&memory.snapshot());
    let stays = kept.find(now, Gpa::new(0), 8).unwrap();
    let goes = kept.find(now, Gpa::new(0x1000), 8).unwrap();
    memory.unmap_all();
    assert_eq!(kept.load_u64(goes), Ok(0), "for keeps");
    kept.let_go_except([stays]);
    assert_eq!(kept.load_u64(stays), Ok(0));
    assert!(kept.load_u64(goes).is_err());
    assert!(kept.snapshot(now).is_none());
    kept.let_go();
    assert!(kept.is_empty());
    assert!(kept.load_u64(stays).is_err());
}
