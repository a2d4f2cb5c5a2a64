//! A walker to compare the other with: no loops over levels shared with it, no masks from it, one
//! condition of the specification after the other.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use palisade_units::{Access, Gpa};

use super::{Marked, TableError, Tables};
use crate::space::{
    AccessedDirty, ExecuteRequests, ExtendedAccessed, FirstStage, NoExecute, PageWalkSnoop,
    SecondStage, Space, SupervisorExecution, SupervisorRequests, WriteProtect,
};

/// Guest memory for tables, in words of 8 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Physical {
    pub(super) words: RefCell<BTreeMap<u64, u64>>,
    /// Pages that exist; others cannot be read.
    pub(super) pages: BTreeSet<u64>,
    /// Pages that cannot be written.
    pub(super) read_only: BTreeSet<u64>,
}

impl Physical {
    pub(super) fn word(&self, at: u64) -> Option<u64> {
        let exists = self.pages.contains(&(at / 4096));
        exists.then(|| self.words.borrow().get(&at).copied().unwrap_or(0))
    }

    pub(super) fn put(&self, at: u64, word: u64) {
        self.words.borrow_mut().insert(at, word);
    }
}

impl Tables for Physical {
    fn load(&self, at: Gpa) -> Result<u64, TableError> {
        self.word(at.get()).ok_or(TableError::Access)
    }

    fn mark(&self, at: Gpa, seen: u64, marked: u64) -> Result<Marked, TableError> {
        let now = self.load(at)?;
        if self.read_only.contains(&(at.get() / 4096)) {
            return Err(TableError::Access);
        }
        if now != seen {
            return Ok(Marked::Changed);
        }
        self.put(at.get(), marked);
        Ok(Marked::Done)
    }
}

/// The address that is reached and the size of its page in bytes, or the fault's code.
pub(super) type Outcome = Result<(u64, u64), u8>;

/// A walk that found an entry changed, by a mark of its own further down, begins again. It does so a
/// bounded number of times.
const TURNS: u32 = 16;

enum Stop {
    Fault(u8),
    Again,
}

impl From<u8> for Stop {
    fn from(code: u8) -> Self {
        Self::Fault(code)
    }
}

fn in_turns(mut turn: impl FnMut() -> Result<(u64, u64), Stop>, never_settled: u8) -> Outcome {
    for _ in 0..TURNS {
        match turn() {
            Ok(reached) => return Ok(reached),
            Err(Stop::Fault(code)) => return Err(code),
            Err(Stop::Again) => {}
        }
    }
    Err(never_settled)
}

pub(super) fn translate(
    space: &Space,
    memory: &Physical,
    at: u64,
    access: Access,
    has_pasid: bool,
) -> Outcome {
    let interrupt = |address: u64| address >> 20 == 0xfee;
    if !has_pasid && interrupt(at) {
        return Err(0x87);
    }
    let execute = access.contains(Access::EXECUTE);
    let (reached, size) = match space {
        Space::PassThrough | Space::SecondStage(_) if execute => return Err(0x5c),
        Space::PassThrough => {
            if at >= 1 << 52 {
                return Err(0x83);
            }
            (at, 1 << 30)
        }
        Space::FirstStage(first) => by_first(first, None, memory, at, access)?,
        Space::SecondStage(second) => by_second(second, memory, at, access)?,
        Space::Nested(first, second) => {
            let (inner, inner_size) = by_first(first, Some(second), memory, at, access)?;
            let (outer, outer_size) = match by_second(second, memory, inner, access) {
                Err(0x84) => return Err(0x74),
                outcome => outcome?,
            };
            (outer, inner_size.min(outer_size))
        }
    };
    if interrupt(reached) {
        Err(0x87)
    } else {
        Ok((reached, size))
    }
}

fn bit(word: u64, number: u32) -> bool {
    (word >> number) % 2 == 1
}

fn field(word: u64, high: u32, low: u32) -> u64 {
    (word >> low) % (1 << (high - low + 1))
}

/// Where a first-stage entry is in memory, given what is to be done with it.
fn place(
    second: Option<&SecondStage>,
    memory: &Physical,
    at: u64,
    access: Access,
    denied: u8,
) -> Result<u64, u8> {
    let Some(second) = second else { return Ok(at) };
    match by_second(second, memory, at, access) {
        Ok((place, _)) => Ok(place),
        Err(0x84) => Err(0x74),
        Err(0x85 | 0x86) => Err(denied),
        Err(other) => Err(other),
    }
}

fn by_first(
    stage: &FirstStage,
    second: Option<&SecondStage>,
    memory: &Physical,
    at: u64,
    access: Access,
) -> Outcome {
    in_turns(|| first_turn(stage, second, memory, at, access), 0x91)
}

fn first_turn(
    stage: &FirstStage,
    second: Option<&SecondStage>,
    memory: &Physical,
    at: u64,
    access: Access,
) -> Result<(u64, u64), Stop> {
    let fault = |code: u8| Err(Stop::Fault(code));
    let privileged = access.contains(Access::PRIVILEGED);
    let execute = access.contains(Access::EXECUTE);
    let write = access.contains(Access::WRITE);
    if execute && stage.execute == ExecuteRequests::Refused {
        return fault(0x5c);
    }
    if privileged && stage.supervisor == SupervisorRequests::Refused {
        return fault(0x5d);
    }
    let top = u32::from(stage.levels.count());
    let width = 12 + 9 * top;
    let sign_extended = (((at << (64 - width)).cast_signed()) >> (64 - width)).cast_unsigned();
    if sign_extended != at {
        return fault(0x80);
    }
    // The path, from the top.
    let mut entries: Vec<(u64, u64)> = Vec::new();
    let mut table = stage.root.get();
    let mut leaf_level = 0;
    for level in (1..=top).rev() {
        let shift = 12 + 9 * (level - 1);
        let index = field(at, shift + 8, shift);
        let denied = if level == top { 0x75 } else { 0x76 };
        let here = place(second, memory, table + index * 8, Access::READ, denied)?;
        let entry = memory
            .word(here)
            .ok_or(if level == top { 0x73 } else { 0x70 })?;
        if !bit(entry, 0) {
            return fault(0x71);
        }
        if bit(entry, 63) && stage.no_execute == NoExecute::Reserved {
            return fault(0x72);
        }
        let large = bit(entry, 7);
        let wrong = match level {
            5 | 4 => large,
            3 => large && field(entry, 29, 13) != 0,
            2 => large && field(entry, 20, 13) != 0,
            _ => false,
        };
        if wrong {
            return fault(0x72);
        }
        entries.push((table + index * 8, entry));
        table = field(entry, 51, 12) << 12;
        leaf_level = level;
        if large {
            break;
        }
    }
    let user_page = entries.iter().all(|(_, entry)| bit(*entry, 2));
    let writable = entries.iter().all(|(_, entry)| bit(*entry, 1));
    let no_execute = entries.iter().any(|(_, entry)| bit(*entry, 63));
    if !privileged && !user_page {
        return fault(0x81);
    }
    let smep = stage.supervisor_execution == SupervisorExecution::SupervisorPages;
    if execute && (no_execute || privileged && user_page && smep) {
        return fault(0x82);
    }
    let ignores_read_only = privileged && stage.write_protect == WriteProtect::UserOnly;
    if write && !writable && !ignores_read_only {
        return fault(0x85);
    }
    let last = entries.len() - 1;
    for (number, (table_address, entry)) in entries.iter().enumerate() {
        let dirty = if number == last && write { 1 << 6 } else { 0 };
        let extended = if stage.extended_accessed == ExtendedAccessed::On {
            1 << 10
        } else {
            0
        };
        let marked = entry | 1 << 5 | extended | dirty;
        if marked != *entry {
            if stage.page_walk_snoop == PageWalkSnoop::Off {
                return fault(0x90);
            }
            let here = place(second, memory, *table_address, Access::WRITE, 0x77)?;
            if !memory.pages.contains(&(here / 4096)) || memory.read_only.contains(&(here / 4096)) {
                return fault(0x91);
            }
            if memory.word(here) != Some(*entry) {
                return Err(Stop::Again);
            }
            memory.put(here, marked);
        }
    }
    let size: u64 = 4096 << (9 * (leaf_level - 1));
    Ok((table / size * size + at % size, size))
}

fn by_second(stage: &SecondStage, memory: &Physical, at: u64, access: Access) -> Outcome {
    in_turns(|| second_turn(stage, memory, at, access), 0x7d)
}

fn second_turn(
    stage: &SecondStage,
    memory: &Physical,
    at: u64,
    access: Access,
) -> Result<(u64, u64), Stop> {
    let fault = |code: u8| Err(Stop::Fault(code));
    let top = u32::from(stage.levels.count());
    if at >= 1 << (12 + 9 * top) {
        return fault(0x84);
    }
    let mut table = stage.root.get();
    let (mut readable, mut writable) = (true, true);
    let mut entries: Vec<(u64, u64)> = Vec::new();
    for level in (1..=top).rev() {
        let shift = 12 + 9 * (level - 1);
        let here = table + field(at, shift + 8, shift) * 8;
        let entry = memory.word(here);
        let entry = entry.ok_or(if level == top { 0x7b } else { 0x78 })?;
        readable &= bit(entry, 0);
        writable &= bit(entry, 1);
        if !readable && !writable {
            return fault(0x79);
        }
        let large = bit(entry, 7);
        let leads_to_table = level > 1 && !large;
        let wrong = match level {
            5 | 4 => large,
            3 => large && field(entry, 29, 12) != 0,
            2 => large && field(entry, 20, 12) != 0,
            _ => false,
        };
        if wrong || bit(entry, 62) || leads_to_table && bit(entry, 11) {
            return fault(0x7a);
        }
        entries.push((here, entry));
        table = field(entry, 51, 12) << 12;
        if level == 1 || large {
            if access.contains(Access::WRITE) && !writable {
                return fault(0x85);
            }
            if access.intersects(Access::READ | Access::EXECUTE) && !readable {
                return fault(0x86);
            }
            mark_second(stage, memory, &entries, access)?;
            let size = 1 << shift;
            return Ok((table / size * size + at % size, size));
        }
    }
    unreachable!("level 1 returns")
}

fn mark_second(
    stage: &SecondStage,
    memory: &Physical,
    entries: &[(u64, u64)],
    access: Access,
) -> Result<(), Stop> {
    if stage.accessed_dirty == AccessedDirty::Off {
        return Ok(());
    }
    for (number, (here, entry)) in entries.iter().enumerate() {
        let written_leaf = number + 1 == entries.len() && access.contains(Access::WRITE);
        let marked = entry | 1 << 8 | if written_leaf { 1 << 9 } else { 0 };
        if marked == *entry {
            continue;
        }
        if stage.page_walk_snoop == PageWalkSnoop::Off {
            return Err(Stop::Fault(0x7c));
        }
        if memory.read_only.contains(&(here / 4096)) {
            return Err(Stop::Fault(0x7d));
        }
        if memory.word(*here) != Some(*entry) {
            return Err(Stop::Again);
        }
        memory.put(*here, marked);
    }
    Ok(())
}
