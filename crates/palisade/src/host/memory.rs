//! The memory of a client, as its DMA maps arrive.

use std::sync::{Arc, Mutex, PoisonError};

use palisade_mdev::Assigned;
use palisade_memory::{Backing, GuestMemory, MapError, Protection};
use palisade_units::Gpa;
use palisade_vfio_user::ClientMemory;
use rustix::io::Errno;

/// What has to happen between taking memory away and saying so.
enum Readers {
    /// Nobody reads it but the thread that serves the messages, and that is here.
    ServingThread,
    /// A device may be at work in it: its translations go before the answer (R44).
    Device(Arc<Assigned>),
}

/// The maps of one connection.
///
/// A range without a descriptor (a ROM, another device's BAR) cannot be reached from here: it is
/// recorded so that it can be unmapped, and an access to it faults.
pub(crate) struct Maps {
    memory: GuestMemory,
    readers: Readers,
    unbacked: Mutex<Vec<(Gpa, u64)>>,
}

impl Maps {
    pub(crate) fn of_unit(memory: GuestMemory) -> Self {
        Self {
            memory,
            readers: Readers::ServingThread,
            unbacked: Mutex::default(),
        }
    }

    pub(crate) fn of_function(assigned: Arc<Assigned>) -> Self {
        Self {
            memory: assigned.attachment().memory().clone(),
            readers: Readers::Device(assigned),
            unbacked: Mutex::default(),
        }
    }
}

fn errno(error: &MapError) -> Errno {
    error.errno()
}

impl ClientMemory for Maps {
    fn map(
        &self,
        at: Gpa,
        len_bytes: u64,
        protection: Protection,
        backing: Option<Backing>,
    ) -> Result<(), Errno> {
        let Some(backing) = backing else {
            self.unbacked
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((at, len_bytes));
            return Ok(());
        };
        self.memory
            .map(at, len_bytes, backing, protection)
            .map_err(|e| {
                tracing::warn!(%at, len_bytes, "a map is refused: {e}");
                errno(&e)
            })
    }

    fn unmap(&self, at: Gpa, len_bytes: u64) -> Result<(), Errno> {
        let mut unbacked = self.unbacked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = unbacked.iter().position(|range| *range == (at, len_bytes)) {
            unbacked.swap_remove(index);
            return Ok(());
        }
        drop(unbacked);
        match &self.readers {
            Readers::ServingThread => self.memory.unmap(at, len_bytes).map_err(|e| errno(&e)),
            Readers::Device(assigned) => assigned
                .attachment()
                .unmap(at, len_bytes)
                .map_err(|e| errno(&e)),
        }
    }

    fn unmap_all(&self) {
        self.unbacked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        match &self.readers {
            Readers::ServingThread => self.memory.unmap_all(),
            Readers::Device(assigned) => assigned.attachment().unmap_all(),
        }
    }
}
