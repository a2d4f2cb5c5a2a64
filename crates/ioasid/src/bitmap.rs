use std::collections::BTreeMap;

use palisade_units::PASID_COUNT;

const WORD_BITS: u32 = u64::BITS;

fn split(bit: u32) -> (u32, u64) {
    (bit / WORD_BITS, 1 << (bit % WORD_BITS))
}

fn index(word: u32) -> usize {
    // A u32 fits a usize wherever std runs with 2^20 PASIDs.
    usize::try_from(word).unwrap_or(usize::MAX)
}

/// The ids that can be given out: one bit for each of the 2^20, under a hierarchy in which a bit says
/// that the 64 bits below it are not all clear. Finding the lowest set bit costs at most two words a level.
pub(crate) struct FreeMap {
    levels: [Box<[u64]>; 4],
}

impl FreeMap {
    /// No id free.
    pub(crate) fn empty() -> Self {
        let mut bits = PASID_COUNT;
        let levels = std::array::from_fn(|_| {
            bits = bits.div_ceil(WORD_BITS);
            vec![0; index(bits)].into_boxed_slice()
        });
        Self { levels }
    }

    /// Makes an id free. `id` is below 2^20.
    pub(crate) fn insert(&mut self, id: u32) {
        let mut bit = id;
        for level in &mut self.levels {
            let (word, mask) = split(bit);
            let word_ref = &mut level[index(word)];
            let had_some = *word_ref != 0;
            *word_ref |= mask;
            if had_some {
                return;
            }
            bit = word;
        }
    }

    /// Takes an id. `id` is below 2^20.
    pub(crate) fn remove(&mut self, id: u32) {
        let mut bit = id;
        for level in &mut self.levels {
            let (word, mask) = split(bit);
            let word_ref = &mut level[index(word)];
            *word_ref &= !mask;
            if *word_ref != 0 {
                return;
            }
            bit = word;
        }
    }

    /// The lowest free id that is not below `from`.
    pub(crate) fn lowest_from(&self, from: u32) -> Option<u32> {
        let mut bit = from;
        for (height, level) in self.levels.iter().enumerate() {
            let (word, mask) = split(bit);
            let at_or_above = level.get(index(word))? & mask.wrapping_neg();
            if at_or_above != 0 {
                let mut found = word * WORD_BITS + at_or_above.trailing_zeros();
                for lower in self.levels[..height].iter().rev() {
                    found = found * WORD_BITS + lower[index(found)].trailing_zeros();
                }
                return Some(found);
            }
            bit = word + 1;
        }
        None
    }
}

/// The ids that one set owns. Costs follow what it holds, not how wide a range is asked about.
#[derive(Default)]
pub(crate) struct OwnedIds {
    words: BTreeMap<u32, u64>,
}

impl OwnedIds {
    pub(crate) fn insert(&mut self, id: u32) {
        let (word, mask) = split(id);
        *self.words.entry(word).or_default() |= mask;
    }

    pub(crate) fn remove(&mut self, id: u32) {
        let (word, mask) = split(id);
        if let Some(bits) = self.words.get_mut(&word) {
            *bits &= !mask;
            if *bits == 0 {
                self.words.remove(&word);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn words(&self) -> usize {
        self.words.len()
    }

    /// The ids in `min..=max`, ascending.
    pub(crate) fn within(&self, min: u32, max: u32) -> Vec<u32> {
        if min > max {
            return Vec::new();
        }
        let mut ids = Vec::new();
        for (&word, &bits) in self.words.range(min / WORD_BITS..=max / WORD_BITS) {
            let mut rest = bits;
            while rest != 0 {
                ids.push(word * WORD_BITS + rest.trailing_zeros());
                rest &= rest - 1;
            }
        }
        ids.retain(|id| (min..=max).contains(id));
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn id() -> impl Strategy<Value = u32> {
        prop_oneof![
            0..200u32,
            4000..4200u32,
            262_100..262_200u32,
            PASID_COUNT - 70..PASID_COUNT
        ]
    }

    proptest! {
        #[test]
        fn both_maps_agree_with_a_sorted_set(
            steps in prop::collection::vec((any::<bool>(), id(), id()), 0..300)
        ) {
            let (mut free, mut owned) = (FreeMap::empty(), OwnedIds::default());
            let mut model = BTreeSet::new();
            for (inserts, id, probe) in steps {
                if inserts {
                    free.insert(id);
                    owned.insert(id);
                    model.insert(id);
                } else {
                    free.remove(id);
                    owned.remove(id);
                    model.remove(&id);
                }
                prop_assert_eq!(free.lowest_from(probe), model.range(probe..).next().copied());
                let (low, high) = (id.min(probe), id.max(probe));
                let expected: Vec<u32> = model.range(low..=high).copied().collect();
                prop_assert_eq!(owned.within(low, high), expected);
            }
        }
    }

    #[test]
    fn nothing_is_found_beyond_the_last_id() {
        let mut free = FreeMap::empty();
        free.insert(PASID_COUNT - 1);
        assert_eq!(free.lowest_from(0), Some(PASID_COUNT - 1));
        assert_eq!(free.lowest_from(PASID_COUNT), None);
        assert_eq!(free.lowest_from(u32::MAX), None);
    }
}
