//! Which frames of the guest's physical memory are in use.

use crate::error::DriverError;
use palisade_units::{Gpa, PAGE_BYTES, PageSize};

/// How many 4 KiB frames one 64-bit word of the map stands for.
const FRAMES_PER_WORD: usize = 64;
/// How many words of the map a 2 MiB frame covers.
const WORDS_PER_LARGE: usize = 8;

/// A frame of physical memory, aligned to its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frame {
    /// Where it begins.
    pub at: Gpa,
    /// How large it is.
    pub size: PageSize,
}

/// A bitmap of 4 KiB frames, one bit each, set while the frame is in use.
///
/// Small frames are taken from the bottom, large ones from the top, so that the one kind does not
/// break up what the other needs. The frame at address 0 is never given out: a null pointer in a table then
/// cannot mean anything.
#[derive(Debug)]
pub struct PhysicalAllocator {
    words: Vec<u64>,
    free_frames: u64,
    /// No word before this one has a free frame.
    first_candidate: usize,
}

impl PhysicalAllocator {
    /// An allocator of `len_bytes` of memory from address 0. What does not fill a 2 MiB frame at the end is
    /// left unused.
    #[must_use]
    pub fn new(len_bytes: u64) -> Self {
        let large = usize::try_from(len_bytes / PageSize::Size2M.bytes()).unwrap_or(0);
        let mut words = vec![0_u64; large * WORDS_PER_LARGE];
        let mut free_frames = len_bytes / PageSize::Size2M.bytes() * frames_in(PageSize::Size2M);
        if let Some(first) = words.first_mut() {
            *first |= 1;
            free_frames -= 1;
        }
        Self {
            words,
            free_frames,
            first_candidate: 0,
        }
    }

    /// How many bytes are free, in frames of any size.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.free_frames * PAGE_BYTES
    }

    /// Takes a frame. Its content is whatever its last user left.
    ///
    /// # Errors
    /// [`DriverError::OutOfMemory`] when no frame of that size is free; there are no frames of 1 GiB.
    pub fn take(&mut self, size: PageSize) -> Result<Frame, DriverError> {
        let at = match size {
            PageSize::Size4K => self.take_small(),
            PageSize::Size2M => self.take_large(),
            PageSize::Size1G => None,
        };
        let at = at.ok_or(DriverError::OutOfMemory { wanted: size })?;
        self.free_frames -= frames_in(size);
        Ok(Frame { at, size })
    }

    /// Takes `count` 4 KiB frames that follow each other, for tables longer than a page. `count` is at
    /// most 512.
    ///
    /// # Errors
    /// [`DriverError::OutOfMemory`] when there is no such run.
    pub fn take_run(&mut self, count: u64) -> Result<Gpa, DriverError> {
        let wanted = count.clamp(1, frames_in(PageSize::Size2M));
        let mut run = 0;
        for index in 0..self.words.len() * FRAMES_PER_WORD {
            run = if self.is_free(index) { run + 1 } else { 0 };
            if run == wanted {
                let start = (index as u64) + 1 - wanted;
                for frame in start..start + wanted {
                    self.set(index_of(frame), Use::Taken);
                }
                self.free_frames -= wanted;
                return Ok(Gpa::new(start * PAGE_BYTES));
            }
        }
        Err(DriverError::OutOfMemory {
            wanted: PageSize::Size4K,
        })
    }

    /// Gives a frame back. One that is free already, or that was never given out, is left alone.
    pub fn give_back(&mut self, frame: Frame) {
        let first = frame.at.get() / PAGE_BYTES;
        for number in first..first.saturating_add(frames_in(frame.size)) {
            let index = index_of(number);
            if index != 0 && index < self.words.len() * FRAMES_PER_WORD && !self.is_free(index) {
                self.set(index, Use::Free);
                self.free_frames += 1;
                self.first_candidate = self.first_candidate.min(index / FRAMES_PER_WORD);
            }
        }
    }

    fn take_small(&mut self) -> Option<Gpa> {
        let skipped = self.first_candidate;
        let found = self
            .words
            .iter()
            .skip(skipped)
            .position(|word| *word != u64::MAX)?
            + skipped;
        self.first_candidate = found;
        let bit = self.words[found].trailing_ones();
        self.words[found] |= 1 << bit;
        Some(Gpa::new(
            (found as u64 * FRAMES_PER_WORD as u64 + u64::from(bit)) * PAGE_BYTES,
        ))
    }

    fn take_large(&mut self) -> Option<Gpa> {
        let found = self
            .words
            .chunks_exact(WORDS_PER_LARGE)
            .rposition(|chunk| chunk.iter().all(|word| *word == 0))?;
        self.words[found * WORDS_PER_LARGE..][..WORDS_PER_LARGE].fill(u64::MAX);
        Some(Gpa::new(found as u64 * PageSize::Size2M.bytes()))
    }

    fn is_free(&self, index: usize) -> bool {
        self.words[index / FRAMES_PER_WORD] & (1 << (index % FRAMES_PER_WORD)) == 0
    }

    fn set(&mut self, index: usize, state: Use) {
        let bit = 1 << (index % FRAMES_PER_WORD);
        let word = &mut self.words[index / FRAMES_PER_WORD];
        match state {
            Use::Taken => *word |= bit,
            Use::Free => *word &= !bit,
        }
    }
}

enum Use {
    Taken,
    Free,
}

const fn frames_in(size: PageSize) -> u64 {
    size.bytes() / PAGE_BYTES
}

fn index_of(frame: u64) -> usize {
    usize::try_from(frame).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn small_frames_come_from_the_bottom_and_large_ones_from_the_top() {
        let mut memory = PhysicalAllocator::new(8 * MIB);
        assert_eq!(
            memory.take(PageSize::Size4K).unwrap().at,
            Gpa::new(0x1000),
            "0 is never given"
        );
        assert_eq!(memory.take(PageSize::Size2M).unwrap().at, Gpa::new(6 * MIB));
        assert_eq!(memory.take(PageSize::Size4K).unwrap().at, Gpa::new(0x2000));
    }

    #[test]
    fn what_is_full_says_so_and_works_again_after_a_frame_came_back() {
        let mut memory = PhysicalAllocator::new(4 * MIB);
        let large = memory.take(PageSize::Size2M).unwrap();
        assert!(matches!(
            memory.take(PageSize::Size2M),
            Err(DriverError::OutOfMemory {
                wanted: PageSize::Size2M
            })
        ));
        memory.give_back(large);
        assert_eq!(memory.take(PageSize::Size2M).unwrap(), large);
    }

    #[test]
    fn a_run_is_contiguous() {
        let mut memory = PhysicalAllocator::new(2 * MIB);
        let one = memory.take(PageSize::Size4K).unwrap();
        let two = memory.take(PageSize::Size4K).unwrap();
        memory.give_back(one);
        assert_eq!(memory.take_run(2).unwrap(), Gpa::new(two.at.get() + 0x1000));
        assert_eq!(memory.take(PageSize::Size4K).unwrap(), one);
    }

    proptest! {
        #[test]
        fn no_byte_is_given_out_twice(steps in proptest::collection::vec((0_u8..4, any::<u16>()), 0..300)) {
            let mut memory = PhysicalAllocator::new(8 * MIB);
            let whole = memory.free_bytes();
            let mut held: Vec<Frame> = Vec::new();
            for (step, pick) in steps {
                match step {
                    0 | 1 => {
                        let size = if step == 0 { PageSize::Size4K } else { PageSize::Size2M };
                        if let Ok(new) = memory.take(size) {
                            for old in &held {
                                let apart = new.at.get() + new.size.bytes() <= old.at.get()
                                    || old.at.get() + old.size.bytes() <= new.at.get();
                                prop_assert!(apart, "{new:?} overlaps {old:?}");
                            }
                            prop_assert_eq!(new.at.get() % size.bytes(), 0);
                            held.push(new);
                        }
                    }
                    _ => if !held.is_empty() {
                        let frame = held.swap_remove(usize::from(pick) % held.len());
                        memory.give_back(frame);
                        memory.give_back(frame);
                    }
                }
                let used: u64 = held.iter().map(|frame| frame.size.bytes()).sum();
                prop_assert_eq!(memory.free_bytes(), whole - used);
            }
        }
    }
}
