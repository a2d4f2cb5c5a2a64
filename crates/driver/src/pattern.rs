//! Bytes that say where they belong, so that a copy that went wrong anywhere is seen.

/// A pattern by its seed: two patterns, or two offsets of one, hardly ever agree in eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern(pub u64);

/// The first byte that is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its offset in the pattern.
    pub offset: u64,
    /// What should be there.
    pub expected: u8,
    /// What is.
    pub found: u8,
}

impl Pattern {
    /// Writes the part of the pattern from `offset`, a multiple of eight, on.
    pub fn fill(self, offset: u64, into: &mut [u8]) {
        let (words, rest) = into.as_chunks_mut::<8>();
        let mut next = offset / 8;
        for word in words {
            *word = self.word(next).to_le_bytes();
            next += 1;
        }
        let last = self.word(next).to_le_bytes();
        rest.copy_from_slice(&last[..rest.len()]);
    }

    /// Compares with the part of the pattern from `offset`, a multiple of eight, on.
    #[must_use]
    pub fn difference(self, offset: u64, bytes: &[u8]) -> Option<Difference> {
        let first = offset / 8;
        let (words, rest) = bytes.as_chunks::<8>();
        let wrong = |found: &[u8], index: u64| {
            let expected = self.word(index).to_le_bytes();
            let at = found
                .iter()
                .zip(&expected)
                .position(|(found, expected)| found != expected)?;
            Some(Difference {
                offset: index * 8 + at as u64,
                expected: expected[at],
                found: found[at],
            })
        };
        // Whether there is a difference at all, without a branch for each word.
        let differing = |words: &[[u8; 8]], first: u64| {
            (first..).zip(words).fold(0, |bits, (index, word)| {
                bits | (u64::from_le_bytes(*word) ^ self.word(index))
            }) != 0
        };
        if differing(words, first) {
            return (first..)
                .zip(words)
                .find_map(|(index, word)| wrong(word, index));
        }
        wrong(rest, first + words.len() as u64)
    }

    fn word(self, index: u64) -> u64 {
        let mixed = (self.0 ^ index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29) ^ self.0.rotate_left(17)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_byte_is_found_where_it_is() {
        let mut bytes = [0; 100];
        Pattern(7).fill(4096, &mut bytes);
        assert_eq!(Pattern(7).difference(4096, &bytes), None);
        bytes[77] ^= 0x10;
        let found = bytes[77];
        let difference = Difference {
            offset: 4096 + 77,
            expected: found ^ 0x10,
            found,
        };
        assert_eq!(Pattern(7).difference(4096, &bytes), Some(difference));
    }

    #[test]
    fn another_seed_and_another_offset_are_other_bytes() {
        let mut bytes = [0; 64];
        Pattern(7).fill(0, &mut bytes);
        assert!(Pattern(8).difference(0, &bytes).is_some());
        assert!(Pattern(7).difference(8, &bytes).is_some());
        assert!(Pattern(7).difference(0, &[0; 8]).is_some());
    }
}
