//! Page tables of a guest process: x86-64 with four levels, which the unit walks as its first stage
//! (VT-d §3.6, §9.8 to §9.11).

mod entry;
#[cfg(test)]
mod tests;

pub use entry::{Entry, Rights};

use crate::{error::DriverError, guest::Guest, physical::Frame};
use palisade_units::{Gpa, Iova, PAGE_BYTES, PageSize};

/// How many entries a table has.
const ENTRIES: u64 = 512;
/// The first address that a process cannot have: four levels translate 48 bits, the upper half is
/// the kernel's.
pub const USER_END: Iova = Iova::new(1 << 47);

/// What a virtual address leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The frame that the page is.
    pub frame: Frame,
    /// What may be done with it.
    pub rights: Rights,
}

/// A tree of tables in guest memory, rooted in one page.
///
/// Every change of an entry is a single atomic store or exchange, so that a walker sees the old entry or the
/// new one, never a mixture. Tables that a change makes superfluous stay taken until [`PageTable::release`]: a
/// walker may still hold them until the caller has invalidated.
#[derive(Debug)]
pub struct PageTable {
    root: Frame,
    tables: Vec<Frame>,
}

impl PageTable {
    /// A table that maps nothing.
    ///
    /// # Errors
    /// [`DriverError::OutOfMemory`].
    pub fn new(guest: &mut Guest) -> Result<Self, DriverError> {
        let root = guest.take_zeroed(PageSize::Size4K)?;
        Ok(Self {
            root,
            tables: Vec::new(),
        })
    }

    /// The root table's address, as a PASID entry takes it.
    #[must_use]
    pub fn root(&self) -> Gpa {
        self.root.at
    }

    /// Maps one page at `at` to `frame`.
    ///
    /// # Errors
    /// [`DriverError::Mapped`] where a page, or part of one, is mapped already;
    /// [`DriverError::BadRange`] where `at` is not aligned to the frame's size or not a user's address.
    pub fn map(
        &mut self,
        guest: &mut Guest,
        at: Iova,
        frame: Frame,
        rights: Rights,
    ) -> Result<(), DriverError> {
        check_range(at, frame.size.bytes(), frame.size)?;
        let leaf_level = level_of(frame.size);
        let mut table = self.root.at;
        for level in (leaf_level + 1..=4).rev() {
            table = self.table_below(guest, table, level, at)?;
        }
        let slot = slot(table, leaf_level, at);
        let old = Entry::from_raw(guest.load_u64(slot)?);
        if old.is_leaf(leaf_level) || !self.is_empty_below(guest, old, leaf_level)? {
            return Err(DriverError::Mapped { at });
        }
        guest.store_u64(slot, Entry::leaf(frame, rights).raw())
    }

    /// Takes the pages of a range away, breaking up a 2 MiB page of which a part remains. What is not
    /// mapped is passed over. The caller invalidates afterwards, before it uses the frames for anything else.
    ///
    /// # Errors
    /// [`DriverError::BadRange`] unless `at` and `len_bytes` are whole 4 KiB pages;
    /// [`DriverError::OutOfMemory`] when a page must be broken up and there is no frame for the table.
    pub fn unmap(
        &mut self,
        guest: &mut Guest,
        at: Iova,
        len_bytes: u64,
    ) -> Result<(), DriverError> {
        self.change(guest, at, len_bytes, |_| Entry::EMPTY)
    }

    /// Gives the pages of a range other rights, breaking up a 2 MiB page of which a part keeps its
    /// own. What is not mapped is passed over. The accessed and dirty marks stay as they are.
    ///
    /// # Errors
    /// As [`PageTable::unmap`].
    pub fn protect(
        &mut self,
        guest: &mut Guest,
        at: Iova,
        len_bytes: u64,
        rights: Rights,
    ) -> Result<(), DriverError> {
        self.change(guest, at, len_bytes, |entry| entry.with_rights(rights))
    }

    /// What stands at an address, as software finds it; `None` where nothing is mapped.
    ///
    /// # Errors
    /// [`DriverError::OutsideMemory`] if the tables were overwritten with something else.
    pub fn walk(&self, guest: &Guest, at: Iova) -> Result<Option<Leaf>, DriverError> {
        let mut table = self.root.at;
        for level in (1..=4).rev() {
            let entry = Entry::from_raw(guest.load_u64(slot(table, level, at))?);
            if !entry.is_present() {
                return Ok(None);
            }
            if let Some(frame) = entry.frame(level) {
                return Ok(Some(Leaf {
                    frame,
                    rights: entry.rights(),
                }));
            }
            table = entry.table();
        }
        Ok(None)
    }

    /// Gives all tables back. No unit may walk them any more; the frames that they map to are not touched.
    pub fn release(self, guest: &mut Guest) {
        for table in self.tables {
            guest.give_back(table);
        }
        guest.give_back(self.root);
    }

    /// The table under `at`'s entry of a table of `level`, made if there is none yet.
    fn table_below(
        &mut self,
        guest: &mut Guest,
        table: Gpa,
        level: u8,
        at: Iova,
    ) -> Result<Gpa, DriverError> {
        let slot = slot(table, level, at);
        let entry = Entry::from_raw(guest.load_u64(slot)?);
        if entry.is_leaf(level) {
            return Err(DriverError::Mapped { at });
        }
        if entry.is_present() {
            return Ok(entry.table());
        }
        let new = self.new_table(guest)?;
        guest.store_u64(slot, Entry::to_table(new).raw())?;
        Ok(new)
    }

    fn new_table(&mut self, guest: &mut Guest) -> Result<Gpa, DriverError> {
        let frame = guest.take_zeroed(PageSize::Size4K)?;
        self.tables.push(frame);
        Ok(frame.at)
    }

    /// Whether nothing is mapped below an entry that is not a leaf.
    fn is_empty_below(&self, guest: &Guest, entry: Entry, level: u8) -> Result<bool, DriverError> {
        if !entry.is_present() {
            return Ok(true);
        }
        for index in 0..ENTRIES {
            let below = Gpa::new(entry.table().get() + index * 8);
            let below = Entry::from_raw(guest.load_u64(below)?);
            let below_level = level.saturating_sub(1);
            let used =
                below.is_leaf(below_level) || !self.is_empty_below(guest, below, below_level)?;
            if used {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn change(
        &mut self,
        guest: &mut Guest,
        at: Iova,
        len_bytes: u64,
        change: impl Fn(Entry) -> Entry,
    ) -> Result<(), DriverError> {
        check_range(at, len_bytes, PageSize::Size4K)?;
        let end = at.get() + len_bytes;
        let mut here = at.get();
        while here < end {
            here += self.change_one(guest, Iova::new(here), end - here, &change)?;
        }
        Ok(())
    }

    /// Changes the leaf at `at`, or a part of it; returns how far the next one is.
    fn change_one(
        &mut self,
        guest: &mut Guest,
        at: Iova,
        left_bytes: u64,
        change: &impl Fn(Entry) -> Entry,
    ) -> Result<u64, DriverError> {
        let mut table = self.root.at;
        for level in (1..=4).rev() {
            let slot = slot(table, level, at);
            let entry = Entry::from_raw(guest.load_u64(slot)?);
            let span = span_of(level);
            let to_end = span - (at.get() & (span - 1));
            if !entry.is_present() {
                return Ok(to_end);
            }
            if !entry.is_leaf(level) {
                table = entry.table();
                continue;
            }
            if to_end == span && left_bytes >= span {
                guest.update_u64(slot, |raw| change(Entry::from_raw(raw)).raw())?;
                return Ok(span);
            }
            table = self.break_up(guest, slot, level)?;
        }
        Ok(PAGE_BYTES)
    }

    /// Replaces a large leaf by a table of smaller ones that map the same.
    fn break_up(&mut self, guest: &mut Guest, slot: Gpa, level: u8) -> Result<Gpa, DriverError> {
        let table = self.new_table(guest)?;
        let entry = Entry::from_raw(guest.load_u64(slot)?);
        for index in 0..ENTRIES {
            guest.store_u64(
                Gpa::new(table.get() + index * 8),
                entry.part(level, index).raw(),
            )?;
        }
        // A mark that a walker sets between the load and this store is lost. Nothing here reads marks.
        guest.store_u64(slot, Entry::to_table(table).raw())?;
        Ok(table)
    }
}

/// Where the entry for `at` stands in a table of `level`.
const fn slot(table: Gpa, level: u8, at: Iova) -> Gpa {
    let index = (at.get() >> shift_of(level)) & (ENTRIES - 1);
    Gpa::new(table.get() + index * 8)
}

const fn shift_of(level: u8) -> u32 {
    12 + 9 * (level as u32 - 1)
}

/// How many bytes one entry of a table of `level` stands for.
const fn span_of(level: u8) -> u64 {
    1 << shift_of(level)
}

const fn level_of(size: PageSize) -> u8 {
    match size {
        PageSize::Size4K => 1,
        PageSize::Size2M => 2,
        PageSize::Size1G => 3,
    }
}

fn check_range(at: Iova, len_bytes: u64, unit: PageSize) -> Result<(), DriverError> {
    let bad = |why| Err(DriverError::BadRange { at, len_bytes, why });
    if len_bytes == 0 {
        return bad("the length is zero");
    }
    if !at.get().is_multiple_of(unit.bytes()) || !len_bytes.is_multiple_of(unit.bytes()) {
        return bad("it is not aligned to the page size");
    }
    match at.checked_add(len_bytes) {
        Some(end) if end <= USER_END => Ok(()),
        _ => bad("a process's addresses end at 2^47"),
    }
}
