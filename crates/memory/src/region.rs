use crate::{MapError, MemoryError, copy};
use palisade_units::{Gpa, PAGE_BYTES};
use rustix::fs::{self, FileType, OFlags};
use rustix::mm::{self, Advice, MapFlags, ProtFlags};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, compiler_fence, fence,
};

/// What the server may do with a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protection {
    /// Reads alone.
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
}

/// The file that a region's bytes live in. The descriptor is not needed once the region is mapped.
#[derive(Clone, Debug)]
pub struct Backing {
    /// A regular file of a local file system, open for what the region allows.
    pub fd: Arc<OwnedFd>,
    /// Where in the file the region starts: a multiple of 4 KiB.
    pub offset_bytes: u64,
}

impl Backing {
    /// The part of a file from an offset on.
    #[must_use]
    pub fn new(fd: impl Into<Arc<OwnedFd>>, offset_bytes: u64) -> Self {
        Self {
            fd: fd.into(),
            offset_bytes,
        }
    }
}

/// A place in a mapping, to be used only with proof that the mapping lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostPointer(NonNull<u8>);

// SAFETY: 1. It is a number until someone dereferences it, which only `Span` does, under the proof
// that a span carries. 2. The memory behind it belongs to no thread: all of its accesses are atomic
// or allow for others at the same time.
unsafe impl Send for HostPointer {}
// SAFETY: as for `Send`: a shared `HostPointer` gives no more than a copy of it.
unsafe impl Sync for HostPointer {}

/// One mapped region; unmapped from the process when the last holder drops it.
#[derive(Debug)]
pub(crate) struct Region {
    at: Gpa,
    len_bytes: u64,
    base: HostPointer,
    /// What was mapped for it: longer than the region where the file has huge pages.
    mapped_bytes: usize,
    protection: Protection,
    vanished: AtomicBool,
}

fn aligned(value: u64) -> Result<u64, MapError> {
    if value.is_multiple_of(PAGE_BYTES) {
        Ok(value)
    } else {
        Err(MapError::Misaligned { value })
    }
}

/// The number of bytes as a length in this process: the same number, see `lib.rs`.
const fn host_len(len_bytes: u64) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "usize has 64 bits here")]
    {
        len_bytes as usize
    }
}

/// A length in this process as a number of bytes.
pub(crate) const fn guest_len(len: usize) -> u64 {
    len as u64
}

/// The end of a range of pages that may be mapped or unmapped.
pub(crate) fn checked_end(at: Gpa, len_bytes: u64) -> Result<Gpa, MapError> {
    if len_bytes == 0 {
        return Err(MapError::Empty);
    }
    aligned(at.get())?;
    aligned(len_bytes)?;
    at.checked_add(len_bytes).ok_or(MapError::Overflow {
        start: at.get(),
        len_bytes,
    })
}

impl Region {
    /// Maps a part of a file as the region at `at`.
    pub(crate) fn map(
        at: Gpa,
        len_bytes: u64,
        backing: &Backing,
        protection: Protection,
    ) -> Result<Self, MapError> {
        checked_end(at, len_bytes)?;
        let huge_page_bytes = check_file(len_bytes, backing, protection)?;
        let mapped_bytes = len_bytes
            .checked_next_multiple_of(huge_page_bytes.get())
            .map(host_len)
            .ok_or(MapError::Overflow {
                start: at.get(),
                len_bytes,
            })?;
        let access = match protection {
            Protection::ReadOnly => ProtFlags::READ,
            Protection::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: 1. The address is the kernel's choice, so no mapping of the process is replaced.
        // 2. No reference is ever made to what is mapped.
        let base = unsafe {
            mm::mmap(
                ptr::null_mut(),
                mapped_bytes,
                access,
                MapFlags::SHARED | MapFlags::NORESERVE,
                backing.fd.as_fd(),
                backing.offset_bytes,
            )?
        };
        // SAFETY: 1. The range is the mapping just made. 2. The advice changes no contents: it keeps
        // the tenant's data out of core dumps.
        let _ = unsafe { mm::madvise(base, mapped_bytes, Advice::LinuxDontDump) };
        let base = NonNull::new(base.cast()).ok_or(MapError::Host(rustix::io::Errno::NOMEM))?;
        Ok(Self {
            at,
            len_bytes,
            base: HostPointer(base),
            mapped_bytes,
            protection,
            vanished: AtomicBool::new(false),
        })
    }

    pub(crate) const fn at(&self) -> Gpa {
        self.at
    }

    pub(crate) const fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    pub(crate) const fn protection(&self) -> Protection {
        self.protection
    }

    pub(crate) fn base_address(&self) -> u64 {
        guest_len(self.base.0.as_ptr().addr())
    }

    /// The range of `len_bytes` from `offset_bytes` on, if the region holds all of it.
    #[inline]
    pub(crate) fn span(&self, offset_bytes: u64, len_bytes: u64) -> Result<Span<'_>, MemoryError> {
        let fits = offset_bytes <= self.len_bytes && len_bytes <= self.len_bytes - offset_bytes;
        if !fits {
            let at = Gpa::new(self.at.get().wrapping_add(offset_bytes.max(self.len_bytes)));
            return Err(MemoryError::Unmapped { at });
        }
        Ok(Span {
            region: self,
            offset: host_len(offset_bytes),
            len: host_len(len_bytes),
        })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: 1. The range is the mapping that `map` made, and only this unmaps it. 2. Accesses
        // borrow the region, so none is under way.
        let _ = unsafe { mm::munmap(self.base.0.as_ptr().cast(), self.mapped_bytes) };
    }
}

/// Refuses files that cannot hold the range; the size of the file's pages if it can.
fn check_file(
    len_bytes: u64,
    backing: &Backing,
    protection: Protection,
) -> Result<NonZeroU64, MapError> {
    let offset_bytes = aligned(backing.offset_bytes)?;
    let end_bytes = offset_bytes
        .checked_add(len_bytes)
        .filter(|end| i64::try_from(*end).is_ok())
        .ok_or(MapError::Overflow {
            start: offset_bytes,
            len_bytes,
        })?;
    let stat = fs::fstat(&backing.fd)?;
    let page_bytes = page_bytes_of(backing)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(MapError::NotMappable);
    }
    let flags = fs::fcntl_getfl(&backing.fd)?;
    let mode = flags & OFlags::RWMODE;
    if flags.contains(OFlags::PATH) || mode == OFlags::WRONLY {
        return Err(MapError::NotReadable);
    }
    if protection == Protection::ReadWrite && mode != OFlags::RDWR {
        return Err(MapError::NotWritable);
    }
    let file_bytes = u64::try_from(stat.st_size).unwrap_or(0);
    if end_bytes > file_bytes {
        return Err(MapError::BeyondEndOfFile {
            end_bytes,
            file_bytes,
        });
    }
    Ok(page_bytes)
}

/// The size of the pages that a file is mapped in; an error for file systems that may never answer.
///
/// A page of FUSE or of a network file system comes when another process or host likes, and until
/// then the thread that touched it hangs, so only file systems of this kernel alone will do.
fn page_bytes_of(backing: &Backing) -> Result<NonZeroU64, MapError> {
    const TMPFS: i64 = 0x0102_1994;
    const RAMFS: i64 = 0x8584_58f6;
    const HUGETLBFS: i64 = 0x9584_58f6;
    const EXT: i64 = 0xef53;
    const XFS: i64 = 0x5846_5342;
    const BTRFS: i64 = 0x9123_683e;
    let stat = fs::fstatfs(&backing.fd)?;
    let page_bytes = match stat.f_type {
        TMPFS | RAMFS | EXT | XFS | BTRFS => PAGE_BYTES,
        HUGETLBFS => u64::try_from(stat.f_bsize).unwrap_or(PAGE_BYTES),
        _ => return Err(MapError::NotMappable),
    };
    NonZeroU64::new(page_bytes).ok_or(MapError::NotMappable)
}

/// A range that lies inside its region, which is borrowed and so alive.
#[derive(Clone, Copy)]
pub(crate) struct Span<'a> {
    region: &'a Region,
    offset: usize,
    len: usize,
}

impl Span<'_> {
    #[inline]
    fn at(self) -> Gpa {
        Gpa::new(self.region.at.get() + guest_len(self.offset))
    }

    #[inline]
    pub(crate) const fn len(self) -> usize {
        self.len
    }

    #[inline]
    fn pointer(self) -> *mut u8 {
        // SAFETY: 1. A span's offset and length lie inside its region (`Region::span`), which is at
        // most as long as its mapping. 2. The mapping lives as long as the region, which is borrowed.
        unsafe { self.region.base.0.as_ptr().add(self.offset) }
    }

    #[inline]
    pub(crate) fn readable(self) -> Result<(), MemoryError> {
        if self.region.vanished.load(Ordering::Relaxed) {
            return Err(MemoryError::Vanished { at: self.at() });
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn writable(self) -> Result<(), MemoryError> {
        if self.region.protection == Protection::ReadOnly {
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

    /// Reads the start of the span, as much as `into` holds.
    #[inline]
    pub(crate) fn read(self, into: &mut [u8]) -> Result<(), MemoryError> {
        self.readable()?;
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
        self.settled()
    }

    /// Copies the start of the span to another, as much as both hold, as if by way of a buffer.
    #[inline]
    pub(crate) fn copy_to(self, to: Span<'_>) -> Result<(), MemoryError> {
        self.readable()?;
        to.writable()?;
        let len = self.len.min(to.len);
        // SAFETY: 1. Both spans are mapped over `len` bytes, `to` for writing. 2. They may overlap,
        // and `ptr::copy` allows it. 3. No reference to either exists; concurrent accesses by others
        // may see it in part, which callers allow.
        unsafe { ptr::copy(self.pointer().cast_const(), to.pointer(), len) };
        self.settled()?;
        to.settled()
    }

    /// Sets every byte of the span.
    #[inline]
    pub(crate) fn fill(self, byte: u8) -> Result<(), MemoryError> {
        self.writable()?;
        // SAFETY: 1. The span is mapped over its length, and for writing. 2. No reference to it
        // exists.
        unsafe { ptr::write_bytes(self.pointer(), byte, self.len) };
        self.settled()
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
                offset: self.offset + done,
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

    /// Runs `access` on the word at the start of the span, which may be read.
    #[inline]
    pub(crate) fn load<R>(self, access: impl FnOnce(&AtomicU64) -> R) -> Result<R, MemoryError> {
        let word = self.atomic_pointer::<u64>()?;
        self.readable()?;
        // SAFETY: 1. The word is aligned and inside the span (`atomic_pointer`). 2. The region is
        // borrowed past the call. 3. Everyone else's accesses to it are atomic ones of this room or
        // another process's.
        let result = access(unsafe { AtomicU64::from_ptr(word) });
        self.settled().map(|()| result)
    }

    /// Runs `access` on the word at the start of the span, which may be written.
    #[inline]
    pub(crate) fn update<R>(self, access: impl FnOnce(&AtomicU64) -> R) -> Result<R, MemoryError> {
        self.writable()?;
        self.load(access)
    }

    /// As [`Span::load`], for 32 bits.
    #[inline]
    pub(crate) fn load_half<R>(
        self,
        access: impl FnOnce(&AtomicU32) -> R,
    ) -> Result<R, MemoryError> {
        let word = self.atomic_pointer::<u32>()?;
        self.readable()?;
        // SAFETY: 1. The word is aligned and inside the span (`atomic_pointer`). 2. The region is
        // borrowed past the call. 3. Everyone else's accesses to it are atomic ones of this room or
        // another process's.
        let result = access(unsafe { AtomicU32::from_ptr(word) });
        self.settled().map(|()| result)
    }

    /// As [`Span::update`], for 32 bits.
    #[inline]
    pub(crate) fn update_half<R>(
        self,
        access: impl FnOnce(&AtomicU32) -> R,
    ) -> Result<R, MemoryError> {
        self.writable()?;
        self.load_half(access)
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
        self.settled().map(|()| result)
    }
}
