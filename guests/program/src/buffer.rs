//! Memory of this process that the device reads and writes.
//!
//! The device writes behind the compiler's back, so the words are atomics: reading one while the device
//! writes it is defined, and nothing is assumed about it between two loads.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{anyhow, ensure};
use zerocopy::FromZeros;

/// A run of bytes, at the start of a 2 MiB page, that the device may be given the address of.
#[derive(Debug)]
pub struct Buffer {
    words: Box<[AtomicU64]>,
    /// The word of the allocation that the buffer starts with.
    first: usize,
    len: usize,
}

/// Allocations of at least this size come fresh from the kernel, whatever was freed before, and go back to
/// it when they are freed. That costs address space alone.
const FRESH_BYTES: usize = 48 << 20;

/// Where a buffer starts, so that the kernel may use large pages for it.
const ALIGNMENT_BYTES: u64 = 2 << 20;

/// Bytes that can be told from any others: a function of a seed and the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern(pub u64);

impl Pattern {
    fn word(self, index: usize) -> u64 {
        // A finaliser of 64 bits: neighbours in seed or place share no bytes to speak of.
        let mut value = self.0 ^ (index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        value ^ (value >> 31)
    }

    /// The byte at `offset_bytes`.
    #[must_use]
    pub fn byte(self, offset_bytes: usize) -> u8 {
        byte_of(self.word(offset_bytes / 8), offset_bytes)
    }
}

fn byte_of(word: u64, offset_bytes: usize) -> u8 {
    word.to_le_bytes()[offset_bytes % 8]
}

impl Buffer {
    /// Zeros in pages that this process has never touched.
    ///
    /// # Errors
    /// No memory.
    pub fn untouched(len_bytes: usize) -> anyhow::Result<Self> {
        let no_memory = || anyhow!("no memory for a buffer of {len_bytes} bytes");
        let allocated = len_bytes
            .checked_next_multiple_of(8)
            .and_then(|len| len.checked_add(FRESH_BYTES))
            .ok_or_else(no_memory)?;
        let words =
            <[AtomicU64]>::new_box_zeroed_with_elems(allocated / 8).map_err(|_| no_memory())?;
        let base = words.as_ptr().addr() as u64;
        let skip = base.next_multiple_of(ALIGNMENT_BYTES) - base;
        Ok(Self {
            words,
            first: usize::try_from(skip / 8)?,
            len: len_bytes.div_ceil(8),
        })
    }

    fn words(&self) -> &[AtomicU64] {
        &self.words[self.first..self.first + self.len]
    }

    /// A buffer full of `pattern`.
    ///
    /// # Errors
    /// No memory.
    pub fn filled(len_bytes: usize, pattern: Pattern) -> anyhow::Result<Self> {
        let buffer = Self::untouched(len_bytes)?;
        buffer.fill(pattern);
        Ok(buffer)
    }

    /// Writes `pattern` over all of it.
    pub fn fill(&self, pattern: Pattern) {
        for (index, word) in self.words().iter().enumerate() {
            word.store(pattern.word(index), Ordering::Relaxed);
        }
    }

    /// Writes zeros over all of it.
    pub fn clear(&self) {
        for word in self.words() {
            word.store(0, Ordering::Release);
        }
    }

    /// Writes to each page, and changes nothing, so that all of them are there.
    pub fn touch(&self) {
        for word in self.words().iter().step_by(512) {
            word.fetch_or(0, Ordering::Relaxed);
        }
    }

    /// Its length in bytes, a multiple of eight.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len * 8
    }

    /// The address of the byte at `offset_bytes`, as the device is to be told.
    #[must_use]
    pub fn address(&self, offset_bytes: usize) -> u64 {
        self.words().as_ptr().expose_provenance() as u64 + offset_bytes as u64
    }

    /// The eight bytes at `offset_bytes`, a multiple of eight; none beyond the end.
    #[must_use]
    pub fn load_u64(&self, offset_bytes: usize) -> Option<u64> {
        let word = self.words().get(offset_bytes / 8)?;
        Some(word.load(Ordering::Acquire))
    }

    fn byte(&self, offset_bytes: usize) -> Option<u8> {
        let word = self.words().get(offset_bytes / 8)?;
        Some(byte_of(word.load(Ordering::Acquire), offset_bytes))
    }

    /// Checks that `len_bytes` from `offset_bytes` hold `pattern` from `pattern_offset_bytes`.
    ///
    /// # Errors
    /// Says where the first wrong byte is.
    pub fn expect_pattern(
        &self,
        offset_bytes: usize,
        pattern: Pattern,
        pattern_offset_bytes: usize,
        len_bytes: usize,
    ) -> anyhow::Result<()> {
        // Both aligned: word by word, which matters where an emulator runs this.
        let mut done = 0;
        if offset_bytes.is_multiple_of(8) && pattern_offset_bytes.is_multiple_of(8) {
            let (first, from) = (offset_bytes / 8, pattern_offset_bytes / 8);
            let words = self.words().iter().skip(first).take(len_bytes / 8);
            let same = words
                .enumerate()
                .take_while(|(i, word)| word.load(Ordering::Acquire) == pattern.word(from + i))
                .count();
            done = same * 8;
        }
        for i in done..len_bytes {
            let (is, must) = (
                self.byte(offset_bytes + i),
                pattern.byte(pattern_offset_bytes + i),
            );
            ensure!(
                is == Some(must),
                "byte {i} of {len_bytes} is {is:02x?}, not {must:#04x}"
            );
        }
        Ok(())
    }

    /// Checks that the bytes of a range are all zero.
    ///
    /// # Errors
    /// Says where the first other byte is.
    pub fn expect_zeros(&self, offset_bytes: usize, len_bytes: usize) -> anyhow::Result<()> {
        for i in offset_bytes..offset_bytes + len_bytes {
            let is = self.byte(i);
            ensure!(is == Some(0), "the byte at {i} is {is:02x?}, not zero");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_found_where_it_is_and_only_there() {
        let buffer = Buffer::filled(4096, Pattern(7)).unwrap();
        buffer.expect_pattern(0, Pattern(7), 0, 4096).unwrap();
        buffer.expect_pattern(13, Pattern(7), 13, 1000).unwrap();
        assert!(buffer.expect_pattern(0, Pattern(8), 0, 1).is_err());
        assert!(buffer.expect_pattern(8, Pattern(7), 0, 8).is_err());
        assert!(buffer.expect_pattern(4095, Pattern(7), 4095, 2).is_err());
    }

    #[test]
    fn an_untouched_buffer_reads_as_zeros() {
        let buffer = Buffer::untouched(1 << 20).unwrap();
        buffer.expect_zeros(0, 1 << 20).unwrap();
        assert!(buffer.expect_zeros(1 << 20, 1).is_err());
    }
}
