//! A tenant's memory as the server sees it: regions made of file descriptors, copies in and out,
//! atomics on tables that a guest writes at the same time.
//!
//! [`GuestMemory`] is one space of guest-physical addresses. Reads of its region list take no lock
//! and write no shared cache line; a change publishes a new list and returns only when no one-off
//! access uses the old one any more. A [`HostSlice`] is a piece of one region for keeps, as a holder of few wants
//! it: it keeps its mapping alive past the removal of the region. [`Kept`] is the same for a cache of many
//! places, whose entries are then plain numbers.
//!
//! Every write can be logged by page, as who moves a guest to another host wants it
//! ([`GuestMemory::start_dirty_log`]). It costs nothing while it is off.
//!
//! The tenant may write, truncate or punch its memory at any moment. Concurrent writes are allowed
//! and never seen through a Rust reference; a page that is no longer there is an error
//! ([`MemoryError::Vanished`]), not a signal that kills the process. Threads that touch guest memory
//! must leave `SIGBUS` unblocked, or the kernel kills the process all the same.
//!
//! This is the one room with unsafe code. It knows no IOMMU, no protocol and no permissions but a
//! region's own; it does not count what a tenant may map beyond [`Limits`] of a space and a [`Budget`] of several, and it does not order two
//! accesses except as the atomic ones say. Numbers are little-endian, as guests of this platform are.

pub mod barrier;
mod budget;
mod copy;
mod device_window;
mod dirty;
mod error;
mod guest;
mod kept;
mod mapping;
mod region;
mod shared;
mod slice;
mod snapshot;
mod span;
#[cfg(test)]
mod tests;
mod vanish;

pub use budget::Budget;
pub use device_window::DeviceWindow;
pub use dirty::{DirtyError, DirtyRange};
pub use error::{MapError, MemoryError};
pub use guest::{GuestMemory, Limits};
pub use kept::{Kept, KeptSnapshot, Place, Reach};
pub use region::{Backing, Protection};
pub use rustix::io::Errno;
pub use shared::SharedMemory;
pub use slice::HostSlice;
pub use snapshot::Snapshot;

const _: () = assert!(
    size_of::<usize>() == 8,
    "guest addresses are 64 bits wide and so must the host's be"
);
const _: () = assert!(
    cfg!(target_endian = "little"),
    "guests are little-endian, and nothing here turns numbers round"
);
