use palisade_units::{Access, Gpa, Iova};
use proptest::prelude::*;

use super::naive::{self, Physical};
use super::{Prefix, translate};
use crate::space::{
    ExecuteRequests, ExtendedAccessed, FirstStage, Levels, NoExecute, SecondStage, Space,
    SupervisorExecution, SupervisorRequests, WriteProtect,
};

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
    let marks = proptest::sample::select(&[0, 0x20, 0x60][..]);
    (
        target,
        flags,
        marks,
        once_in(30, 1 << 63),
        once_in(30, 1 << 12),
    )
        .prop_map(|(target, flags, marks, xd, bit12)| target ^ bit12 | flags | marks | xd)
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
    let read_only = prop_oneof![3 => Just(None), 1 => TABLES.prop_map(Some)];
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
    let bits = (often(), often(), any::<bool>(), often(), any::<bool>());
    let first =
        (root(), levels, bits).prop_map(|(root, levels, (sre, ere, wpe, nxe, smep))| FirstStage {
            root,
            levels,
            supervisor: SupervisorRequests::from_bit(sre),
            execute: ExecuteRequests::from_bit(ere),
            write_protect: WriteProtect::from_bit(wpe),
            no_execute: NoExecute::from_bit(nxe),
            supervisor_execution: SupervisorExecution::from_bit(smep),
            extended_accessed: ExtendedAccessed::Off,
        });
    let second = (root(), any_levels).prop_map(|(root, levels)| SecondStage { root, levels });
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn r37_r38_the_walker_agrees_with_a_naive_one_on_results_faults_and_marks(
        memory in physical(),
        space in space(),
        requests in proptest::collection::vec((address(), access(), any::<bool>()), 1..40),
    ) {
        let reference = memory.clone();
        for (address, access, has_pasid) in requests {
            let prefix = if has_pasid { Prefix::Pasid } else { Prefix::None };
            let ours = translate(&space, &memory, Iova::new(address), access, prefix)
                .map(|leaf| (leaf.at.get(), leaf.size.bytes()))
                .map_err(|refusal| refusal.reason.code());
            let theirs = naive::translate(&space, &reference, address, access, has_pasid);
            prop_assert_eq!(ours, theirs, "{} at {:#x} in {:?}", access, address, space);
            prop_assert_eq!(&memory, &reference);
        }
    }
}
