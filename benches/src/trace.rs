/// Pseudo-random numbers, the same in every run (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence that belongs to a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, or 0 if that is 0.
    pub fn below(&mut self, end: u32) -> u32 {
        let scaled = u128::from(self.next_u64()) * u128::from(end);
        // The upper half of the product is below `end`.
        u32::try_from(scaled >> 64).unwrap_or(0)
    }

    /// An index below `len`, or 0 if that is 0. Lengths are below 2^32.
    pub fn index(&mut self, len: usize) -> usize {
        let end = u32::try_from(len).unwrap_or(u32::MAX);
        usize::try_from(self.below(end)).unwrap_or(0)
    }

    /// Brings a random choice of `count` elements to the front, in random order.
    pub fn choose<T>(&mut self, from: &mut [T], count: usize) {
        for at in 0..count.min(from.len()) {
            let other = at + self.index(from.len() - at);
            from.swap(at, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_below_their_end_and_reach_all_of_it() {
        let mut random = Random::new(1);
        let mut seen = [false; 10];
        for _ in 0..1000 {
            seen[random.index(10)] = true;
        }
        assert_eq!(seen, [true; 10]);
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn a_choice_loses_nothing_and_repeats_nothing() {
        let mut numbers: Vec<u32> = (0..100).collect();
        Random::new(2).choose(&mut numbers, 64);
        assert!(!numbers.is_sorted());
        numbers.sort_unstable();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    }
}
