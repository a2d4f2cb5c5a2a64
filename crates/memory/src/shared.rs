use crate::region::Region;
use crate::{Backing, HostSlice, MemoryError, Protection};
use palisade_units::Gpa;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Memory of one's own that others may map: a memfd, and its mapping here. What a VMM has as its
/// guest's memory, for drivers and tests. The whole of it starts as zeros.
///
/// Offsets count bytes from its start, and the addresses in errors are offsets.
#[derive(Clone, Debug)]
pub struct SharedMemory {
    fd: Arc<OwnedFd>,
    whole: HostSlice,
}

impl SharedMemory {
    /// Makes `len_bytes` of memory, a multiple of 4 KiB, under a name that shows in `/proc`.
    ///
    /// # Errors
    /// The kernel's, and [`io::ErrorKind::InvalidInput`] for a length that is zero or no multiple of
    /// 4 KiB.
    pub fn create(name: &str, len_bytes: u64) -> io::Result<Self> {
        let fd = Arc::new(memfd_create(name, MemfdFlags::CLOEXEC)?);
        ftruncate(&fd, len_bytes)?;
        let backing = Backing::new(Arc::clone(&fd), 0);
        let (at, log) = (Gpa::new(0), Arc::default());
        let region = Region::map(at, len_bytes, &backing, Protection::ReadWrite, log)
            .map_err(|error| io::Error::new(io::Error::from(error.errno()).kind(), error))?;
        let whole = HostSlice::new(&Arc::new(region), 0, len_bytes).map_err(io::Error::other)?;
        Ok(Self { fd, whole })
    }

    /// The file from its start, to be mapped elsewhere.
    #[must_use]
    pub fn backing(&self) -> Backing {
        Backing::new(Arc::clone(&self.fd), 0)
    }

    /// All of it, for the accesses that are not repeated here.
    #[must_use]
    pub fn slice(&self) -> &HostSlice {
        &self.whole
    }

    /// The length in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.whole.len_bytes()
    }

    /// Where it is mapped in this process, as a number: no pointer is to be made of it.
    #[must_use]
    pub fn base_address(&self) -> u64 {
        self.whole.base_address()
    }

    /// See [`HostSlice::read`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn read(&self, offset_bytes: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        self.whole.read(offset_bytes, into)
    }

    /// See [`HostSlice::write`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn write(&self, offset_bytes: u64, from: &[u8]) -> Result<(), MemoryError> {
        self.whole.write(offset_bytes, from)
    }

    /// See [`HostSlice::fill`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn fill(&self, offset_bytes: u64, len_bytes: u64, byte: u8) -> Result<(), MemoryError> {
        self.whole.fill(offset_bytes, len_bytes, byte)
    }

    /// See [`HostSlice::load_u64`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn load_u64(&self, offset_bytes: u64) -> Result<u64, MemoryError> {
        self.whole.load_u64(offset_bytes)
    }

    /// See [`HostSlice::load_u32`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn load_u32(&self, offset_bytes: u64) -> Result<u32, MemoryError> {
        self.whole.load_u32(offset_bytes)
    }

    /// See [`HostSlice::store_u64`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn store_u64(&self, offset_bytes: u64, value: u64) -> Result<(), MemoryError> {
        self.whole.store_u64(offset_bytes, value)
    }

    /// See [`HostSlice::store_u32`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn store_u32(&self, offset_bytes: u64, value: u32) -> Result<(), MemoryError> {
        self.whole.store_u32(offset_bytes, value)
    }

    /// See [`HostSlice::fetch_or_u64`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn fetch_or_u64(&self, offset_bytes: u64, bits: u64) -> Result<u64, MemoryError> {
        self.whole.fetch_or_u64(offset_bytes, bits)
    }

    /// See [`HostSlice::fetch_add_u64`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn fetch_add_u64(&self, offset_bytes: u64, addend: u64) -> Result<u64, MemoryError> {
        self.whole.fetch_add_u64(offset_bytes, addend)
    }

    /// See [`HostSlice::compare_exchange_u64`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn compare_exchange_u64(
        &self,
        offset_bytes: u64,
        old: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, MemoryError> {
        self.whole.compare_exchange_u64(offset_bytes, old, new)
    }
}
