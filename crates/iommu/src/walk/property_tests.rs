//! The walker against the naive one, over random tables, permissions, sizes, nestings and corruptions.
//!
//! A plain run makes 100,000 translations. `PALISADE_TRANSLATIONS=10000000` makes so many, as the
//! nightly run does: some minutes.

use std::collections::BTreeSet;

use palisade_units::{Access, Gpa, Iova};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::naive::{self, Physical};
use super::{
    FirstLeaf, LeafTable, Prefix, Rights, Tables, has_execution, leaf_offset_bytes, second_leaf,
    walk,
};
use crate::space::{
    AccessedDirty, ExecuteRequests, ExtendedAccessed, FirstStage, Levels, NoExecute, PageWalkSnoop,
    SecondStage, Space, SupervisorExecution, SupervisorRequests, WriteProtect,
};
use crate::tests::translations;

/// How many requests go to one set of tables at least.
const REQUESTS: u32 = 200;

/// Tables lie in these pages of memory, so that many addresses lead from one to the next.
const TABLES: std::ops::RangeInclusive<u64> = 1..=10;
/// The indexes that addresses use.
const INDEXES: [u64; 4] = [0, 1, 0xff, 0x1ff];

/// A value that is there once in `times`.
fn once_in(times: u32, bits: u64) -> impl Strategy<Value = u64> {
    prop_oneof![times - 1 => Just(0), 1 => Just(bits)]
}

fn entry() -> impl Strategy<Value = u64> {
    let table = prop_oneof![
        60 => TABLES.prop_map(|page| page << 12),
        1 => Just(1 << 40),
        1 => (11_u64..20).prop_map(|page| page << 12),
        1 => Just(0xfee0_0000),
    ];
    let large = prop_oneof![
        10 => (0_u64..4, Just(0x80)).prop_map(|(page, flag)| page << 30 | flag),
        10 => (0_u64..4, Just(0x80)).prop_map(|(page, flag)| page << 21 | flag),
        1 => Just(0xfee0_0080),
        1 => Just(0x4000_3080),
    ];
    let target = prop_oneof![5 => table, 1 => large];
    // Present, writable, for users; to a second stage: readable, writable.
    let flags = prop_oneof![12 => Just(7_u64), 1 => 0_u64..8];
    // Of a first stage: A and D at 5 and 6, EA at 10; of a second: A and D at 8 and 9.
    let marks = proptest::sample::select(&[0, 0x20, 0x60, 0x100, 0x760][..]);
    let execute_disable = once_in(30, 1 << 63);
    let corruption = prop_oneof![
        40 => Just(0_u64),
        1 => Just(1 << 11),
        1 => Just(1 << 62),
        2 => Just(1 << 12),
        2 => (0_u32..64).prop_map(|bit| 1 << bit),
    ];
    (target, flags, marks, execute_disable, corruption).prop_map(
        |(target, flags, marks, xd, corruption)| (target | flags | marks | xd) ^ corruption,
    )
}

fn physical() -> impl Strategy<Value = Physical> {
    // What second stages use for the tables of the first, and what addresses use.
    let places = || {
        TABLES.flat_map(|page| {
            let indexes = (0..=*TABLES.end()).chain([0xff, 0x1ff]);
            indexes.map(move |index| page * 0x1000 + index * 8)
        })
    };
    let words = proptest::collection::vec(entry(), places().count());
    let read_only = prop_oneof![1 => Just(None), 1 => TABLES.prop_map(Some)];
    (words, read_only).prop_map(move |(words, read_only)| {
        let read_only = read_only.into_iter().collect();
        let memory = Physical {
            pages: TABLES.collect(),
            read_only,
            ..Physical::default()
        };
        for (place, word) in places().zip(words) {
            memory.put(place, word);
        }
        memory
    })
}

fn address() -> impl Strategy<Value = u64> {
    let interrupt = (0_u64..=0xf_ffff).prop_map(|offset| 0xfee0_0000 | offset);
    prop_oneof![30 => translated_address(), 1 => interrupt]
}

fn translated_address() -> impl Strategy<Value = u64> {
    let index = || proptest::sample::select(&INDEXES[..]);
    let high = prop_oneof![20 => Just(false), 1 => Just(true)];
    (
        index(),
        index(),
        index(),
        index(),
        index(),
        0_u64..4096,
        high,
    )
        .prop_map(|(five, four, three, two, one, offset, non_canonical)| {
            let low = four << 39 | three << 30 | two << 21 | one << 12 | offset;
            let five = if non_canonical { five << 48 } else { 0 };
            // Sign-extended from bit 47, which index 1ff of level four sets.
            let high = if four & 0x100 == 0 { 0 } else { 0xffff << 48 };
            low | high ^ five
        })
}

fn space() -> impl Strategy<Value = Space> {
    let levels = proptest::sample::select(&[Levels::Four, Levels::Five][..]);
    let any_levels = proptest::sample::select(&[Levels::Three, Levels::Four, Levels::Five][..]);
    let root = || (1_u64..=11).prop_map(|page| Gpa::new(page << 12));
    let often = || prop_oneof![5 => Just(true), 1 => Just(false)];
    let snoop = || prop_oneof![7 => Just(true), 1 => Just(false)].prop_map(PageWalkSnoop::from_bit);
    let bits = (
        often(),
        often(),
        any::<bool>(),
        often(),
        any::<bool>(),
        any::<bool>(),
    );
    let first = (root(), levels, bits, snoop()).prop_map(
        |(root, levels, (sre, ere, wpe, nxe, smep, eafe), page_walk_snoop)| FirstStage {
            root,
            levels,
            supervisor: SupervisorRequests::from_bit(sre),
            execute: ExecuteRequests::from_bit(ere),
            write_protect: WriteProtect::from_bit(wpe),
            no_execute: NoExecute::from_bit(nxe),
            supervisor_execution: SupervisorExecution::from_bit(smep),
            extended_accessed: ExtendedAccessed::from_bit(eafe),
            page_walk_snoop,
        },
    );
    let second = (root(), any_levels, any::<bool>(), snoop()).prop_map(
        |(root, levels, ssade, page_walk_snoop)| SecondStage {
            root,
            levels,
            accessed_dirty: AccessedDirty::from_bit(ssade),
            page_walk_snoop,
        },
    );
    prop_oneof![
        4 => first.clone().prop_map(Space::FirstStage),
        2 => second.clone().prop_map(Space::SecondStage),
        3 => (first, second).prop_map(|(first, second)| Space::Nested(first, second)),
        1 => Just(Space::PassThrough),
    ]
}

fn access() -> impl Strategy<Value = Access> {
    let kind = proptest::sample::select(vec![
        Access::READ,
        Access::WRITE,
        Access::READ | Access::EXECUTE,
    ]);
    let mode = prop_oneof![3 => Just(Access::empty()), 1 => Just(Access::PRIVILEGED)];
    (kind, mode).prop_map(|(kind, mode)| kind | mode)
}

/// The tables that walks have come through.
#[derive(Default)]
struct Seen {
    first: Vec<LeafTable>,
    second: Vec<LeafTable>,
}

impl Seen {
    /// The rights above the entry of an address, and the entry.
    fn entry(tables: &[LeafTable], memory: &Physical, address: u64) -> Option<(Rights, u64)> {
        let of = |table: &&LeafTable| table.address >> 21 == address >> 21;
        let table = tables.iter().rfind(of)?;
        let at = table.at.get() + leaf_offset_bytes(address);
        Some((table.rights, memory.load(Gpa::new(at)).ok()?))
    }

    /// Where an address leads by the last step of a walk alone.
    fn last_step(&self, space: &Space, memory: &Physical, at: u64, access: Access) -> Option<u64> {
        let first = |stage: &FirstStage, at| {
            let (rights, entry) = Self::entry(&self.first, memory, at)?;
            FirstLeaf::new(*stage)
                .page(rights, entry, access)
                .map(Gpa::get)
        };
        let second = |stage, at| {
            let (rights, entry) = Self::entry(&self.second, memory, at)?;
            second_leaf(stage, rights, entry, access).map(Gpa::get)
        };
        match space {
            _ if access.contains(Access::EXECUTE) && !has_execution(space) => None,
            Space::FirstStage(stage) => first(stage, at),
            Space::SecondStage(stage) => second(stage, at),
            Space::Nested(stage, outer) => second(outer, first(stage, at)?),
            Space::PassThrough => None,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: translations().div_ceil(REQUESTS), ..ProptestConfig::default() })]

    #[test]
    fn r37_r38_the_walker_agrees_with_a_naive_one_on_results_faults_and_marks(
        memory in physical(),
        space in space(),
        requests in proptest::collection::vec((address(), access(), any::<bool>()), REQUESTS as usize..300),
    ) {
        let reference = memory.clone();
        let mut seen = Seen::default();
        for (address, access, has_pasid) in requests {
            let prefix = if has_pasid { Prefix::Pasid } else { Prefix::None };
            // By what was walked through, which marks nothing and refuses nothing.
            let shortened = seen.last_step(&space, &memory, address, access);
            let walked = walk(&space, &memory, Iova::new(address), access, prefix);
            if let Ok(walked) = walked {
                seen.first.extend(walked.first);
                seen.second.extend(walked.second);
            }
            let ours = walked
                .map(|walked| (walked.leaf.at.get(), walked.leaf.size.bytes()))
                .map_err(|refusal| refusal.reason.code());
            if let Some(page) = shortened {
                let interrupts = |at: u64| at >> 20 == 0xfee;
                let interrupt = interrupts(page) || (interrupts(address) && !has_pasid);
                let agree = matches!(ours, Ok((at, _)) if at & !0xfff == page);
                prop_assert!(agree || interrupt, "{page:#x} for {address:#x}: {ours:?}");
                prop_assert!(memory == reference, "nothing was left to mark");
            }
            let theirs = naive::translate(&space, &reference, address, access, has_pasid);
            prop_assert_eq!(ours, theirs, "{} at {:#x} in {:?}", access, address, space);
            prop_assert_eq!(&memory, &reference);
        }
    }
}

/// What agrees is worth as much as what occurs: a fixed run ends in every reason that a walk
/// has, and succeeds with pages of every size, in each kind of space.
#[test]
fn the_random_tables_lead_to_every_reason_and_every_size() {
    let mut seen = BTreeSet::new();
    let mut runner = TestRunner::deterministic();
    let requests = proptest::collection::vec((address(), access(), any::<bool>()), 40);
    let strategy = (physical(), space(), requests);
    for _ in 0..1500 {
        let (memory, space, requests) = strategy.new_tree(&mut runner).unwrap().current();
        for (address, access, has_pasid) in requests {
            let outcome = naive::translate(&space, &memory, address, access, has_pasid);
            seen.insert((kind(&space), outcome.map(|(_, size)| size)));
        }
    }
    let sizes = [1 << 12, 1 << 21, 1 << 30].map(Ok);
    let entry = [0x5c, 0x5d, 0x80];
    let first = [0x70, 0x71, 0x72, 0x73, 0x81, 0x82, 0x85, 0x87, 0x90, 0x91];
    let second = [0x78, 0x79, 0x7a, 0x7b, 0x7c, 0x7d, 0x85, 0x86, 0x87];
    let both = [0x74, 0x75, 0x76, 0x77];
    let expected = [
        ("first", [&entry[..], &first].concat()),
        ("second", [&second[..], &[0x5c, 0x84]].concat()),
        ("nested", [&entry[..], &first, &second, &both].concat()),
    ];
    for (kind, reasons) in expected {
        for outcome in sizes.into_iter().chain(reasons.into_iter().map(Err)) {
            assert!(seen.contains(&(kind, outcome)), "{kind}: {outcome:x?}");
        }
    }
    for outcome in [Ok(1 << 30), Err(0x5c), Err(0x83), Err(0x87)] {
        assert!(seen.contains(&("pass-through", outcome)), "{outcome:x?}");
    }
}

fn kind(space: &Space) -> &'static str {
    match space {
        Space::FirstStage(_) => "first",
        Space::SecondStage(_) => "second",
        Space::Nested(..) => "nested",
        Space::PassThrough => "pass-through",
    }
}
