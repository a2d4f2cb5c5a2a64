use crate::region::{Region, guest_len};
use crate::span::Span;
use crate::{MemoryError, Protection};
use palisade_units::Gpa;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

/// A piece of one region, for keeps: the mapping lives as long as the slice does.
///
/// After the region is unmapped from its space a slice goes on to reach the old memory, so whoever
/// keeps slices must drop or revalidate them when the space changes (R44). Offsets count from the
/// start of the slice; an access past its end is [`MemoryError::Unmapped`].
#[derive(Clone)]
pub struct HostSlice {
    region: Arc<Region>,
    offset_bytes: u64,
    len_bytes: u64,
}

impl HostSlice {
    /// The piece of a region, if the region holds all of it.
    pub(crate) fn new(
        region: &Arc<Region>,
        offset_bytes: u64,
        len_bytes: u64,
    ) -> Result<Self, MemoryError> {
        region.span(offset_bytes, len_bytes)?;
        Ok(Self {
            region: Arc::clone(region),
            offset_bytes,
            len_bytes,
        })
    }

    #[inline]
    fn span(&self, offset_bytes: u64, len_bytes: u64) -> Result<Span<'_>, MemoryError> {
        if offset_bytes > self.len_bytes || len_bytes > self.len_bytes - offset_bytes {
            return Err(self.past_the_end(offset_bytes));
        }
        // Neither sum can overflow: the slice lies in its region and the range in the slice.
        self.region
            .span(self.offset_bytes + offset_bytes, len_bytes)
    }

    #[cold]
    fn past_the_end(&self, offset_bytes: u64) -> MemoryError {
        let beyond = offset_bytes.max(self.len_bytes);
        MemoryError::Unmapped {
            at: Gpa::new(self.at().get().wrapping_add(beyond)),
        }
    }

    /// Where the slice stood in its space.
    #[must_use]
    pub fn at(&self) -> Gpa {
        Gpa::new(self.region.at().get() + self.offset_bytes)
    }

    /// The length in bytes.
    #[inline]
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Whether writes are allowed.
    #[inline]
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.region.protection() == Protection::ReadWrite
    }

    /// A piece of this slice.
    ///
    /// # Errors
    /// [`MemoryError::Unmapped`] past its end.
    pub fn slice(&self, offset_bytes: u64, len_bytes: u64) -> Result<Self, MemoryError> {
        self.span(offset_bytes, len_bytes)?;
        Self::new(&self.region, self.offset_bytes + offset_bytes, len_bytes)
    }

    /// Fills `into` from `offset_bytes` on.
    ///
    /// Up to 64 bytes, aligned to 8 and a multiple of it (or 1, 2 or 4 aligned bytes), are read in
    /// whole words and in order; longer reads may see a concurrent write in part.
    ///
    /// # Errors
    /// [`MemoryError::Unmapped`] past the end, [`MemoryError::Vanished`].
    #[inline]
    pub fn read(&self, offset_bytes: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        self.span(offset_bytes, guest_len(into.len()))?.read(into)
    }

    /// Writes all of `from` at `offset_bytes`; whole words as for [`HostSlice::read`].
    ///
    /// # Errors
    /// [`MemoryError::Unmapped`] past the end, [`MemoryError::ReadOnly`], [`MemoryError::Vanished`].
    #[inline]
    pub fn write(&self, offset_bytes: u64, from: &[u8]) -> Result<(), MemoryError> {
        self.span(offset_bytes, guest_len(from.len()))?.write(from)
    }

    /// Copies `len_bytes` from `offset_bytes` on to `to_offset_bytes` of another slice, from host
    /// memory to host memory. Overlapping ranges of one region come out as if by way of a buffer;
    /// one file mapped by two regions is two memories to this.
    ///
    /// # Errors
    /// [`MemoryError::Unmapped`] past either end, [`MemoryError::ReadOnly`] of `to`,
    /// [`MemoryError::Vanished`] of either.
    #[inline]
    pub fn copy_to(
        &self,
        offset_bytes: u64,
        to: &Self,
        to_offset_bytes: u64,
        len_bytes: u64,
    ) -> Result<(), MemoryError> {
        let from = self.span(offset_bytes, len_bytes)?;
        from.copy_to(to.span(to_offset_bytes, len_bytes)?)
    }

    /// Sets `len_bytes` from `offset_bytes` on to `byte`.
    ///
    /// # Errors
    /// As [`HostSlice::write`].
    #[inline]
    pub fn fill(&self, offset_bytes: u64, len_bytes: u64, byte: u8) -> Result<(), MemoryError> {
        self.span(offset_bytes, len_bytes)?.fill(byte)
    }

    /// Repeats the eight bytes of `pattern`, lowest first, over `len_bytes` from `offset_bytes` on;
    /// the last copy is cut where the range ends.
    ///
    /// # Errors
    /// As [`HostSlice::write`].
    pub fn fill_pattern(
        &self,
        offset_bytes: u64,
        len_bytes: u64,
        pattern: u64,
    ) -> Result<(), MemoryError> {
        let bytes = pattern.to_le_bytes();
        if bytes == [bytes[0]; 8] {
            return self.fill(offset_bytes, len_bytes, bytes[0]);
        }
        self.span(offset_bytes, len_bytes)?.fill_pattern(bytes)
    }

    /// The 64-bit number at an offset that is a multiple of 8; what its writer released is seen.
    ///
    /// # Errors
    /// [`MemoryError::Unmapped`], [`MemoryError::Misaligned`], [`MemoryError::Vanished`].
    #[inline]
    pub fn load_u64(&self, offset_bytes: u64) -> Result<u64, MemoryError> {
        self.span(offset_bytes, 8)?.load(|word| word.load(Acquire))
    }

    /// The 32-bit number at an offset that is a multiple of 4; what its writer released is seen.
    ///
    /// # Errors
    /// As [`HostSlice::load_u64`].
    #[inline]
    pub fn load_u32(&self, offset_bytes: u64) -> Result<u32, MemoryError> {
        let half = self.span(offset_bytes, 4)?;
        half.load_half(|half| half.load(Acquire))
    }

    /// Stores 64 bits at an offset that is a multiple of 8, after all writes before it.
    ///
    /// # Errors
    /// As [`HostSlice::load_u64`], and [`MemoryError::ReadOnly`].
    #[inline]
    pub fn store_u64(&self, offset_bytes: u64, value: u64) -> Result<(), MemoryError> {
        let word = self.span(offset_bytes, 8)?;
        word.update(|word| word.store(value, Release))
    }

    /// Stores 32 bits at an offset that is a multiple of 4, after all writes before it.
    ///
    /// # Errors
    /// As [`HostSlice::store_u64`].
    #[inline]
    pub fn store_u32(&self, offset_bytes: u64, value: u32) -> Result<(), MemoryError> {
        let half = self.span(offset_bytes, 4)?;
        half.update_half(|half| half.store(value, Release))
    }

    /// Stores a byte after all writes before it, as a completion record's status is.
    ///
    /// # Errors
    /// As [`HostSlice::store_u64`].
    #[inline]
    pub fn store_u8(&self, offset_bytes: u64, value: u8) -> Result<(), MemoryError> {
        let byte = self.span(offset_bytes, 1)?;
        byte.update_byte(|byte| byte.store(value, Release))
    }

    /// Puts `new` where `old` is: `Ok(old)` if it was there, else `Err` with what is.
    ///
    /// # Errors
    /// As [`HostSlice::store_u64`].
    #[inline]
    pub fn compare_exchange_u64(
        &self,
        offset_bytes: u64,
        old: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, MemoryError> {
        let word = self.span(offset_bytes, 8)?;
        word.update(|word| word.compare_exchange(old, new, AcqRel, Acquire))
    }

    /// Sets bits and gives what was there before.
    ///
    /// # Errors
    /// As [`HostSlice::store_u64`].
    #[inline]
    pub fn fetch_or_u64(&self, offset_bytes: u64, bits: u64) -> Result<u64, MemoryError> {
        let word = self.span(offset_bytes, 8)?;
        word.update(|word| word.fetch_or(bits, AcqRel))
    }

    /// Adds, wrapping round, and gives what was there before.
    ///
    /// # Errors
    /// As [`HostSlice::store_u64`].
    #[inline]
    pub fn fetch_add_u64(&self, offset_bytes: u64, addend: u64) -> Result<u64, MemoryError> {
        let word = self.span(offset_bytes, 8)?;
        word.update(|word| word.fetch_add(addend, AcqRel))
    }

    pub(crate) fn base_address(&self) -> u64 {
        guest_len(self.region.base().addr()) + self.offset_bytes
    }
}

impl fmt::Debug for HostSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostSlice")
            .field("at", &self.at())
            .field("len_bytes", &self.len_bytes)
            .field("protection", &self.region.protection())
            .finish()
    }
}
