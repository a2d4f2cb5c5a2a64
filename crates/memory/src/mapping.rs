use crate::region::{Backing, Protection, aligned, host_len};
use crate::{Errno, MapError};
use palisade_units::PAGE_BYTES;
use rustix::fs::{self, FileType, OFlags};
use rustix::mm::{self, Advice, MapFlags, ProtFlags};
use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};

/// A shared mapping of a file, taken away when it is dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    /// Longer than what was asked for where the file has huge pages.
    len: usize,
}

// SAFETY: 1. The mapping belongs to no thread: any may unmap it. 2. The memory behind it belongs to no
// thread either: all accesses are atomic or allow for others at the same time.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`; a shared `Mapping` gives no more than its address.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len_bytes`, not zero, of a file that is fit for it.
    pub(crate) fn new(
        len_bytes: u64,
        backing: &Backing,
        protection: Protection,
    ) -> Result<Self, MapError> {
        let huge_page_bytes = check_file(len_bytes, backing, protection)?;
        let len = len_bytes
            .checked_next_multiple_of(huge_page_bytes.get())
            .map(host_len)
            .ok_or(MapError::Host(Errno::NOMEM))?;
        let access = match protection {
            Protection::ReadOnly => ProtFlags::READ,
            Protection::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        let (fd, offset) = (backing.fd.as_fd(), backing.offset_bytes);
        // SAFETY: 1. The address is the kernel's choice, so no mapping of the process is replaced.
        // 2. No reference is ever made to what is mapped.
        let base = unsafe { mm::mmap(ptr::null_mut(), len, access, flags, fd, offset)? };
        let mapping = Self {
            base: NonNull::new(base.cast()).ok_or(MapError::Host(Errno::NOMEM))?,
            len,
        };
        // A tenant's data does not belong into a core dump of the host's; where that cannot be had,
        // the mapping is as good. SAFETY: 1. The range is the mapping just made. 2. The advice
        // changes nothing that can be read.
        let _ = unsafe { mm::madvise(base, len, Advice::LinuxDontDump) };
        Ok(mapping)
    }

    /// The start, valid over the length that was asked for while this lives.
    #[inline]
    pub(crate) const fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// The length of the whole mapping.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: 1. The range is the mapping that `new` made, and only this unmaps it. 2. Accesses
        // borrow the mapping, so none is under way.
        let _ = unsafe { mm::munmap(self.base.as_ptr().cast(), self.len) };
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
