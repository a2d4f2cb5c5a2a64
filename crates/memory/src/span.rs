use crate::region::{Region, guest_len, host_len};
use crate::{MemoryError, Protection, copy};
use palisade_units::Gpa;
use std::ptr;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, compiler_fence, fence};

/// A range that lies inside its region, which is borrowed and so alive.
#[derive(Clone, Copy)]
pub(crate) struct Span<'a> {
    region: &'a Region,
    /// Of the region's mapping, over `len` bytes.
    pointer: *mut u8,
    len: usize,
}

impl<'a> Span<'a> {
    /// The range of `len_bytes` from `offset_bytes` on, if the region holds all of it.
    #[inline]
    pub(crate) fn new(
        region: &'a Region,
        offset_bytes: u64,
        len_bytes: u64,
    ) -> Result<Self, MemoryError> {
        if !region.holds(offset_bytes, len_bytes) {
            return Err(past_the_end(region, offset_bytes));
        }
        // SAFETY: 1. The offset lies inside the region (`holds`), which is at most as long as its
        // mapping. 2. The mapping lives as long as the region, which is borrowed.
        let pointer = unsafe { region.base().add(host_len(offset_bytes)) };
        let len = host_len(len_bytes);
        Ok(Self {
            region,
            pointer,
            len,
        })
    }

    /// The range of `len_bytes` from an address of this process on, if the region holds all of it.
    ///
    /// That is asked by the side: an access need not wait for the region to be looked at to know its address.
    #[inline]
    pub(crate) fn at_address(
        region: &'a Region,
        address: usize,
        len_bytes: u64,
    ) -> Result<Self, MemoryError> {
        let base = region.base();
        let offset_bytes = guest_len(address.wrapping_sub(base.addr()));
        if !region.holds(offset_bytes, len_bytes) {
            return Err(past_the_end(region, offset_bytes));
        }
        Ok(Self {
            region,
            pointer: base.with_addr(address),
            len: host_len(len_bytes),
        })
    }

    #[inline]
    fn at(self) -> Gpa {
        let offset = self.pointer.addr() - self.region.base().addr();
        Gpa::new(self.region.at().get() + guest_len(offset))
    }

    #[inline]
    pub(crate) const fn len(self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn protection(self) -> Protection {
        self.region.protection()
    }

    /// Valid for the span's length while the region is borrowed: a span lies inside its region, and that in
    /// its mapping.
    #[inline]
    pub(crate) const fn pointer(self) -> *mut u8 {
        self.pointer
    }

    #[inline]
    pub(crate) fn readable(self) -> Result<(), MemoryError> {
        if self.region.vanished() {
            return Err(MemoryError::Vanished { at: self.at() });
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn writable(self) -> Result<(), MemoryError> {
        if self.region.protection() == Protection::ReadOnly {
            return Err(MemoryError::ReadOnly { at: self.at() });
        }
        self.readable()
    }

    /// Whether the memory was there all the while: to be asked after an access.
    #[inline]
    pub(crate) fn settled(self) -> Result<(), MemoryError> {
        // The mark may be set by a signal in the middle of the access on this thread, or by another
        // thread before it replaced the pages that were read here: neither load may move up.
        compiler_fence(Ordering::SeqCst);
        fence(Ordering::Acquire);
        self.readable()
    }

    /// What is to be done after each write: notes it where writes are logged, and says whether the memory was
    /// there all the while. Noted is what was written, not what is to be: a report in between has neither the
    /// note nor the write.
    #[inline]
    fn written(self) -> Result<(), MemoryError> {
        // As in `settled`, and what was written is not to move behind the question whether it is logged.
        compiler_fence(Ordering::SeqCst);
        fence(Ordering::Acquire);
        if self.region.unmarked() {
            return Ok(());
        }
        self.written_to_marked()
    }

    #[cold]
    #[inline(never)]
    fn written_to_marked(self) -> Result<(), MemoryError> {
        self.region.note_write(self.at(), guest_len(self.len));
        self.readable()
    }

    /// Reads the start of the span, as much as `into` holds.
    #[inline]
    pub(crate) fn read(self, into: &mut [u8]) -> Result<(), MemoryError> {
        let len = into.len().min(self.len);
        // SAFETY: 1. The span is mapped over `len` bytes, for reading. 2. `into` is ours alone over
        // `len` bytes. 3. A mapping of a file and a Rust slice never overlap: no reference is ever
        // made to a region's memory.
        unsafe { copy::from_shared(self.pointer(), into.as_mut_ptr(), len) };
        self.settled()
    }

    /// Writes the start of the span, as much as `from` holds.
    #[inline]
    pub(crate) fn write(self, from: &[u8]) -> Result<(), MemoryError> {
        self.writable()?;
        let len = from.len().min(self.len);
        // SAFETY: 1. The span is mapped over `len` bytes, and for writing (`writable`). 2. `from` is
        // borrowed over `len` bytes. 3. They never overlap, as in `read`.
        unsafe { copy::to_shared(from.as_ptr(), self.pointer(), len) };
        self.written()
    }

    /// Copies the start of the span to another, as much as both hold, as if by way of a buffer.
    #[inline]
    pub(crate) fn copy_to(self, to: Span<'_>) -> Result<(), MemoryError> {
        self.readable()?;
        to.writable()?;
        let len = self.len.min(to.len);
        // SAFETY: 1. Both spans are mapped over `len` bytes, `to` for writing. 2. No reference to either
        // exists.
        unsafe { copy::between_shared(self.pointer().cast_const(), to.pointer(), len) };
        let read = self.settled();
        // What was written was, whatever was read.
        let written = to.written();
        read.and(written)
    }

    /// Sets every byte of the span.
    #[inline]
    pub(crate) fn fill(self, byte: u8) -> Result<(), MemoryError> {
        self.writable()?;
        // SAFETY: 1. The span is mapped over its length, and for writing. 2. No reference to it
        // exists.
        unsafe { ptr::write_bytes(self.pointer(), byte, self.len) };
        self.written()
    }

    /// Repeats eight bytes over the span; the last copy is cut where it ends.
    pub(crate) fn fill_pattern(self, pattern: [u8; 8]) -> Result<(), MemoryError> {
        const PIECE: usize = 512;
        self.writable()?;
        let mut piece = [0; PIECE];
        for copy in piece.chunks_exact_mut(8) {
            copy.copy_from_slice(&pattern);
        }
        let mut done = 0;
        while done < self.len {
            let rest = Self {
                // Inside the span, or at its end.
                pointer: self.pointer.wrapping_add(done),
                len: (self.len - done).min(PIECE),
                ..self
            };
            rest.write(&piece)?;
            done += rest.len;
        }
        Ok(())
    }

    #[inline]
    fn atomic_pointer<T>(self) -> Result<*mut T, MemoryError> {
        let pointer = self.pointer();
        if self.len < size_of::<T>() {
            return Err(MemoryError::Unmapped { at: self.at() });
        }
        if !pointer.addr().is_multiple_of(align_of::<T>()) {
            return Err(MemoryError::Misaligned { at: self.at() });
        }
        Ok(pointer.cast())
    }

    /// The word at the start of the span.
    #[inline]
    fn word(self) -> Result<&'a AtomicU64, MemoryError> {
        let word = self.atomic_pointer::<u64>()?;
        // SAFETY: 1. The word is aligned and inside the span (`atomic_pointer`). 2. The region is
        // borrowed for as long as the word. 3. Everyone else's accesses to it are atomic ones of this
        // room or another process's.
        Ok(unsafe { AtomicU64::from_ptr(word) })
    }

    /// As [`Span::word`], for 32 bits.
    #[inline]
    fn half(self) -> Result<&'a AtomicU32, MemoryError> {
        let half = self.atomic_pointer::<u32>()?;
        // SAFETY: as in `word`.
        Ok(unsafe { AtomicU32::from_ptr(half) })
    }

    /// Runs `access` on the word at the start of the span, which may be read.
    #[inline]
    pub(crate) fn load<R>(self, access: impl FnOnce(&AtomicU64) -> R) -> Result<R, MemoryError> {
        let result = access(self.word()?);
        self.settled().map(|()| result)
    }

    /// Runs `access` on the word at the start of the span, which may be written.
    #[inline]
    pub(crate) fn update<R>(self, access: impl FnOnce(&AtomicU64) -> R) -> Result<R, MemoryError> {
        self.writable()?;
        let result = access(self.word()?);
        self.written().map(|()| result)
    }

    /// As [`Span::load`], for 32 bits.
    #[inline]
    pub(crate) fn load_half<R>(
        self,
        access: impl FnOnce(&AtomicU32) -> R,
    ) -> Result<R, MemoryError> {
        let result = access(self.half()?);
        self.settled().map(|()| result)
    }

    /// As [`Span::update`], for 32 bits.
    #[inline]
    pub(crate) fn update_half<R>(
        self,
        access: impl FnOnce(&AtomicU32) -> R,
    ) -> Result<R, MemoryError> {
        self.writable()?;
        let result = access(self.half()?);
        self.written().map(|()| result)
    }

    /// As [`Span::update`], for a byte.
    #[inline]
    pub(crate) fn update_byte<R>(
        self,
        access: impl FnOnce(&AtomicU8) -> R,
    ) -> Result<R, MemoryError> {
        let byte = self.atomic_pointer::<u8>()?;
        self.writable()?;
        // SAFETY: 1. The byte is inside the span (`atomic_pointer`). 2. The region is borrowed past
        // the call. 3. Everyone else's accesses to it are atomic ones of this room or another
        // process's.
        let result = access(unsafe { AtomicU8::from_ptr(byte) });
        self.written().map(|()| result)
    }
}

#[cold]
fn past_the_end(region: &Region, offset_bytes: u64) -> MemoryError {
    let beyond = offset_bytes.max(region.len_bytes());
    let at = Gpa::new(region.at().get().wrapping_add(beyond));
    MemoryError::Unmapped { at }
}
