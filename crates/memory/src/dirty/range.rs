use palisade_units::{Gpa, PAGE_BYTES, PAGE_SHIFT};
use rustix::io::Errno;

/// Why a log of writes is not started or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirtyError {
    /// There is no log.
    #[error("writes are not logged: start the log first")]
    NotStarted,
    /// There is one already.
    #[error("writes are logged already: one log at a time")]
    Started,
    /// Bits stand for pages of a size that pages do not have.
    #[error("pages of {0:#x} bytes: give a power of two from 4096 on")]
    PageSize(u64),
    /// A range of no bytes.
    #[error("a range of zero bytes: give at least one page")]
    Empty,
    /// An address or length is not a multiple of 4 KiB.
    #[error("{0:#x} is not a multiple of 4096: align the address and the length")]
    Misaligned(u64),
    /// The range runs past the end of the space.
    #[error("the range runs past the end of the space")]
    Overflow,
    /// The range has more pages than are told at a time.
    #[error(
        "more than {} pages: ask for fewer at a time, or larger ones",
        DirtyRange::MAX_PAGES
    )]
    TooManyPages,
}

impl DirtyError {
    /// The error as a number for a client, as VFIO's own requests use them.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::Overflow => Errno::OVERFLOW,
            Self::TooManyPages => Errno::TOOBIG,
            _ => Errno::INVAL,
        }
    }
}

/// A range of guest-physical addresses, and the size of the pages by which writes to it are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirtyRange {
    start: u64,
    last: u64,
    page_bytes: u64,
}

impl DirtyRange {
    /// How many pages may be told at a time.
    pub const MAX_PAGES: u64 = 1 << 24;

    /// A range of whole pages of 4 KiB. The pages by which writes are told count from its start; the last may
    /// be in it with a part.
    ///
    /// # Errors
    /// [`DirtyError`], where there is no such range.
    pub fn new(at: Gpa, len_bytes: u64, page_bytes: u64) -> Result<Self, DirtyError> {
        if page_bytes < PAGE_BYTES || !page_bytes.is_power_of_two() {
            return Err(DirtyError::PageSize(page_bytes));
        }
        let to_last = len_bytes.checked_sub(1).ok_or(DirtyError::Empty)?;
        for value in [at.get(), len_bytes] {
            if !value.is_multiple_of(PAGE_BYTES) {
                return Err(DirtyError::Misaligned(value));
            }
        }
        let start = at.get();
        let last = start.checked_add(to_last).ok_or(DirtyError::Overflow)?;
        let range = Self {
            start,
            last,
            page_bytes,
        };
        if range.bits() > Self::MAX_PAGES {
            return Err(DirtyError::TooManyPages);
        }
        Ok(range)
    }

    /// How many pages of its size it has.
    const fn bits(self) -> u64 {
        (self.last - self.start) / self.page_bytes + 1
    }

    /// The length of a bitmap with a bit for each page, in whole numbers of 64 bits.
    #[must_use]
    pub const fn bitmap_bytes(self) -> u64 {
        self.bits().div_ceil(64) * 8
    }

    /// A bitmap in which no page is written.
    pub(super) fn empty_bitmap(self) -> Vec<u64> {
        let words = usize::try_from(self.bits().div_ceil(64)).unwrap_or_default();
        vec![0; words]
    }

    /// Its first and last page of 4 KiB.
    pub(super) const fn pages(self) -> (u64, u64) {
        (self.start >> PAGE_SHIFT, self.last >> PAGE_SHIFT)
    }

    /// Sets the bits of pages of 4 KiB that are in it.
    pub(super) fn mark(self, bitmap: &mut [u64], first: u64, last: u64) {
        let bit = |page: u64| ((page << PAGE_SHIFT) - self.start) / self.page_bytes;
        for bit in bit(first)..=bit(last) {
            let word = usize::try_from(bit / 64).unwrap_or(usize::MAX);
            if let Some(word) = bitmap.get_mut(word) {
                *word |= 1 << (bit % 64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(at: u64, len_bytes: u64, page_bytes: u64) -> Result<DirtyRange, DirtyError> {
        DirtyRange::new(Gpa::new(at), len_bytes, page_bytes)
    }

    #[test]
    fn r78_what_is_no_range_is_refused() {
        for size in [0, 1, 2048, 4097, 3 << 12] {
            assert_eq!(range(0, 4096, size), Err(DirtyError::PageSize(size)));
        }
        assert_eq!(range(0, 0, 4096), Err(DirtyError::Empty));
        assert_eq!(range(1, 4096, 4096), Err(DirtyError::Misaligned(1)));
        assert_eq!(range(0, 4097, 4096), Err(DirtyError::Misaligned(4097)));
        let past_the_end = range(u64::MAX - 4095, 8192, 4096);
        assert_eq!(past_the_end, Err(DirtyError::Overflow));
        assert!(range(u64::MAX - 4095, 4096, 1 << 63).is_ok());
        let many = (DirtyRange::MAX_PAGES + 1) << 12;
        assert_eq!(range(0, many, 4096), Err(DirtyError::TooManyPages));
        assert!(range(0, many, 8192).is_ok());
    }

    #[test]
    fn bits_count_from_the_start_of_the_range_and_stand_for_any_page_in_theirs() {
        // 65 pages of 16 KiB, the last of them with 4 KiB alone, from the middle of one on.
        let range = range(0x5000, 64 * 0x4000 + 0x1000, 0x4000).unwrap();
        assert_eq!(range.bitmap_bytes(), 16);
        let mut bitmap = range.empty_bitmap();
        range.mark(&mut bitmap, 5, 5);
        range.mark(&mut bitmap, 8, 9);
        range.mark(&mut bitmap, 5 + 64 * 4, 5 + 64 * 4);
        assert_eq!(bitmap, [0b11, 1]);
    }
}
