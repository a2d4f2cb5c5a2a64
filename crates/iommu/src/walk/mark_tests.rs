//! Accessed, dirty and extended accessed flags: of second stages, under nesting, and where they cannot
//! be set. Those of first stages alone are in `tests`.

use palisade_units::{Access, Gpa, Iova};

use super::naive::Physical;
use super::{Leaf, Marked, Prefix, Refusal, TableError, Tables, translate};
use crate::space::{
    AccessedDirty, ExtendedAccessed, FirstStage, Levels, PageWalkSnoop, SecondStage, Space,
};
use crate::{FaultReason, FaultReason as Why};

const READ: Access = Access::READ;
const WRITE: Access = Access::WRITE;

/// Of a first stage: present, writable, for users; accessed, dirty, extended accessed.
const FIRST: u64 = 7;
const FIRST_A: u64 = 1 << 5;
const FIRST_D: u64 = 1 << 6;
const FIRST_EA: u64 = 1 << 10;
/// Of a second stage: readable, writable; accessed, dirty.
const SECOND: u64 = 3;
const A: u64 = 1 << 8;
const D: u64 = 1 << 9;
const PS: u64 = 1 << 7;

/// A second stage of three levels at pages 1 to 3, which leads address 0 to page 0xabc.
fn ladder() -> Physical {
    let memory = Physical {
        pages: (1..32).collect(),
        ..Physical::default()
    };
    memory.put(0x1000, 0x2000 | SECOND);
    memory.put(0x2000, 0x3000 | SECOND);
    memory.put(0x3000, 0xabc000 | SECOND);
    memory
}

fn second() -> SecondStage {
    SecondStage {
        accessed_dirty: AccessedDirty::On,
        ..SecondStage::new(Gpa::new(0x1000), Levels::Three)
    }
}

fn walk<T: Tables>(space: Space, memory: &T, access: Access) -> Result<Leaf, Refusal> {
    translate(&space, memory, Iova::new(0x123), access, Prefix::Pasid)
}

fn reason(result: Result<Leaf, Refusal>) -> FaultReason {
    result.expect_err("the walk must be refused").reason
}

/// The flags of the entries at these addresses.
fn flags<const N: usize>(memory: &Physical, mask: u64, at: [u64; N]) -> [u64; N] {
    at.map(|at| memory.word(at).unwrap() & mask)
}

#[test]
fn r38_a_second_stage_is_marked_where_the_entry_enables_it() {
    let memory = ladder();
    let entries = [0x1000, 0x2000, 0x3000];
    walk(Space::SecondStage(second()), &memory, READ).unwrap();
    assert_eq!(flags(&memory, A | D, entries), [A, A, A]);
    walk(Space::SecondStage(second()), &memory, WRITE).unwrap();
    assert_eq!(flags(&memory, A | D, entries), [A, A, A | D]);

    let memory = ladder();
    let off = SecondStage::new(Gpa::new(0x1000), Levels::Three);
    walk(Space::SecondStage(off), &memory, WRITE).unwrap();
    assert_eq!(memory, ladder(), "bits 8 and 9 are the guest's");
}

#[test]
fn r38_a_large_page_of_a_second_stage_is_a_leaf_that_becomes_dirty() {
    let memory = ladder();
    memory.put(0x2000, 0x4000_0000 | SECOND | PS);
    walk(Space::SecondStage(second()), &memory, WRITE).unwrap();
    let marked = flags(&memory, A | D, [0x1000, 0x2000, 0x3000]);
    assert_eq!(marked, [A, A | D, 0]);
}

#[test]
fn r38_a_second_stage_that_refuses_is_not_marked() {
    let memory = ladder();
    memory.put(0x3000, 0xabc000 | 1);
    let result = walk(Space::SecondStage(second()), &memory, WRITE);
    assert_eq!(reason(result), Why::NotWritable);
    assert_eq!(flags(&memory, A | D, [0x1000, 0x2000, 0x3000]), [0, 0, 0]);
}

#[test]
fn r59_7ch_second_stage_mark_incoherent_only_where_a_bit_is_to_be_set() {
    let incoherent = SecondStage {
        page_walk_snoop: PageWalkSnoop::Off,
        ..second()
    };
    let space = Space::SecondStage(incoherent);
    let memory = ladder();
    assert_eq!(
        reason(walk(space, &memory, READ)),
        Why::SecondStageMarkIncoherent
    );
    assert_eq!(memory, ladder());
    // What is marked already needs no mark: reads go on, a first write does not.
    walk(Space::SecondStage(second()), &memory, READ).unwrap();
    walk(space, &memory, READ).unwrap();
    assert_eq!(
        reason(walk(space, &memory, WRITE)),
        Why::SecondStageMarkIncoherent
    );
    // Without A/D there is nothing to set.
    let unmarked = SecondStage {
        accessed_dirty: AccessedDirty::Off,
        ..incoherent
    };
    walk(Space::SecondStage(unmarked), &ladder(), WRITE).unwrap();
}

#[test]
fn r59_7dh_second_stage_mark_failed_in_memory_that_cannot_be_written() {
    let mut memory = ladder();
    memory.read_only.insert(2);
    let result = walk(Space::SecondStage(second()), &memory, READ);
    assert_eq!(reason(result), Why::SecondStageMarkFailed);
}

/// Memory in which a guest changes each entry just before it is marked.
struct Restless(Physical);

impl Tables for Restless {
    fn load(&self, at: Gpa) -> Result<u64, TableError> {
        self.0.load(at)
    }

    fn mark(&self, at: Gpa, seen: u64, marked: u64) -> Result<Marked, TableError> {
        self.0.put(at.get(), seen ^ 1 << 4);
        self.0.mark(at, seen, marked)
    }
}

#[test]
fn r59_7dh_a_guest_that_keeps_changing_its_second_stage_ends_in_a_fault() {
    let memory = Restless(ladder());
    let result = walk(Space::SecondStage(second()), &memory, READ);
    assert_eq!(reason(result), Why::SecondStageMarkFailed);
}

#[test]
fn r59_90h_first_stage_mark_incoherent_only_where_a_bit_is_to_be_set() {
    let coherent = FirstStage::new(Gpa::new(0x8000), Levels::Four);
    let incoherent = FirstStage {
        page_walk_snoop: PageWalkSnoop::Off,
        ..coherent
    };
    let memory = nested_memory();
    let result = walk(Space::FirstStage(incoherent), &memory, READ);
    assert_eq!(reason(result), Why::FirstStageMarkIncoherent);
    assert_eq!(memory, nested_memory());
    walk(Space::FirstStage(coherent), &memory, READ).unwrap();
    walk(Space::FirstStage(incoherent), &memory, READ).unwrap();
    let result = walk(Space::FirstStage(incoherent), &memory, WRITE);
    assert_eq!(reason(result), Why::FirstStageMarkIncoherent);
    // The extended flag is a mark as any other.
    let extended = FirstStage {
        extended_accessed: ExtendedAccessed::On,
        ..incoherent
    };
    let result = walk(Space::FirstStage(extended), &memory, READ);
    assert_eq!(reason(result), Why::FirstStageMarkIncoherent);
}

const FIRST_TABLES: [u64; 4] = [0x8000, 0x9000, 0xa000, 0xb000];

#[test]
fn r38_the_extended_accessed_flag_is_set_in_every_entry_where_it_is_enabled() {
    let stage = FirstStage::new(Gpa::new(0x8000), Levels::Four);
    let mask = FIRST_A | FIRST_D | FIRST_EA;
    let memory = nested_memory();
    walk(Space::FirstStage(stage), &memory, READ).unwrap();
    assert_eq!(flags(&memory, mask, FIRST_TABLES), [FIRST_A; 4]);
    let extended = FirstStage {
        extended_accessed: ExtendedAccessed::On,
        ..stage
    };
    // Entries that only lack the extended flag get it.
    walk(Space::FirstStage(extended), &memory, READ).unwrap();
    let used = FIRST_A | FIRST_EA;
    assert_eq!(flags(&memory, mask, FIRST_TABLES), [used; 4]);
    walk(Space::FirstStage(extended), &memory, WRITE).unwrap();
    let written = used | FIRST_D;
    assert_eq!(
        flags(&memory, mask, FIRST_TABLES),
        [used, used, used, written]
    );
}

/// Where the second stage's leaves for the pages of the first stage's tables stand.
const TABLE_LEAVES: [u64; 4] = [0x3040, 0x3048, 0x3050, 0x3058];
/// Where that for the page stands.
const PAGE_LEAF: u64 = 0x4000 + 0xbc * 8;

/// A first stage of four levels at pages 8 to 11, which leads address 0 to page 0xabc, and a second
/// stage of three at pages 1 to 4, which leads these pages and 0xabc to themselves.
fn nested_memory() -> Physical {
    let memory = ladder();
    for (at, next) in FIRST_TABLES
        .into_iter()
        .zip([0x9000, 0xa000, 0xb000, 0xabc000])
    {
        memory.put(at, next | FIRST);
    }
    memory.put(0x2000 + 5 * 8, 0x4000 | SECOND);
    for (at, page) in TABLE_LEAVES.into_iter().zip(FIRST_TABLES) {
        memory.put(at, page | SECOND);
    }
    memory.put(PAGE_LEAF, 0xabc000 | SECOND);
    memory
}

fn nested(first: FirstStage) -> Space {
    Space::Nested(first, second())
}

fn first() -> FirstStage {
    FirstStage::new(Gpa::new(0x8000), Levels::Four)
}

#[test]
fn r38_under_nesting_reads_of_first_stage_tables_mark_the_second_stage_accessed() {
    let memory = nested_memory();
    // The first stage needs no marks.
    for at in FIRST_TABLES {
        memory.put(at, memory.word(at).unwrap() | FIRST_A | FIRST_D);
    }
    walk(nested(first()), &memory, READ).unwrap();
    assert_eq!(flags(&memory, A | D, TABLE_LEAVES), [A; 4]);
    assert_eq!(flags(&memory, A | D, [PAGE_LEAF]), [A]);
    walk(nested(first()), &memory, WRITE).unwrap();
    assert_eq!(flags(&memory, A | D, TABLE_LEAVES), [A; 4]);
    assert_eq!(flags(&memory, A | D, [PAGE_LEAF]), [A | D]);
    assert_eq!(flags(&memory, A | D, [0x1000, 0x2000]), [A; 2]);
}

#[test]
fn r38_under_nesting_marks_of_first_stage_tables_make_the_second_stage_dirty() {
    let memory = nested_memory();
    walk(nested(first()), &memory, READ).unwrap();
    assert_eq!(flags(&memory, FIRST_A, FIRST_TABLES), [FIRST_A; 4]);
    assert_eq!(flags(&memory, A | D, TABLE_LEAVES), [A | D; 4]);
    assert_eq!(flags(&memory, A | D, [PAGE_LEAF]), [A]);
}

#[test]
fn r59_7ch_7dh_under_nesting_keep_their_codes() {
    let incoherent = SecondStage {
        page_walk_snoop: PageWalkSnoop::Off,
        ..second()
    };
    let result = walk(Space::Nested(first(), incoherent), &nested_memory(), READ);
    assert_eq!(reason(result), Why::SecondStageMarkIncoherent);

    let mut memory = nested_memory();
    memory.read_only.insert(3);
    assert_eq!(
        reason(walk(nested(first()), &memory, READ)),
        Why::SecondStageMarkFailed
    );
}

#[test]
fn r59_78h_7ah_7bh_under_nesting_keep_their_codes() {
    let memory = nested_memory();
    memory.put(0x2000, 0x77_0000 | SECOND);
    let result = walk(nested(first()), &memory, READ);
    assert_eq!(reason(result), Why::SecondStageAccess);

    let memory = nested_memory();
    memory.put(0x2000, 0x3000 | SECOND | 1 << 11);
    let result = walk(nested(first()), &memory, READ);
    assert_eq!(reason(result), Why::SecondStageReserved);

    let nowhere = SecondStage {
        root: Gpa::new(0x77_0000),
        ..second()
    };
    let result = walk(Space::Nested(first(), nowhere), &nested_memory(), READ);
    assert_eq!(reason(result), Why::SecondStageRootAccess);
}

#[test]
fn r59_91h_under_nesting_where_the_second_stage_allows_what_memory_does_not() {
    let mut memory = nested_memory();
    memory.read_only.insert(9);
    let result = walk(nested(first()), &memory, READ);
    assert_eq!(reason(result), Why::FirstStageMarkFailed);
}
