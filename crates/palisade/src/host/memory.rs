//! The memory of a client, as its DMA maps arrive.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use palisade_memory::{Backing, GuestMemory, Protection};
use palisade_units::Gpa;
use palisade_vfio_user::ClientMemory;
use rustix::io::Errno;

use super::source::Lease;

/// Tells who runs engines that memory was removed, which their caches keep mapped.
pub(crate) type MemoryRemoved = Arc<dyn Fn() + Send + Sync>;

/// What has to happen between taking memory away and saying so.
enum Readers {
    /// Nobody reads it but the thread that serves the messages, and that is here.
    ServingThread,
    /// A device may be at work in it: its translations go before the answer (R44), and what keeps the memory
    /// mapped soon after.
    Device(Arc<dyn Lease>, MemoryRemoved),
}

/// The maps of one connection.
///
/// A range without a descriptor (a ROM, another device's BAR) cannot be reached from here: an access to
/// it faults, and that it was announced is for the connection to know.
pub(crate) struct Maps {
    memory: GuestMemory,
    readers: Readers,
    refused: AtomicU64,
}

impl Maps {
    pub(crate) fn of_unit(memory: GuestMemory) -> Self {
        Self {
            memory,
            readers: Readers::ServingThread,
            refused: AtomicU64::new(0),
        }
    }

    pub(crate) fn of_function(assigned: Arc<dyn Lease>, removed: MemoryRemoved) -> Self {
        Self {
            memory: assigned.attachment().memory().clone(),
            readers: Readers::Device(assigned, removed),
            refused: AtomicU64::new(0),
        }
    }
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
            return Ok(());
        };
        self.memory
            .map(at, len_bytes, backing, protection)
            .map_err(|e| {
                let count = self
                    .refused
                    .fetch_add(1, Ordering::Relaxed)
                    .saturating_add(1);
                // A client can cause this at will: say it at 1, 2, 4, 8 …
                if count.is_power_of_two() {
                    tracing::warn!(%at, len_bytes, count, "a map is refused: {e}");
                }
                e.errno()
            })
    }

    fn unmap(&self, at: Gpa, len_bytes: u64) -> Result<(), Errno> {
        match &self.readers {
            Readers::ServingThread => self.memory.unmap(at, len_bytes),
            Readers::Device(assigned, removed) => assigned
                .attachment()
                .unmap(at, len_bytes)
                .inspect(|()| removed()),
        }
        .map_err(|e| e.errno())
    }

    fn unmap_all(&self) {
        match &self.readers {
            Readers::ServingThread => self.memory.unmap_all(),
            Readers::Device(assigned, removed) => {
                assigned.attachment().unmap_all();
                removed();
            }
        }
    }

    fn dirty_log(&self) -> Option<&GuestMemory> {
        Some(&self.memory)
    }
}
