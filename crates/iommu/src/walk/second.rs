use palisade_units::{Access, Gpa, PageSize};

use super::{ADDRESS_MASK, Leaf, TableError, Tables, entry_at};
use crate::{FaultReason, SecondStage};

/// A second-stage entry (VT-d §9.8).
#[derive(Clone, Copy)]
struct Entry(u64);

impl Entry {
    const READ: u64 = 1;
    const WRITE: u64 = 1 << 1;
    const PAGE_SIZE: u64 = 1 << 7;

    const fn leaf(self, level: u8) -> Option<PageSize> {
        let large = self.0 & Self::PAGE_SIZE != 0;
        if level == 1 || large {
            PageSize::of_level(level)
        } else {
            None
        }
    }

    const fn reserved(self, level: u8) -> u64 {
        match (level, self.leaf(level)) {
            (2.., Some(size)) => (size.bytes() - 1) & !0xfff,
            (4.., None) => Self::PAGE_SIZE,
            _ => 0,
        }
    }
}

/// Translates by a guest's own second stage (VT-d §3.7). Accessed and dirty bits are not offered for
/// it, so nothing is marked.
pub(super) fn walk<T: Tables>(
    stage: &SecondStage,
    tables: &T,
    at: Gpa,
    access: Access,
) -> Result<Leaf, FaultReason> {
    if at.get() >> stage.levels.address_bits() != 0 {
        return Err(FaultReason::BeyondSecondStageWidth);
    }
    let top = stage.levels.count();
    let mut table = stage.root;
    let mut rights = Entry::READ | Entry::WRITE;
    for level in (1..=top).rev() {
        let loaded = tables.load(entry_at(table, at.get(), level));
        let entry = Entry(loaded.map_err(|error| unreadable(error, level == top))?);
        rights &= entry.0;
        if rights == 0 {
            return Err(FaultReason::SecondStageNotPresent);
        }
        if entry.0 & entry.reserved(level) != 0 {
            return Err(FaultReason::SecondStageReserved);
        }
        let address = entry.0 & ADDRESS_MASK;
        if let Some(size) = entry.leaf(level) {
            check(rights, access)?;
            let within = at.get() & (size.bytes() - 1);
            return Ok(Leaf {
                at: Gpa::new(address | within),
                size,
            });
        }
        table = Gpa::new(address);
    }
    // Level 1 is always a leaf, so the loop has returned.
    Err(FaultReason::PasidEntryInvalid)
}

fn check(rights: u64, access: Access) -> Result<(), FaultReason> {
    if access.contains(Access::WRITE) && rights & Entry::WRITE == 0 {
        return Err(FaultReason::NotWritable);
    }
    if access.intersects(Access::READ | Access::EXECUTE) && rights & Entry::READ == 0 {
        return Err(FaultReason::NotReadable);
    }
    Ok(())
}

fn unreadable(error: TableError, is_root: bool) -> FaultReason {
    match (error, is_root) {
        (TableError::Stage(reason), _) => reason,
        (_, true) => FaultReason::SecondStageRootAccess,
        (_, false) => FaultReason::SecondStageAccess,
    }
}
