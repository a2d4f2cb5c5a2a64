use crate::dirty::{DirtyLog, RegionLog};
use crate::mapping::Mapping;
use crate::span::Span;
use crate::vanish::Watch;
use crate::{MapError, MemoryError};
use palisade_units::{Gpa, PAGE_BYTES};
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

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

/// One mapped region; unmapped from the process when the last holder drops it.
pub(crate) struct Region {
    at: Gpa,
    len_bytes: u64,
    protection: Protection,
    log: RegionLog,
    /// Dropped before `mapping`, in the order of the fields, as the watch needs.
    watch: Watch,
    mapping: Mapping,
}

pub(crate) fn aligned(value: u64) -> Result<u64, MapError> {
    if value.is_multiple_of(PAGE_BYTES) {
        Ok(value)
    } else {
        Err(MapError::Misaligned { value })
    }
}

/// The number of bytes as a length in this process: the same number, see `lib.rs`.
pub(crate) const fn host_len(len_bytes: u64) -> usize {
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
    /// Maps a part of a file as the region at `at`, whose writes may be logged.
    pub(crate) fn map(
        at: Gpa,
        len_bytes: u64,
        backing: &Backing,
        protection: Protection,
        log: Arc<DirtyLog>,
    ) -> Result<Self, MapError> {
        checked_end(at, len_bytes)?;
        let mapping = Mapping::new(len_bytes, backing, protection)?;
        let watch = Watch::begin(mapping.base().addr(), mapping.len(), protection)?;
        Ok(Self {
            at,
            len_bytes,
            protection,
            log: RegionLog::new(log, at, len_bytes),
            watch,
            mapping,
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

    /// Whether a range lies inside it.
    #[inline]
    pub(crate) const fn holds(&self, offset_bytes: u64, len_bytes: u64) -> bool {
        offset_bytes <= self.len_bytes && len_bytes <= self.len_bytes - offset_bytes
    }

    /// The start of its memory, valid over `len_bytes` while the region lives.
    #[inline]
    pub(crate) const fn base(&self) -> *mut u8 {
        self.mapping.base()
    }

    /// Whether its memory has gone.
    #[inline]
    pub(crate) fn vanished(&self) -> bool {
        self.watch.vanished()
    }

    /// Whether there is nothing to be done about it after a write.
    #[inline]
    pub(crate) fn unmarked(&self) -> bool {
        self.watch.unmarked()
    }

    /// Logs its writes from now on.
    pub(crate) fn begin_log(&self) {
        self.watch.begin_log();
    }

    /// Logs no writes from now on.
    pub(crate) fn end_log(&self) {
        self.watch.end_log();
    }

    /// Notes a write to a range that lies inside it, where writes are logged.
    pub(crate) fn note_write(&self, at: Gpa, len_bytes: u64) {
        if self.watch.logged() {
            self.log.note(at, len_bytes);
        }
    }

    /// The range of `len_bytes` from `offset_bytes` on, if the region holds all of it.
    #[inline]
    pub(crate) fn span(&self, offset_bytes: u64, len_bytes: u64) -> Result<Span<'_>, MemoryError> {
        Span::new(self, offset_bytes, len_bytes)
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("at", &self.at)
            .field("len_bytes", &self.len_bytes)
            .field("protection", &self.protection)
            .field("vanished", &self.vanished())
            .finish()
    }
}
