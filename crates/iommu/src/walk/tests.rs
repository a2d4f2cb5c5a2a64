use palisade_units::{Access, Gpa, Iova, PageSize};

use super::naive::Physical;
use super::{Leaf, Marked, Mend, Prefix, Refusal, TableError, Tables, translate};
use crate::space::{
    ExecuteRequests, FirstStage, Levels, NoExecute, SecondStage, Space, SupervisorExecution,
    SupervisorRequests, WriteProtect,
};
use crate::{FaultReason, FaultReason as Why};

const READ: Access = Access::READ;
const WRITE: Access = Access::WRITE;
const FETCH: Access = Access::READ.union(Access::EXECUTE);

/// Bits of a first-stage entry.
const P: u64 = 1;
const RW: u64 = 2;
const US: u64 = 4;
const A: u64 = 1 << 5;
const D: u64 = 1 << 6;
const PS: u64 = 1 << 7;
const XD: u64 = 1 << 63;
const ALL: u64 = P | RW | US;

/// Tables at 0x1000, 0x2000, …, one for each level from the top, all for address 0 and its page; the
/// leaf of 4 KiB leads to 0xabc000.
fn ladder(levels: Levels) -> Physical {
    let memory = Physical {
        pages: (1..16).collect(),
        ..Physical::default()
    };
    let depth = u64::from(levels.count());
    for step in 1..depth {
        memory.put(step * 0x1000, ((step + 1) * 0x1000) | ALL);
    }
    memory.put(depth * 0x1000, 0xabc000 | ALL);
    memory
}

fn first(levels: Levels) -> FirstStage {
    FirstStage::new(Gpa::new(0x1000), levels)
}

fn walk(stage: FirstStage, memory: &Physical, at: u64, access: Access) -> Result<Leaf, Refusal> {
    translate(
        &Space::FirstStage(stage),
        memory,
        Iova::new(at),
        access,
        Prefix::Pasid,
    )
}

fn reason(result: Result<Leaf, Refusal>) -> FaultReason {
    result.expect_err("the walk must be refused").reason
}

fn at(leaf: Result<Leaf, Refusal>) -> u64 {
    leaf.expect("the walk must succeed").at.get()
}

#[test]
fn r37_first_stages_of_four_and_five_levels_reach_the_page() {
    for levels in [Levels::Four, Levels::Five] {
        let leaf = walk(first(levels), &ladder(levels), 0x123, READ);
        assert_eq!(
            leaf,
            Ok(Leaf {
                at: Gpa::new(0xabc123),
                size: PageSize::Size4K
            })
        );
    }
}

#[test]
fn r37_large_pages_keep_the_low_bits_of_the_address() {
    let memory = ladder(Levels::Four);
    memory.put(0x3000, 0x4000_0000 | ALL | PS | 1 << 12);
    let leaf = walk(first(Levels::Four), &memory, 0x1f_f123, READ);
    assert_eq!(
        leaf,
        Ok(Leaf {
            at: Gpa::new(0x401f_f123),
            size: PageSize::Size2M
        })
    );
    memory.put(0x2000, 0x8000_0000 | ALL | PS);
    let leaf = walk(first(Levels::Four), &memory, 0x3fff_f123, READ);
    assert_eq!(
        leaf,
        Ok(Leaf {
            at: Gpa::new(0xbfff_f123),
            size: PageSize::Size1G
        })
    );
}

#[test]
fn r59_5ch_execute_request_disabled() {
    let stage = first(Levels::Four);
    assert_eq!(
        reason(walk(stage, &ladder(Levels::Four), 0, FETCH)),
        Why::ExecuteRequestDisabled
    );
}

#[test]
fn r59_r38_5dh_supervisor_request_disabled() {
    let result = walk(
        first(Levels::Four),
        &ladder(Levels::Four),
        0,
        READ | Access::PRIVILEGED,
    );
    assert_eq!(reason(result), Why::SupervisorRequestDisabled);
}

#[test]
fn r59_70h_first_stage_access() {
    let memory = ladder(Levels::Four);
    memory.put(0x1000, 0x77_0000 | ALL);
    assert_eq!(
        reason(walk(first(Levels::Four), &memory, 0, READ)),
        Why::FirstStageAccess
    );
}

#[test]
fn r59_71h_first_stage_not_present_may_be_mended() {
    for step in 1..=4 {
        let memory = ladder(Levels::Four);
        memory.put(step * 0x1000, 0);
        let refusal = walk(first(Levels::Four), &memory, 0, READ).unwrap_err();
        let mend = Mend::ByPageRequest;
        assert_eq!(
            refusal,
            Refusal {
                reason: Why::FirstStageNotPresent,
                mend
            }
        );
    }
}

#[test]
fn r59_72h_first_stage_reserved() {
    for (table, wrong) in [
        (0x1000, 0x2000 | ALL | PS),
        (0x2000, 0x2000 | ALL | PS),
        (0x3000, 0x2000 | ALL | PS),
        (0x4000, 0xabc000 | ALL | XD),
    ] {
        let memory = ladder(Levels::Four);
        memory.put(table, wrong);
        assert_eq!(
            reason(walk(first(Levels::Four), &memory, 0, READ)),
            Why::FirstStageReserved
        );
    }
}

#[test]
fn r59_73h_first_stage_root_access() {
    let stage = FirstStage::new(Gpa::new(0x77_0000), Levels::Four);
    let result = walk(stage, &ladder(Levels::Four), 0, READ);
    assert_eq!(reason(result), Why::FirstStageRootAccess);
}

#[test]
fn r59_80h_not_canonical() {
    let memory = ladder(Levels::Five);
    for (levels, address) in [
        (Levels::Four, 1 << 47),
        (Levels::Four, 0xffff_7fff_ffff_ffff),
        (Levels::Five, 1 << 56),
    ] {
        assert_eq!(
            reason(walk(first(levels), &memory, address, READ)),
            Why::NotCanonical
        );
    }
}

#[test]
fn r59_r38_81h_supervisor_page() {
    let memory = ladder(Levels::Four);
    memory.put(0x2000, 0x3000 | P | RW);
    assert_eq!(
        reason(walk(first(Levels::Four), &memory, 0, READ)),
        Why::SupervisorPage
    );
    let stage = FirstStage {
        supervisor: SupervisorRequests::Allowed,
        ..first(Levels::Four)
    };
    assert_eq!(
        at(walk(stage, &memory, 0, READ | Access::PRIVILEGED)),
        0xabc000
    );
}

#[test]
fn r59_r38_82h_not_executable() {
    let memory = ladder(Levels::Four);
    memory.put(0x4000, 0xabc000 | ALL | XD);
    let stage = FirstStage {
        execute: ExecuteRequests::Allowed,
        no_execute: NoExecute::Honoured,
        ..first(Levels::Four)
    };
    assert_eq!(reason(walk(stage, &memory, 0, FETCH)), Why::NotExecutable);
    assert_eq!(at(walk(stage, &memory, 0, READ)), 0xabc000);
}

#[test]
fn r38_a_privileged_request_may_not_execute_user_pages_under_smep() {
    let memory = ladder(Levels::Four);
    let open = FirstStage {
        execute: ExecuteRequests::Allowed,
        supervisor: SupervisorRequests::Allowed,
        ..first(Levels::Four)
    };
    let kept = FirstStage {
        supervisor_execution: SupervisorExecution::SupervisorPages,
        ..open
    };
    assert_eq!(
        at(walk(open, &memory, 0, FETCH | Access::PRIVILEGED)),
        0xabc000
    );
    assert_eq!(
        reason(walk(kept, &memory, 0, FETCH | Access::PRIVILEGED)),
        Why::NotExecutable
    );
}

#[test]
fn r59_r38_85h_not_writable_for_users_and_under_wpe_for_all() {
    let memory = ladder(Levels::Four);
    memory.put(0x3000, 0x4000 | P | US);
    let open = FirstStage {
        supervisor: SupervisorRequests::Allowed,
        ..first(Levels::Four)
    };
    let wpe = FirstStage {
        write_protect: WriteProtect::All,
        ..open
    };
    let mend = Mend::ByPageRequest;
    let refused = Err(Refusal {
        reason: Why::NotWritable,
        mend,
    });
    assert_eq!(walk(open, &memory, 0, WRITE), refused);
    assert_eq!(walk(wpe, &memory, 0, WRITE | Access::PRIVILEGED), refused);
    assert_eq!(
        at(walk(open, &memory, 0, WRITE | Access::PRIVILEGED)),
        0xabc000
    );
}

#[test]
fn r59_87h_interrupt_range_as_a_result() {
    let memory = ladder(Levels::Four);
    memory.put(0x4000, 0xfee0_1000 | ALL);
    assert_eq!(
        reason(walk(first(Levels::Four), &memory, 0, WRITE)),
        Why::InterruptRange
    );
}

#[test]
fn r59_87h_interrupt_range_as_an_address_without_a_pasid() {
    let (memory, at) = (Physical::default(), Iova::new(0xfee0_0000));
    let space = Space::FirstStage(first(Levels::Four));
    let result = translate(&space, &memory, at, WRITE, Prefix::None);
    assert_eq!(reason(result), Why::InterruptRange);
    // With a PASID it is an address like any other.
    let result = translate(&space, &memory, at, WRITE, Prefix::Pasid);
    assert_eq!(reason(result), Why::FirstStageRootAccess);
}

#[test]
fn r59_83h_pass_through_beyond_the_host_width() {
    let at = Iova::new(1 << 52);
    let result = translate(
        &Space::PassThrough,
        &Physical::default(),
        at,
        READ,
        Prefix::None,
    );
    assert_eq!(reason(result), Why::BeyondHostWidth);
}

#[test]
fn r59_91h_first_stage_mark_failed_in_memory_that_cannot_be_written() {
    let mut memory = ladder(Levels::Four);
    memory.read_only.insert(2);
    assert_eq!(
        reason(walk(first(Levels::Four), &memory, 0, READ)),
        Why::FirstStageMarkFailed
    );
}

#[test]
fn r38_accessed_and_dirty_bits_are_set_by_what_succeeds() {
    let memory = ladder(Levels::Four);
    let words = |memory: &Physical| [1, 2, 3, 4].map(|n| memory.word(n * 0x1000).unwrap());
    walk(first(Levels::Four), &memory, 0, READ).unwrap();
    assert!(words(&memory).iter().all(|word| word & (A | D) == A));
    walk(first(Levels::Four), &memory, 0, WRITE).unwrap();
    assert_eq!(words(&memory).map(|word| word & D), [0, 0, 0, D]);

    let refused = ladder(Levels::Four);
    refused.put(0x4000, 0xabc000 | P | US);
    walk(first(Levels::Four), &refused, 0, WRITE).unwrap_err();
    assert!(words(&refused).iter().all(|word| word & (A | D) == 0));
}

/// Memory in which a guest changes each entry just before it is marked.
struct Restless(Physical);

impl Tables for Restless {
    fn load(&self, at: Gpa) -> Result<u64, TableError> {
        self.0.load(at)
    }

    fn mark(&self, at: Gpa, seen: u64, marked: u64) -> Result<Marked, TableError> {
        self.0.put(at.get(), seen ^ 1 << 9);
        self.0.mark(at, seen, marked)
    }
}

#[test]
fn r59_91h_a_guest_that_keeps_changing_its_table_ends_in_a_fault() {
    let memory = Restless(ladder(Levels::Four));
    let space = Space::FirstStage(first(Levels::Four));
    let result = translate(&space, &memory, Iova::new(0), READ, Prefix::Pasid);
    assert_eq!(reason(result), Why::FirstStageMarkFailed);
}

fn second(memory: &Physical, levels: Levels, at: u64, access: Access) -> Result<Leaf, Refusal> {
    let stage = SecondStage::new(Gpa::new(0x1000), levels);
    translate(
        &Space::SecondStage(stage),
        memory,
        Iova::new(at),
        access,
        Prefix::Pasid,
    )
}

#[test]
fn r37_second_stages_of_three_to_five_levels_reach_the_page() {
    for levels in [Levels::Three, Levels::Four, Levels::Five] {
        assert_eq!(at(second(&ladder(levels), levels, 0x123, READ)), 0xabc123);
    }
    let memory = ladder(Levels::Three);
    memory.put(0x2000, 0x4000_0000 | 3 | PS);
    assert_eq!(
        at(second(&memory, Levels::Three, 0x1f_f123, WRITE)),
        0x401f_f123
    );
}

#[test]
fn r59_78h_second_stage_access() {
    let memory = ladder(Levels::Three);
    memory.put(0x1000, 0x77_0000 | 3);
    assert_eq!(
        reason(second(&memory, Levels::Three, 0, READ)),
        Why::SecondStageAccess
    );
}

#[test]
fn r59_79h_second_stage_not_present_by_one_entry_or_by_several() {
    let memory = ladder(Levels::Three);
    memory.put(0x3000, 0xabc000);
    assert_eq!(
        reason(second(&memory, Levels::Three, 0, READ)),
        Why::SecondStageNotPresent
    );
    let memory = ladder(Levels::Three);
    memory.put(0x1000, 0x2000 | 1);
    memory.put(0x2000, 0x3000 | 2);
    assert_eq!(
        reason(second(&memory, Levels::Three, 0, READ)),
        Why::SecondStageNotPresent
    );
}

#[test]
fn r59_7ah_second_stage_reserved() {
    for (table, wrong) in [(0x1000, 0x2000 | 3 | PS), (0x2000, 0x1000 | 3 | PS)] {
        let memory = ladder(Levels::Four);
        memory.put(table, wrong);
        assert_eq!(
            reason(second(&memory, Levels::Four, 0, READ)),
            Why::SecondStageReserved
        );
    }
}

#[test]
fn r59_7bh_second_stage_root_access() {
    let result = second(&Physical::default(), Levels::Three, 0, READ);
    assert_eq!(reason(result), Why::SecondStageRootAccess);
}

#[test]
fn r59_5ch_nothing_is_executed_without_a_first_stage() {
    let stage = SecondStage::new(Gpa::new(0x1000), Levels::Three);
    for space in [Space::SecondStage(stage), Space::PassThrough] {
        let memory = ladder(Levels::Three);
        let result = translate(&space, &memory, Iova::new(0), FETCH, Prefix::Pasid);
        assert_eq!(reason(result), Why::ExecuteRequestDisabled, "{space:?}");
    }
}

#[test]
fn r59_84h_beyond_the_second_stage_width() {
    let result = second(&ladder(Levels::Three), Levels::Three, 1 << 39, READ);
    assert_eq!(reason(result), Why::BeyondSecondStageWidth);
}

#[test]
fn r59_85h_86h_second_stage_permissions_cannot_be_mended() {
    let mend = Mend::Never;
    for (rights, access, reason) in [(1, WRITE, Why::NotWritable), (2, READ, Why::NotReadable)] {
        let memory = ladder(Levels::Three);
        memory.put(0x3000, 0xabc000 | rights);
        assert_eq!(
            second(&memory, Levels::Three, 0, access),
            Err(Refusal { reason, mend })
        );
    }
}

/// A first stage of four levels at 0x1000 behind a second stage of three at 0x8000, which leads
/// 0x1000…0x7000 and 0xabc000 to themselves with the given rights.
fn nested(rights: impl Fn(u64) -> u64) -> (Physical, Space) {
    let memory = ladder(Levels::Four);
    memory.put(0x8000, 0x9000 | 3);
    memory.put(0x9000, 0xa000 | 3);
    memory.put(0x9000 + 5 * 8, 0xb000 | 3);
    for page in 1..8 {
        memory.put(0xa000 + page * 8, (page * 0x1000) | rights(page));
    }
    memory.put(0xb000 + 0xbc * 8, 0xabc000 | rights(0xabc));
    let stage = SecondStage::new(Gpa::new(0x8000), Levels::Three);
    (memory, Space::Nested(first(Levels::Four), stage))
}

fn walk_nested(nested: (Physical, Space), access: Access) -> Result<Leaf, Refusal> {
    let (memory, space) = nested;
    translate(&space, &memory, Iova::new(0x123), access, Prefix::Pasid)
}

#[test]
fn r37_nested_walks_take_each_table_and_the_result_through_the_second_stage() {
    assert_eq!(at(walk_nested(nested(|_| 3), WRITE)), 0xabc123);
}

/// The leaf's among them: 84h is of second stages alone.
#[test]
fn r59_74h_first_stage_beyond_the_second_stage_width() {
    for table in 1..=4 {
        let (memory, space) = nested(|_| 3);
        memory.put(table * 0x1000, 1 << 40 | ALL);
        let result = walk_nested((memory, space), READ);
        assert_eq!(reason(result), Why::FirstStageBeyondWidth, "table {table}");
    }
}

#[test]
fn r59_75h_first_stage_root_unreadable() {
    let denied = nested(|page| if page == 1 { 2 } else { 3 });
    assert_eq!(
        reason(walk_nested(denied, READ)),
        Why::FirstStageRootUnreadable
    );
}

#[test]
fn r59_76h_first_stage_unreadable() {
    let denied = nested(|page| if page == 3 { 2 } else { 3 });
    assert_eq!(reason(walk_nested(denied, READ)), Why::FirstStageUnreadable);
}

/// VT-d §7.1.3, SFS.1: what the second stage lacks altogether is said of it, whatever is looked for.
#[test]
fn r59_79h_second_stage_not_present_where_a_table_of_the_first_is_looked_for() {
    for table in 1..=4 {
        let absent = nested(|page| if page == table { 0 } else { 3 });
        let result = walk_nested(absent, READ);
        assert_eq!(reason(result), Why::SecondStageNotPresent, "table {table}");
    }
}

#[test]
fn r59_77h_first_stage_unwritable() {
    let denied = nested(|page| if page == 2 { 1 } else { 3 });
    assert_eq!(reason(walk_nested(denied, READ)), Why::FirstStageUnwritable);
}

#[test]
fn r59_85h_by_the_second_stage_of_a_nested_walk_cannot_be_mended() {
    let denied = nested(|page| if page == 0xabc { 1 } else { 3 });
    let refused = Refusal {
        reason: Why::NotWritable,
        mend: Mend::Never,
    };
    assert_eq!(walk_nested(denied, WRITE), Err(refused));
}
