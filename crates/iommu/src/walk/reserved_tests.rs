//! Every bit of every entry of both stages, one at a time: reserved, or not.

use palisade_units::{Access, Gpa, Iova};

use super::naive::Physical;
use super::{Prefix, translate};
use crate::{FaultReason, FirstStage, Levels, NoExecute, SecondStage, Space};

const PS: u64 = 1 << 7;
/// R and W of a second stage; P and R/W of a first.
const OPEN: u64 = 3;
const USER: u64 = 1 << 2;
/// Where tables and pages lie: aligned to more than 1 GiB, so that no bit of the size of a page is
/// part of it, and such that any other bit of an address leads nowhere.
const fn place(number: u64) -> u64 {
    1 << (30 + number)
}

/// Tables for address 0, one at each place from 1 on; the entry at `leaf` leads to a page at place 9.
fn ladder(levels: Levels, leaf: u8, flags: u64) -> Physical {
    let mut memory = Physical::default();
    for level in (leaf..=levels.count()).rev() {
        let step = u64::from(levels.count() - level) + 1;
        memory.pages.insert(place(step) >> 12);
        let next = if level == leaf { 9 } else { step + 1 };
        let large = if level == leaf && leaf > 1 { PS } else { 0 };
        memory.put(place(step), place(next) | flags | large);
    }
    memory
}

/// The bits of the entry at `level` that are refused with `reason`, each tried alone.
fn refused_bits(
    space: &Space,
    memory: impl Fn() -> Physical,
    at: u64,
    reason: FaultReason,
) -> Vec<u32> {
    let refuses = |bit: &u32| {
        let memory = memory();
        let word = memory.word(at).unwrap();
        memory.put(at, word | 1 << bit);
        let result = translate(space, &memory, Iova::new(0), Access::READ, Prefix::Pasid);
        result.is_err_and(|refusal| refusal.reason == reason)
    };
    (0..64).filter(refuses).collect()
}

/// The reserved bits by level of the entry, and by whether it is a leaf, of a stage.
fn check(
    space: impl Fn(Levels) -> Space,
    flags: u64,
    reason: FaultReason,
    levels: &[Levels],
    expected: impl Fn(u8, bool) -> Vec<u32>,
) {
    for &levels in levels {
        for leaf in 1..=3_u8.min(levels.count()) {
            for level in leaf..=levels.count() {
                let at = place(u64::from(levels.count() - level) + 1);
                let found =
                    refused_bits(&space(levels), || ladder(levels, leaf, flags), at, reason);
                let expected = expected(level, level == leaf);
                assert_eq!(
                    found, expected,
                    "level {level} of {levels:?}, leaf at {leaf}"
                );
            }
        }
    }
}

#[test]
fn r59_7ah_every_reserved_bit_of_a_second_stage_entry() {
    check(
        |levels| Space::SecondStage(SecondStage::new(Gpa::new(place(1)), levels)),
        OPEN,
        FaultReason::SecondStageReserved,
        &[Levels::Three, Levels::Four, Levels::Five],
        |level, is_leaf| match (level, is_leaf) {
            // IW is of permissions that are not offered, and SNP of leaves.
            (1, _) => vec![62],
            // The page number of a large page begins above its size.
            (2, true) => (12..21).chain([62]).collect(),
            (3, true) => (12..30).chain([62]).collect(),
            // At levels two and three, bit 7 makes a leaf of the entry.
            (2 | 3, false) => vec![11, 62],
            _ => vec![7, 11, 62],
        },
    );
}

#[test]
fn r59_72h_every_reserved_bit_of_a_first_stage_entry() {
    for no_execute in [NoExecute::Reserved, NoExecute::Honoured] {
        let top: &[u32] = match no_execute {
            NoExecute::Reserved => &[63],
            NoExecute::Honoured => &[],
        };
        check(
            |levels| {
                let mut stage = FirstStage::new(Gpa::new(place(1)), levels);
                stage.no_execute = no_execute;
                Space::FirstStage(stage)
            },
            OPEN | USER,
            FaultReason::FirstStageReserved,
            &[Levels::Four, Levels::Five],
            |level, is_leaf| {
                let low = match (level, is_leaf) {
                    // Bit 12 of a large page is its PAT bit.
                    (2, true) => (13..21).collect(),
                    (3, true) => (13..30).collect(),
                    (4.., _) => vec![7],
                    _ => vec![],
                };
                [low.as_slice(), top].concat()
            },
        );
    }
}

#[test]
fn r59_7ah_no_bit_of_an_entry_that_is_not_present_is_reserved() {
    for levels in [Levels::Three, Levels::Four, Levels::Five] {
        let space = Space::SecondStage(SecondStage::new(Gpa::new(place(1)), levels));
        let memory = ladder(levels, 1, 0);
        memory.put(place(1), !OPEN);
        let result = translate(&space, &memory, Iova::new(0), Access::READ, Prefix::Pasid);
        let reason = result.unwrap_err().reason;
        assert_eq!(reason, FaultReason::SecondStageNotPresent, "{levels:?}");
    }
}
