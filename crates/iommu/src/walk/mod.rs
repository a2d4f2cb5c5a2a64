//! From a request's address to the tenant's own physical address, by the tables in its memory.

mod first;
#[cfg(test)]
mod mark_tests;
#[cfg(test)]
mod naive;
#[cfg(test)]
mod priority_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod reserved_tests;
mod second;
#[cfg(test)]
mod tests;
mod trail;

use palisade_units::{Access, Gpa, Iova, PageSize};

use crate::{FaultReason, FirstStage, SecondStage, Space};

/// The bits of an entry that hold an address: 51:12.
const ADDRESS_MASK: u64 = 0x000f_ffff_ffff_f000;
/// The platform's host address width.
const HOST_ADDRESS_BITS: u32 = 52;
/// The interrupt address range, FEEx_xxxxh (VT-d §3.14).
const INTERRUPT_RANGE: core::ops::RangeInclusive<u64> = 0xfee0_0000..=0xfeef_ffff;
/// How often a walk starts anew because the guest changed an entry under it.
const WALK_ATTEMPTS: u32 = 16;

/// Where tables are read from and marked in: a tenant's memory, or that behind its second stage.
pub(crate) trait Tables {
    /// Loads the 8-byte entry at an address, in one piece.
    fn load(&self, at: Gpa) -> Result<u64, TableError>;

    /// Replaces the entry if it is still `seen`.
    fn mark(&self, at: Gpa, seen: u64, marked: u64) -> Result<Marked, TableError>;
}

/// What came of marking an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marked {
    /// The entry is marked.
    Done,
    /// The entry is no longer what was seen.
    Changed,
}

/// Why an entry cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableError {
    /// There is no such memory, it is gone, or it may not be written.
    Access,
    /// The guest's second stage does not allow it.
    Denied,
    /// The address is beyond the width of the guest's second stage.
    BeyondWidth,
    /// The walk of the guest's second stage failed otherwise.
    Stage(FaultReason),
}

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// The guest physical address that the request's address leads to.
    pub(crate) at: Gpa,
    /// The size of the page, aligned, in which all addresses are translated alike.
    pub(crate) size: PageSize,
}

/// A table of 4 KiB pages that a walk has come through, and what the entries above it allow.
///
/// With [`FirstLeaf`] and [`second_leaf`] the last step of a walk can be taken again without those
/// before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeafTable {
    /// An address whose entry is in it.
    pub(crate) address: u64,
    /// The table's address in the tenant's memory.
    pub(crate) at: Gpa,
    /// What the path to it allows.
    pub(crate) rights: Rights,
}

/// What a path through a table allows, in the few bits that matter; which they are is the stage's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rights(u8);

impl Rights {
    /// Of a number that [`Rights::get`] gave.
    pub(crate) const fn new(bits: u8) -> Self {
        Self(bits)
    }

    /// As a number.
    pub(crate) const fn get(self) -> u8 {
        self.0
    }
}

/// What came of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Walked {
    /// Where the address leads.
    pub(crate) leaf: Leaf,
    /// The size of the page in the table that the request's address is looked up in. `leaf` may be
    /// of a smaller piece.
    pub(crate) whole: PageSize,
    /// The first stage's table, where the walk ended in one of 4 KiB pages.
    pub(crate) first: Option<LeafTable>,
    /// The same of the second stage.
    pub(crate) second: Option<LeafTable>,
}

/// Whether the guest can make a refused request succeed by answering a page request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mend {
    /// The first stage lacks the page or a permission.
    ByPageRequest,
    /// Asking would not help.
    Never,
}

/// A request that the tables refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: FaultReason,
    pub(crate) mend: Mend,
}

impl Refusal {
    const fn mendable(reason: FaultReason) -> Self {
        Self {
            reason,
            mend: Mend::ByPageRequest,
        }
    }
}

impl From<FaultReason> for Refusal {
    fn from(reason: FaultReason) -> Self {
        Self {
            reason,
            mend: Mend::Never,
        }
    }
}

/// Whether a request carries a PASID, which decides what an address in the interrupt range is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefix {
    /// The request has a PASID.
    Pasid,
    /// The request has none.
    None,
}

/// Translates one address of a space for one kind of access.
///
/// Accessed and dirty bits are set on the way. The result is not in the interrupt range.
#[cfg(test)]
pub(crate) fn translate<T: Tables>(
    space: &Space,
    tables: &T,
    at: Iova,
    access: Access,
    prefix: Prefix,
) -> Result<Leaf, Refusal> {
    walk(space, tables, at, access, prefix).map(|walked| walked.leaf)
}

/// Translates one address of a space for one kind of access, and says by which tables.
///
/// Accessed and dirty bits are set on the way. The result is not in the interrupt range.
///
/// Where several faults apply, the first of this order is reported (VT-d §7.1.3): the interrupt range
/// as an address without a PASID, which is an interrupt and not subject to remapping at all (§3.14);
/// what the PASID entry forbids; the address itself; each table entry from the top down (unreachable,
/// not present, reserved bits); permissions, those of the first stage by mode, execution, write; bits
/// that cannot be set; then the second stage for the result, alike; the interrupt range as a result.
pub(crate) fn walk<T: Tables>(
    space: &Space,
    tables: &T,
    at: Iova,
    access: Access,
    prefix: Prefix,
) -> Result<Walked, Refusal> {
    if is_interrupt(at, prefix) {
        return Err(FaultReason::InterruptRange.into());
    }
    if access.contains(Access::EXECUTE) && !has_execution(space) {
        return Err(FaultReason::ExecuteRequestDisabled.into());
    }
    let walked = match space {
        Space::FirstStage(stage) => {
            let (leaf, first) = first::walk(stage, tables, at, access)?;
            Walked {
                leaf,
                whole: leaf.size,
                first,
                second: None,
            }
        }
        Space::SecondStage(stage) => {
            let (leaf, second) = second::walk(stage, tables, Gpa::new(at.get()), access)?;
            Walked {
                leaf,
                whole: leaf.size,
                first: None,
                second,
            }
        }
        Space::Nested(stage, outer) => {
            let behind = Behind {
                tables,
                second: outer,
            };
            let (inner, table) = first::walk(stage, &behind, at, access)?;
            let result = second::walk(outer, tables, inner.at, access);
            let (leaf, second) = result.map_err(of_nested)?;
            let first = table.and_then(|table| {
                let at = behind.resolve(table.at, Access::READ).ok()?;
                Some(LeafTable { at, ..table })
            });
            Walked {
                leaf: Leaf {
                    at: leaf.at,
                    size: inner.size.min(leaf.size),
                },
                whole: inner.size,
                first,
                second,
            }
        }
        Space::PassThrough if at.get() >> HOST_ADDRESS_BITS != 0 => {
            return Err(FaultReason::BeyondHostWidth.into());
        }
        Space::PassThrough => Walked {
            leaf: Leaf {
                at: Gpa::new(at.get()),
                size: PageSize::Size1G,
            },
            // No table has a page of it, so none can be invalidated as a whole.
            whole: PageSize::Size4K,
            first: None,
            second: None,
        },
    };
    if INTERRUPT_RANGE.contains(&walked.leaf.at.get()) {
        return Err(FaultReason::InterruptRange.into());
    }
    Ok(walked)
}

/// Whether requests to execute can be allowed at all: a first stage alone says so (VT-d §7.1.3, SPT.5).
pub(crate) const fn has_execution(space: &Space) -> bool {
    matches!(space, Space::FirstStage(_) | Space::Nested(..))
}

/// What a second stage's refusal of a first stage's result is under nesting: an address beyond its width is
/// the fault of the entry that holds it (VT-d §7.1.3, SFS.5).
fn of_nested(reason: FaultReason) -> FaultReason {
    match reason {
        FaultReason::BeyondSecondStageWidth => FaultReason::FirstStageBeyondWidth,
        other => other,
    }
}

/// Whether an address of a request is in the interrupt range, where requests without a PASID are
/// interrupts.
pub(crate) fn is_interrupt(at: Iova, prefix: Prefix) -> bool {
    prefix == Prefix::None && INTERRUPT_RANGE.contains(&at.get())
}

/// Whether some address of the page around an address of a request is in the interrupt range, where
/// requests without a PASID are interrupts, so that the page is not translated as a whole.
pub(crate) fn holds_interrupts(at: Iova, size: PageSize, prefix: Prefix) -> bool {
    let page = Gpa::new(at.get() & !(size.bytes() - 1));
    prefix == Prefix::None && meets_interrupt_range(page, size)
}

/// The judgements of a first stage about entries of a [`LeafTable`], worked out ahead as far as may be.
#[derive(Clone, Copy)]
pub(crate) struct FirstLeaf {
    stage: FirstStage,
    reads: first::Plain,
    writes: first::Plain,
}

impl FirstLeaf {
    /// Those of a stage.
    pub(crate) fn new(stage: FirstStage) -> Self {
        Self {
            stage,
            reads: first::Plain::new(&stage, Access::READ),
            writes: first::Plain::new(&stage, Access::WRITE),
        }
    }

    /// The page of 4 KiB that an entry leads to. `None` unless the entry allows the access and has its
    /// marks: then the whole walk says what becomes of it.
    // A call would cost more than the judgement.
    #[inline(always)]
    pub(crate) fn page(&self, rights: Rights, entry: u64, access: Access) -> Option<Gpa> {
        if access == Access::READ {
            self.reads.leaf(rights, entry)
        } else if access == Access::WRITE {
            self.writes.leaf(rights, entry)
        } else {
            first_leaf(&self.stage, rights, entry, access)
        }
    }
}

/// As [`FirstLeaf::page`], with nothing worked out ahead.
pub(crate) fn first_leaf(
    stage: &FirstStage,
    rights: Rights,
    entry: u64,
    access: Access,
) -> Option<Gpa> {
    first::leaf(stage, rights, entry, access)
}

/// The page of 4 KiB that an entry of a second stage's [`LeafTable`] leads to, as
/// [`FirstLeaf::page`] says.
pub(crate) fn second_leaf(
    stage: &SecondStage,
    rights: Rights,
    entry: u64,
    access: Access,
) -> Option<Gpa> {
    second::leaf(stage, rights, entry, access)
}

/// Translates by a second stage alone, and says by which table.
pub(crate) fn walk_second<T: Tables>(
    stage: &SecondStage,
    tables: &T,
    at: Gpa,
    access: Access,
) -> Result<(Leaf, Option<LeafTable>), FaultReason> {
    second::walk(stage, tables, at, access)
}

/// Where in a table of 4 KiB pages the entry of an address is, in bytes.
pub(crate) const fn leaf_offset_bytes(address: u64) -> u64 {
    entry_offset(address, 1)
}

/// Whether some address of a page is in the interrupt range, so that the page is not translated as
/// a whole.
pub(crate) fn meets_interrupt_range(page: Gpa, size: PageSize) -> bool {
    let last = page.get().saturating_add(size.bytes() - 1);
    page.get() <= *INTERRUPT_RANGE.end() && last >= *INTERRUPT_RANGE.start()
}

/// Tables whose addresses go through a guest's second stage.
struct Behind<'a, T> {
    tables: &'a T,
    second: &'a SecondStage,
}

impl<T: Tables> Behind<'_, T> {
    fn resolve(&self, at: Gpa, access: Access) -> Result<Gpa, TableError> {
        let leaf = second::walk(self.second, self.tables, at, access);
        leaf.map(|(leaf, _)| leaf.at)
            .map_err(|reason| match reason {
                FaultReason::BeyondSecondStageWidth => TableError::BeyondWidth,
                FaultReason::NotReadable | FaultReason::NotWritable => TableError::Denied,
                other => TableError::Stage(other),
            })
    }
}

impl<T: Tables> Tables for Behind<'_, T> {
    fn load(&self, at: Gpa) -> Result<u64, TableError> {
        self.tables.load(self.resolve(at, Access::READ)?)
    }

    fn mark(&self, at: Gpa, seen: u64, marked: u64) -> Result<Marked, TableError> {
        let at = self.resolve(at, Access::WRITE)?;
        self.tables.mark(at, seen, marked)
    }
}

/// The index of an address in a table of this level, counted from 1, as a distance in bytes.
const fn entry_offset(address: u64, level: u8) -> u64 {
    ((address >> (3 + 9 * level as u32)) & 0x1ff) << 3
}

/// The address of an entry; tables are aligned and below 2^52, so the sum cannot wrap.
const fn entry_at(table: Gpa, address: u64, level: u8) -> Gpa {
    Gpa::new(table.get() | entry_offset(address, level))
}
