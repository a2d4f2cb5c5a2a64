use palisade_units::PASID_COUNT;

use crate::numbers::index;

const WORD_BITS: u32 = u64::BITS;

fn split(bit: u32) -> (u32, u64) {
    (bit / WORD_BITS, 1 << (bit % WORD_BITS))
}

/// The ids that can be given out: one bit for each of the 2^20, under a hierarchy in which a bit says
/// that the 64 bits below it are not all clear. Finding the lowest set bit costs at most two words a level.
pub(crate) struct FreeMap {
    levels: [Box<[u64]>; 4],
}

impl FreeMap {
    /// Every id free.
    pub(crate) fn full() -> Self {
        let mut bits = PASID_COUNT;
        let levels = std::array::from_fn(|_| {
            let words = bits.div_ceil(WORD_BITS);
            let mut level = vec![u64::MAX; index(words)].into_boxed_slice();
            if let (Some(last), 1..) = (level.last_mut(), bits % WORD_BITS) {
                *last = (1 << (bits % WORD_BITS)) - 1;
            }
            bits = words;
            level
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

    /// Whether an id is free. `id` is below 2^20.
    pub(crate) fn contains(&self, id: u32) -> bool {
        let (word, mask) = split(id);
        self.levels[0][index(word)] & mask != 0
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
        fn the_map_agrees_with_a_sorted_set(
            steps in prop::collection::vec((any::<bool>(), id(), id()), 0..300)
        ) {
            let mut free = FreeMap::full();
            let mut model: BTreeSet<u32> = (0..PASID_COUNT).collect();
            for (inserts, id, probe) in steps {
                if inserts {
                    free.insert(id);
                    model.insert(id);
                } else {
                    free.remove(id);
                    model.remove(&id);
                }
                prop_assert_eq!(free.contains(probe), model.contains(&probe));
                prop_assert_eq!(free.lowest_from(probe), model.range(probe..).next().copied());
            }
        }
    }

    #[test]
    fn nothing_is_found_beyond_the_last_id() {
        let mut free = FreeMap::full();
        (0..PASID_COUNT - 1).for_each(|id| free.remove(id));
        assert_eq!(free.lowest_from(0), Some(PASID_COUNT - 1));
        assert_eq!(free.lowest_from(PASID_COUNT), None);
        assert_eq!(free.lowest_from(u32::MAX), None);
    }
}
