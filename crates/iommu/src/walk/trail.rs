use palisade_units::Gpa;

use super::{Marked, TableError, Tables};
use crate::PageWalkSnoop;

/// The most levels that a table has.
const MAX_LEVELS: usize = 5;

/// The entries that a walk used, from the top of the table to the leaf.
#[derive(Default)]
pub(super) struct Trail {
    steps: [Step; MAX_LEVELS],
    length: usize,
}

#[derive(Clone, Copy, Default)]
struct Step {
    at: Gpa,
    entry: u64,
}

/// The bits that a translation sets in what it used.
#[derive(Clone, Copy)]
pub(super) struct Marks {
    /// In every entry.
    pub(super) used: u64,
    /// In the leaf, beside those.
    pub(super) leaf: u64,
}

/// Why bits cannot be set.
pub(super) enum Unmarkable {
    /// The walk does not snoop.
    Incoherent,
    /// The entry cannot be reached or written.
    Table(TableError),
}

impl Trail {
    /// Adds the entry that was found at an address. No table has more levels than there are places.
    pub(super) const fn push(&mut self, at: Gpa, entry: u64) {
        if self.length < MAX_LEVELS {
            self.steps[self.length] = Step { at, entry };
            self.length += 1;
        }
    }

    /// Sets what is not set yet, in each entry at once and only while it is what the walk saw: where
    /// it is not, the walk has to start anew.
    pub(super) fn mark<T: Tables>(
        &self,
        tables: &T,
        marks: Marks,
        snoop: PageWalkSnoop,
    ) -> Result<Marked, Unmarkable> {
        for (index, step) in self.steps[..self.length].iter().enumerate() {
            let leaf = index + 1 == self.length;
            let bits = marks.used | if leaf { marks.leaf } else { 0 };
            if step.entry & bits == bits {
                continue;
            }
            if snoop == PageWalkSnoop::Off {
                return Err(Unmarkable::Incoherent);
            }
            let marked = tables.mark(step.at, step.entry, step.entry | bits);
            if marked.map_err(Unmarkable::Table)? == Marked::Changed {
                return Ok(Marked::Changed);
            }
        }
        Ok(Marked::Done)
    }
}
