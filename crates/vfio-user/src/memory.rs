use palisade_memory::{Backing, GuestMemory, Protection};
use palisade_units::Gpa;
use rustix::io::Errno;

/// What a server does with the memory that its peer announces.
///
/// The connection has checked alignment, overflow, overlap and the number of maps before it calls. It
/// calls from its own thread, one call at a time.
pub trait ClientMemory: Send + Sync {
    /// The peer announces a range. Without a backing nothing can be reached in it (a ROM, another
    /// device's BAR): usually there is nothing to do.
    ///
    /// # Errors
    /// The number that the peer is told; the range is then not announced.
    fn map(
        &self,
        at: Gpa,
        len_bytes: u64,
        protection: Protection,
        backing: Option<Backing>,
    ) -> Result<(), Errno>;

    /// The peer takes back a range, exactly as it was announced, with or without a backing. On return
    /// no access uses it any more.
    ///
    /// # Errors
    /// The number that the peer is told; the range stays announced. `ENOENT` for a range without a
    /// backing is no error: an owner need not keep account of those.
    fn unmap(&self, at: Gpa, len_bytes: u64) -> Result<(), Errno>;

    /// The peer takes back everything. Not called at the end of a connection: the owner tears down in
    /// its own order.
    fn unmap_all(&self);

    /// The space whose writes can be logged for the peer, which then copies the pages to another host: all that
    /// the function writes to the peer's memory is written by way of it. `None`, where nobody says otherwise:
    /// no log is offered.
    fn dirty_log(&self) -> Option<&GuestMemory> {
        None
    }
}

impl ClientMemory for GuestMemory {
    fn map(
        &self,
        at: Gpa,
        len_bytes: u64,
        protection: Protection,
        backing: Option<Backing>,
    ) -> Result<(), Errno> {
        match backing {
            Some(backing) => {
                Self::map(self, at, len_bytes, backing, protection).map_err(|e| e.errno())
            }
            None => Ok(()),
        }
    }

    fn unmap(&self, at: Gpa, len_bytes: u64) -> Result<(), Errno> {
        Self::unmap(self, at, len_bytes).map_err(|e| e.errno())
    }

    fn unmap_all(&self) {
        Self::unmap_all(self);
    }

    fn dirty_log(&self) -> Option<&GuestMemory> {
        Some(self)
    }
}
