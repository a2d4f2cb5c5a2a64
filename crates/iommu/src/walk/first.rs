use palisade_units::{Access, Gpa, Iova, PageSize};

use super::trail::{Marks, Trail, Unmarkable};
use super::{
    ADDRESS_MASK, Leaf, LeafTable, Marked, Refusal, TableError, Tables, WALK_ATTEMPTS, entry_at,
};
use crate::space::{
    ExecuteRequests, ExtendedAccessed, FirstStage, NoExecute, SupervisorExecution,
    SupervisorRequests, WriteProtect,
};
use crate::{FaultReason, Levels};

/// A first-stage entry (VT-d §9.7).
#[derive(Clone, Copy, Default)]
struct Entry(u64);

impl Entry {
    const PRESENT: u64 = 1;
    const WRITE: u64 = 1 << 1;
    const USER: u64 = 1 << 2;
    const ACCESSED: u64 = 1 << 5;
    const DIRTY: u64 = 1 << 6;
    const PAGE_SIZE: u64 = 1 << 7;
    const EXTENDED_ACCESSED: u64 = 1 << 10;
    const NO_EXECUTE: u64 = 1 << 63;

    const fn has(self, bits: u64) -> bool {
        self.0 & bits == bits
    }

    /// The size of the page, where the entry is a leaf of its level.
    const fn leaf(self, level: u8) -> Option<PageSize> {
        if level == 1 || self.has(Self::PAGE_SIZE) {
            PageSize::of_level(level)
        } else {
            None
        }
    }

    /// The bits that must be clear, given the entry's level and what it is.
    fn reserved(self, level: u8, no_execute: NoExecute) -> u64 {
        let execute = match no_execute {
            NoExecute::Reserved => Self::NO_EXECUTE,
            NoExecute::Honoured => 0,
        };
        let shape = match (level, self.leaf(level)) {
            // Bit 12 of a large page is its PAT bit, those up to the page number are reserved.
            (2.., Some(size)) => (size.bytes() - 1) & !0x1fff,
            (4.., None) => Self::PAGE_SIZE,
            _ => 0,
        };
        execute | shape
    }
}

/// What a path through the table allows: each level can only take away.
#[derive(Clone, Copy)]
struct Rights(u64);

impl Rights {
    const ALL: Self = Self(Entry::WRITE | Entry::USER);

    /// In one byte: write and user where entries have them, and bit 0 for no execution.
    fn pack(self) -> super::Rights {
        let kept = self.0 & (Entry::WRITE | Entry::USER) | (self.0 >> 63);
        super::Rights::new(kept.to_le_bytes()[0])
    }

    fn unpack(packed: super::Rights) -> Self {
        let bits = u64::from(packed.get());
        Self(bits & (Entry::WRITE | Entry::USER) | (bits & 1) << 63)
    }

    const fn through(self, entry: Entry) -> Self {
        let kept = self.0 & (entry.0 | Entry::NO_EXECUTE);
        Self(kept | entry.0 & Entry::NO_EXECUTE)
    }

    fn check(self, stage: &FirstStage, access: Access) -> Result<(), Refusal> {
        let rights = Entry(self.0);
        let privileged = access.contains(Access::PRIVILEGED);
        let user_page = rights.has(Entry::USER);
        if !privileged && !user_page {
            return Err(Refusal::mendable(FaultReason::SupervisorPage));
        }
        if access.contains(Access::EXECUTE) {
            let kept_out = privileged
                && user_page
                && stage.supervisor_execution == SupervisorExecution::SupervisorPages;
            if kept_out || rights.has(Entry::NO_EXECUTE) {
                return Err(Refusal::mendable(FaultReason::NotExecutable));
            }
        }
        let protected = !privileged || stage.write_protect == WriteProtect::All;
        if access.contains(Access::WRITE) && protected && !rights.has(Entry::WRITE) {
            return Err(Refusal::mendable(FaultReason::NotWritable));
        }
        Ok(())
    }
}

/// Where a walk ended.
struct Path {
    trail: Trail,
    page: u64,
    size: PageSize,
    rights: Rights,
    /// The table of the leaf, where it is one of 4 KiB pages.
    table: Option<LeafTable>,
}

/// Translates by a first stage (VT-d §3.6) and marks what was used (VT-d §3.6.2).
///
/// Bits are set only for a request that this stage allows, and only in entries that are still what the
/// walk saw; a guest that keeps changing them gets a fault after a bounded number of attempts.
pub(super) fn walk<T: Tables>(
    stage: &FirstStage,
    tables: &T,
    at: Iova,
    access: Access,
) -> Result<(Leaf, Option<LeafTable>), Refusal> {
    if let Some(reason) = refuses_requests(stage, access) {
        return Err(reason.into());
    }
    if !is_canonical(at, stage.levels) {
        return Err(FaultReason::NotCanonical.into());
    }
    for _ in 0..WALK_ATTEMPTS {
        let path = descend(stage, tables, at)?;
        path.rights.check(stage, access)?;
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
    Err(FaultReason::FirstStageMarkFailed.into())
}

/// Why requests of a kind are refused before the table is looked at.
fn refuses_requests(stage: &FirstStage, access: Access) -> Option<FaultReason> {
    let privileged = access.contains(Access::PRIVILEGED);
    if access.contains(Access::EXECUTE) && stage.execute == ExecuteRequests::Refused {
        return Some(FaultReason::ExecuteRequestDisabled);
    }
    if privileged && stage.supervisor == SupervisorRequests::Refused {
        return Some(FaultReason::SupervisorRequestDisabled);
    }
    None
}

/// See [`super::FirstLeaf::page`].
pub(super) fn leaf(
    stage: &FirstStage,
    above: super::Rights,
    entry: u64,
    access: Access,
) -> Option<Gpa> {
    let entry = Entry(entry);
    let marks = marks(stage, access);
    let good = refuses_requests(stage, access).is_none()
        && entry.has(Entry::PRESENT | marks.used | marks.leaf)
        && entry.0 & entry.reserved(1, stage.no_execute) == 0
        && Rights::unpack(above)
            .through(entry)
            .check(stage, access)
            .is_ok();
    good.then_some(Gpa::new(entry.0 & ADDRESS_MASK))
}

/// What an entry of a table of 4 KiB pages must be for a user-mode request to read, or to write: the same
/// judgement as [`leaf`]'s, as one comparison.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain {
    set: u64,
    clear: u64,
}

impl Plain {
    /// `access` is reading or writing and nothing else.
    pub(super) fn new(stage: &FirstStage, access: Access) -> Self {
        let marks = marks(stage, access);
        let write = if access.contains(Access::WRITE) {
            Entry::WRITE
        } else {
            0
        };
        Self {
            set: Entry::PRESENT | Entry::USER | write | marks.used | marks.leaf,
            clear: Entry(0).reserved(1, stage.no_execute),
        }
    }

    /// As [`leaf`].
    #[inline]
    pub(super) fn leaf(self, above: super::Rights, entry: u64) -> Option<Gpa> {
        const TAKEN_AWAY: u64 = Entry::WRITE | Entry::USER;
        let effective = entry & (u64::from(above.get()) | !TAKEN_AWAY);
        let good = effective & (self.set | self.clear) == self.set;
        good.then_some(Gpa::new(entry & ADDRESS_MASK))
    }
}

/// Whether the bits above the table's width repeat its highest bit.
const fn is_canonical(at: Iova, levels: Levels) -> bool {
    let high = at.get() >> (levels.address_bits() - 1);
    high == 0 || high == u64::MAX >> (levels.address_bits() - 1)
}

fn descend<T: Tables>(stage: &FirstStage, tables: &T, at: Iova) -> Result<Path, Refusal> {
    let top = stage.levels.count();
    let mut table = stage.root;
    let mut trail = Trail::default();
    let mut rights = Rights::ALL;
    for level in (1..=top).rev() {
        let here = entry_at(table, at.get(), level);
        let loaded = tables.load(here);
        let entry = Entry(loaded.map_err(|error| unreadable(error, level == top))?);
        if !entry.has(Entry::PRESENT) {
            return Err(Refusal::mendable(FaultReason::FirstStageNotPresent));
        }
        if entry.0 & entry.reserved(level, stage.no_execute) != 0 {
            return Err(FaultReason::FirstStageReserved.into());
        }
        trail.push(here, entry.0);
        let above = rights;
        rights = rights.through(entry);
        let address = entry.0 & ADDRESS_MASK;
        if let Some(size) = entry.leaf(level) {
            return Ok(Path {
                trail,
                page: address & !(size.bytes() - 1),
                size,
                rights,
                table: (level == 1).then_some(LeafTable {
                    address: at.get(),
                    at: table,
                    rights: above.pack(),
                }),
            });
        }
        table = Gpa::new(address);
    }
    // Level 1 is always a leaf, so the loop has returned.
    Err(FaultReason::PasidEntryInvalid.into())
}

/// What a request that is allowed sets: D in the leaf alone.
fn marks(stage: &FirstStage, access: Access) -> Marks {
    let extended = match stage.extended_accessed {
        ExtendedAccessed::Off => 0,
        ExtendedAccessed::On => Entry::EXTENDED_ACCESSED,
    };
    let dirty = access.contains(Access::WRITE);
    Marks {
        used: Entry::ACCESSED | extended,
        leaf: if dirty { Entry::DIRTY } else { 0 },
    }
}

fn unreadable(error: TableError, is_root: bool) -> Refusal {
    let reason = match (error, is_root) {
        (TableError::Access, true) => FaultReason::FirstStageRootAccess,
        (TableError::Access, false) => FaultReason::FirstStageAccess,
        (TableError::Denied, true) => FaultReason::FirstStageRootUnreadable,
        (TableError::Denied, false) => FaultReason::FirstStageUnreadable,
        (TableError::BeyondWidth, _) => FaultReason::FirstStageBeyondWidth,
        (TableError::Stage(reason), _) => reason,
    };
    reason.into()
}

fn unmarkable(why: Unmarkable) -> Refusal {
    let reason = match why {
        Unmarkable::Incoherent => FaultReason::FirstStageMarkIncoherent,
        Unmarkable::Table(TableError::Access) => FaultReason::FirstStageMarkFailed,
        Unmarkable::Table(TableError::Denied) => FaultReason::FirstStageUnwritable,
        Unmarkable::Table(TableError::BeyondWidth) => FaultReason::FirstStageBeyondWidth,
        Unmarkable::Table(TableError::Stage(reason)) => reason,
    };
    reason.into()
}
