use palisade_units::{Access, Gpa, PageSize};

use super::trail::{Marks, Trail, Unmarkable};
use super::{
    ADDRESS_MASK, Leaf, LeafTable, Marked, Rights, TableError, Tables, WALK_ATTEMPTS, entry_at,
};
use crate::{AccessedDirty, FaultReason, SecondStage};

/// A second-stage entry (VT-d §9.8).
#[derive(Clone, Copy)]
struct Entry(u64);

impl Entry {
    const READ: u64 = 1;
    const WRITE: u64 = 1 << 1;
    const PAGE_SIZE: u64 = 1 << 7;
    const ACCESSED: u64 = 1 << 8;
    const DIRTY: u64 = 1 << 9;
    /// SNP: only leaves have it, on a platform with snoop control.
    const SNOOP: u64 = 1 << 11;
    /// IW: of I/O permissions, which the platform does not offer.
    const IO_WRITE: u64 = 1 << 62;

    const fn leaf(self, level: u8) -> Option<PageSize> {
        let large = self.0 & Self::PAGE_SIZE != 0;
        if level == 1 || large {
            PageSize::of_level(level)
        } else {
            None
        }
    }

    /// The bits that must be clear, given the entry's level and what it is. The host address width
    /// leaves no address bit over.
    const fn reserved(self, level: u8) -> u64 {
        let shape = match (level, self.leaf(level)) {
            (_, Some(size)) => (size.bytes() - 1) & ADDRESS_MASK,
            (4.., None) => Self::PAGE_SIZE | Self::SNOOP,
            (_, None) => Self::SNOOP,
        };
        shape | Self::IO_WRITE
    }
}

/// Where a walk ended.
struct Path {
    trail: Trail,
    page: u64,
    size: PageSize,
    /// What every entry on the way allows.
    rights: u64,
    /// The table of the leaf, where it is one of 4 KiB pages.
    table: Option<LeafTable>,
}

/// Translates by a guest's own second stage (VT-d §3.7) and, where it says so, marks what was used
/// (VT-d §3.7.2), on the same terms as a first stage does.
pub(super) fn walk<T: Tables>(
    stage: &SecondStage,
    tables: &T,
    at: Gpa,
    access: Access,
) -> Result<(Leaf, Option<LeafTable>), FaultReason> {
    if at.get() >> stage.levels.address_bits() != 0 {
        return Err(FaultReason::BeyondSecondStageWidth);
    }
    for _ in 0..WALK_ATTEMPTS {
        let path = descend(stage, tables, at)?;
        check(path.rights, access)?;
        let marked = path
            .trail
            .mark(tables, marks(stage, access), stage.page_walk_snoop);
        if marked.map_err(unmarkable)? == Marked::Done {
            let within = at.get() & (path.size.bytes() - 1);
            let leaf = Leaf {
                at: Gpa::new(path.page | within),
                size: path.size,
            };
            return Ok((leaf, path.table));
        }
    }
    Err(FaultReason::SecondStageMarkFailed)
}

fn descend<T: Tables>(stage: &SecondStage, tables: &T, at: Gpa) -> Result<Path, FaultReason> {
    let top = stage.levels.count();
    let mut table = stage.root;
    let mut trail = Trail::default();
    let mut rights = Entry::READ | Entry::WRITE;
    for level in (1..=top).rev() {
        let here = entry_at(table, at.get(), level);
        let loaded = tables.load(here);
        let entry = Entry(loaded.map_err(|error| unreadable(error, level == top))?);
        let above = rights;
        rights &= entry.0;
        if rights == 0 {
            return Err(FaultReason::SecondStageNotPresent);
        }
        if entry.0 & entry.reserved(level) != 0 {
            return Err(FaultReason::SecondStageReserved);
        }
        trail.push(here, entry.0);
        let page = entry.0 & ADDRESS_MASK;
        if let Some(size) = entry.leaf(level) {
            return Ok(Path {
                trail,
                page,
                size,
                rights,
                table: (level == 1).then_some(LeafTable {
                    address: at.get(),
                    at: table,
                    rights: Rights::new(above.to_le_bytes()[0]),
                }),
            });
        }
        table = Gpa::new(page);
    }
    // Level 1 is always a leaf, so the loop has returned.
    Err(FaultReason::PasidEntryInvalid)
}

/// See [`super::second_leaf`].
pub(super) fn leaf(stage: &SecondStage, above: Rights, entry: u64, access: Access) -> Option<Gpa> {
    let entry = Entry(entry);
    let rights = u64::from(above.get()) & entry.0;
    let marks = marks(stage, access);
    let marks = marks.used | marks.leaf;
    let good = rights != 0
        && entry.0 & marks == marks
        && entry.0 & entry.reserved(1) == 0
        && check(rights, access).is_ok();
    good.then_some(Gpa::new(entry.0 & ADDRESS_MASK))
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

/// What a request that is allowed sets: D in the leaf alone.
fn marks(stage: &SecondStage, access: Access) -> Marks {
    let dirty = access.contains(Access::WRITE);
    match stage.accessed_dirty {
        AccessedDirty::Off => Marks { used: 0, leaf: 0 },
        AccessedDirty::On => Marks {
            used: Entry::ACCESSED,
            leaf: if dirty { Entry::DIRTY } else { 0 },
        },
    }
}

fn unreadable(error: TableError, is_root: bool) -> FaultReason {
    match (error, is_root) {
        (TableError::Stage(reason), _) => reason,
        (_, true) => FaultReason::SecondStageRootAccess,
        (_, false) => FaultReason::SecondStageAccess,
    }
}

fn unmarkable(why: Unmarkable) -> FaultReason {
    match why {
        Unmarkable::Incoherent => FaultReason::SecondStageMarkIncoherent,
        Unmarkable::Table(TableError::Stage(reason)) => reason,
        Unmarkable::Table(_) => FaultReason::SecondStageMarkFailed,
    }
}
