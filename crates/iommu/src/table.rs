use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwapOption, Guard};
use palisade_units::{GuestPasid, PASID_BITS, PASID_COUNT, PasidTag};

use crate::entry::Entry;

/// Entries in one leaf of the table.
const LEAF_BITS: u32 = 10;
const LEAF_ENTRIES: u32 = 1 << LEAF_BITS;

type Leaf = Box<[ArcSwapOption<Entry>]>;

/// The PASID table of one function, its own. Look-ups take no lock; leaves appear when first needed.
pub(crate) struct PasidTable {
    untagged: ArcSwapOption<Entry>,
    leaves: Box<[OnceLock<Leaf>]>,
}

impl PasidTable {
    pub(crate) fn new() -> Self {
        let leaves = 0..1 << (PASID_BITS - LEAF_BITS);
        Self {
            untagged: ArcSwapOption::empty(),
            leaves: leaves.map(|_: u32| OnceLock::new()).collect(),
        }
    }

    fn leaf(&self, tag: PasidTag) -> Option<&OnceLock<Leaf>> {
        self.leaves.get((tag.get() >> LEAF_BITS) as usize)
    }

    fn cell(&self, tag: Option<PasidTag>) -> Option<&ArcSwapOption<Entry>> {
        let Some(tag) = tag else {
            return Some(&self.untagged);
        };
        self.leaf(tag)?
            .get()?
            .get((tag.get() % LEAF_ENTRIES) as usize)
    }

    /// The entry of a tag, for a moment.
    pub(crate) fn peek(&self, tag: Option<PasidTag>) -> Option<Guard<Option<Arc<Entry>>>> {
        let entry = self.cell(tag)?.load();
        entry.is_some().then_some(entry)
    }

    /// The entry of a tag, to keep.
    pub(crate) fn get(&self, tag: Option<PasidTag>) -> Option<Arc<Entry>> {
        self.cell(tag)?.load_full()
    }

    /// Puts an entry in place, or takes it away, and returns what stood there.
    pub(crate) fn swap(&self, tag: Option<PasidTag>, entry: Option<Entry>) -> Option<Arc<Entry>> {
        if let (Some(leaf), Some(_)) = (tag.and_then(|tag| self.leaf(tag)), &entry) {
            leaf.get_or_init(|| (0..LEAF_ENTRIES).map(|_| ArcSwapOption::empty()).collect());
        }
        self.cell(tag)?.swap(entry.map(Arc::new))
    }

    /// Walks the table: every present entry with its tag, those without a PASID first.
    pub(crate) fn entries(&self) -> Vec<(Option<PasidTag>, Arc<Entry>)> {
        let untagged = self.untagged.load_full().map(|entry| (None, entry));
        let present = (0..PASID_COUNT).step_by(LEAF_ENTRIES as usize);
        let tagged = present
            .zip(&self.leaves)
            .filter_map(|(base, leaf)| Some((base, leaf.get()?)));
        let tagged = tagged.flat_map(|(base, leaf)| {
            let cells = (base..).zip(leaf.iter());
            cells.filter_map(|(number, cell)| {
                let tag = PasidTag::of_exclusive_owner(GuestPasid::new(number).ok()?);
                Some((Some(tag), cell.load_full()?))
            })
        });
        untagged.into_iter().chain(tagged).collect()
    }
}
