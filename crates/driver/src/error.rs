//! What can go wrong for a driver.

use crate::pattern::Difference;
use palisade_units::{Bdf, Gpa, GuestPasid, Iova, PageSize};
use std::time::Duration;

/// Why the driver could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The guest has no free frame left.
    #[error("the guest's memory has no free frame of {} bytes: give the tenant more memory", wanted.bytes())]
    OutOfMemory {
        /// The size of the frame that was wanted.
        wanted: PageSize,
    },
    /// The memory of the guest could not be made or reached.
    #[error("the guest's memory: {0}")]
    Memory(String),
    /// An address, a length or an alignment does not fit a page table.
    #[error("{at} with {len_bytes:#x} bytes cannot be mapped: {why}")]
    BadRange {
        /// The first virtual address.
        at: Iova,
        /// The length in bytes.
        len_bytes: u64,
        /// What does not fit.
        why: &'static str,
    },
    /// A page is there already.
    #[error("{at} is mapped already: unmap it first")]
    Mapped {
        /// The virtual address of the page.
        at: Iova,
    },
    /// No page is there.
    #[error("{at} is not mapped")]
    NotMapped {
        /// The virtual address of the page.
        at: Iova,
    },
    /// A physical address outside the guest's memory.
    #[error("guest physical {at} is outside the guest's memory")]
    OutsideMemory {
        /// The address.
        at: Gpa,
    },
    /// Something did not happen in time.
    #[error("waited {waited:?} for {what}")]
    TimedOut {
        /// What was outstanding.
        what: String,
        /// For how long.
        waited: Duration,
    },
    /// The other end of a connection.
    #[error("the connection to {peer}")]
    Transport {
        /// Which function's connection.
        peer: String,
        /// What the connection said.
        source: palisade_vfio_user::ClientError,
    },
    /// The unit or a device lacks something that the driver needs.
    #[error("{what} lacks {lacking}")]
    Unsupported {
        /// The unit or the device.
        what: String,
        /// What it should have had.
        lacking: String,
    },
    /// The unit reports an error of its own, as in its fault status.
    #[error("the unit reports: {0}")]
    Unit(String),
    /// The host gives out no PASID.
    #[error("the host gives no PASID: {0}")]
    NoPasid(String),
    /// A command of the accelerator failed.
    #[error("{bdf}: {command} failed: {reason} (code {code:#04x})")]
    Command {
        /// The accelerator.
        bdf: Bdf,
        /// The command in words.
        command: String,
        /// Its error code.
        code: u8,
        /// The code in words.
        reason: String,
    },
    /// A descriptor failed.
    #[error(
        "{bdf}: a copy from {from} to {to} of {len_bytes} bytes ended with status {status:#04x}"
    )]
    Copy {
        /// The accelerator.
        bdf: Bdf,
        /// The first source address.
        from: Iova,
        /// The first destination address.
        to: Iova,
        /// The length in bytes.
        len_bytes: u64,
        /// The completion record's status.
        status: u8,
    },
    /// Bytes are not what they should be.
    #[error(
        "after the copy, byte {offset:#x} of {what} is {found:#04x} instead of {expected:#04x}"
    )]
    Mismatch {
        /// The buffer.
        what: String,
        /// The offset of the first wrong byte.
        offset: u64,
        /// The byte that was expected.
        expected: u8,
        /// The byte that was found.
        found: u8,
    },
    /// A sweep could not tell what it stole.
    #[error(
        "a sweep needs targets, and a secret of 1 to 4096 bytes that are not all 0xa5, by which stolen bytes are known"
    )]
    BadSecret,
    /// A queue, or the completion records of a process, are all in use.
    #[error(
        "{bdf} has no place for another copy of PASID {process}: submit fewer before they are waited for"
    )]
    QueueFull {
        /// The function.
        bdf: Bdf,
        /// Whose copy it was.
        process: GuestPasid,
    },
    /// No process has this PASID.
    #[error("no process has PASID {0}")]
    NoProcess(GuestPasid),
    /// No function with this address was given to the driver.
    #[error("{0} is not one of this tenant's functions")]
    NoSuchFunction(Bdf),
}

impl DriverError {
    pub(crate) fn mismatch(what: String, difference: Difference) -> Self {
        let Difference {
            offset,
            expected,
            found,
        } = difference;
        Self::Mismatch {
            what,
            offset,
            expected,
            found,
        }
    }
}
