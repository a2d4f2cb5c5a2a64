use palisade_memory::Place;
use palisade_units::{PAGE_SHIFT, PageSize};

use crate::cached::Cached;
use crate::journal::Pages;
use crate::tlb::{Key, Line, Lines};
use crate::walk::Rights;

/// Lines. Each stands for 2 MiB of addresses.
const LINES: usize = 2048;
/// Rights stand above the number, which has 43 bits.
const RIGHTS_SHIFT: u32 = 56;
const NUMBER: u64 = (1 << RIGHTS_SHIFT) - 1;

/// A port's private cache of where tables of 4 KiB pages lie, and what the entries above them allow
/// (VT-d §6.2.5: paging-structure caches). With it a miss reads one entry of a stage instead of one
/// for each level.
///
/// The accessed bits above are set: what is cached was walked through.
pub(crate) struct Upper(Lines<LINES, NUMBER>);

/// A table of 4 KiB pages.
#[derive(Clone, Copy)]
pub(crate) struct Table {
    /// Its first entry.
    pub(crate) place: Place,
    /// What the entries above it allow.
    pub(crate) rights: Rights,
}

impl Upper {
    pub(crate) fn new() -> Self {
        Self(Lines::new())
    }

    #[inline]
    pub(crate) fn find(&self, key: Key, address: u64) -> Option<Table> {
        let line = self.0.find(key, address >> PageSize::Size2M.shift())?;
        let [.., rights] = line.number().to_le_bytes();
        Some(Table {
            place: line.place(),
            rights: Rights::new(rights),
        })
    }

    #[inline]
    pub(crate) fn put(&mut self, key: Key, address: u64, table: Table) {
        let number = address >> PageSize::Size2M.shift();
        let rights = u64::from(table.rights.get()) << RIGHTS_SHIFT;
        self.0.put(Line::new(key, number | rights, table.place));
    }

    /// Forgets the tables of pages.
    pub(crate) fn remove(&mut self, pages: Pages) {
        let shift = PageSize::Size2M.shift() - PAGE_SHIFT;
        let (first, last) = (pages.first >> shift, pages.last >> shift);
        self.0.remove(pages.whose, first, last, Cached::Everywhere);
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = &Line> {
        self.0.lines()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
