use std::sync::Arc;

use rustix::io::Errno;

use crate::{Bar, Migration};

/// Something to call when a vector fires; over vfio-user, an eventfd.
pub trait Interrupt: Send + Sync {
    /// Raises the interrupt once. Never blocks.
    fn signal(&self);
}

/// Why an access to a BAR was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The access reaches past what the BAR holds.
    #[error(
        "{len_bytes} bytes at {offset_bytes:#x} reach past the end of {bar}: stay inside its size"
    )]
    OutOfBounds {
        /// The BAR.
        bar: Bar,
        /// Where the access starts.
        offset_bytes: u64,
        /// How long it is.
        len_bytes: u64,
    },
    /// The register does not take accesses of this width or alignment.
    #[error(
        "{bar} has no register of {len_bytes} bytes at {offset_bytes:#x}: access it by its own width"
    )]
    Width {
        /// The BAR.
        bar: Bar,
        /// Where the access starts.
        offset_bytes: u64,
        /// How long it is.
        len_bytes: u64,
    },
    /// The function does not answer at the moment.
    #[error("{bar} does not answer now: the function is being reset or is gone")]
    NotReady {
        /// The BAR.
        bar: Bar,
    },
    /// The function has no room for what was written; later it may have.
    #[error("{bar} has no room for the write now: try again")]
    Retry {
        /// The BAR.
        bar: Bar,
    },
}

impl AccessError {
    /// The error number that a protocol reports for it.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::OutOfBounds { .. } | Self::Width { .. } => Errno::INVAL,
            Self::NotReady { .. } => Errno::IO,
            Self::Retry { .. } => Errno::AGAIN,
        }
    }
}

/// A PCI function that can be served to a VMM.
///
/// Calls may come from any thread and may overlap; the server checks offsets and lengths before it
/// calls.
pub trait Function: Send + Sync {
    /// The size of a BAR in bytes; 0 where there is none (the upper half of a 64-bit BAR too).
    fn bar_len_bytes(&self, bar: Bar) -> u64;

    /// Reads configuration space; `offset` plus the length is at most 4096.
    fn config_read(&self, offset: u16, into: &mut [u8]);

    /// Writes configuration space; `offset` plus the length is at most 4096.
    fn config_write(&self, offset: u16, from: &[u8]);

    /// Reads from a BAR; the range is inside [`Self::bar_len_bytes`].
    ///
    /// # Errors
    /// Where the function has no answer; the client gets the error's number.
    fn bar_read(&self, bar: Bar, offset_bytes: u64, into: &mut [u8]) -> Result<(), AccessError>;

    /// Writes to a BAR; the range is inside [`Self::bar_len_bytes`].
    ///
    /// # Errors
    /// Where the function refuses; the client gets the error's number.
    fn bar_write(&self, bar: Bar, offset_bytes: u64, from: &[u8]) -> Result<(), AccessError>;

    /// How many MSI-X vectors there are; 0 without MSI-X.
    fn msix_vectors(&self) -> u16;

    /// Connects a vector below [`Self::msix_vectors`] to an interrupt, or disconnects it.
    fn set_vector(&self, vector: u16, interrupt: Option<Arc<dyn Interrupt>>);

    /// Resets the function. Drains first: on return nothing of it is in flight.
    fn reset(&self);

    /// How the function moves to another host, if it can.
    fn migration(&self) -> Option<&dyn Migration> {
        None
    }
}
