//! Registers, tables, descriptors and records of the accelerator: truth, no behaviour.
//!
//! Revision: Intel Data Streaming Accelerator Architecture Specification 1.0 and later (341204), cited as
//! DSA; registers stand in its §9.2, descriptors in §8, statuses in §5.
//!
//! What a driver does, in this order; each step that is left out is refused by a later one:
//! 1. Configuration space: COMMAND memory and bus master; PASID enable (before any queue with a PASID), ATS
//!    enable, PRI enable (without it nothing blocks on faults).
//! 2. [`register::CMD`] ← [`Command::RESET_DEVICE`]; read [`register::CMDSTS`] until
//!    [`CommandStatus::active`] is clear.
//! 3. Tables, at the offsets of [`TableOffsets`]: for each queue its [`QueueConfig`] (size, mode, priority,
//!    block on fault, limits), for one group its queue and engine bits.
//! 4. [`Command::ENABLE_DEVICE`].
//! 5. PASID and its enable bit into the queue's [`table::WQCFG_MODE`] word; [`Command::ENABLE_QUEUE`].
//! 6. 64-byte [`Descriptor`]s to [`portal_offset`] in BAR 2. Eight stores of 8 bytes or one of 64 make a
//!    descriptor; a longer aligned write is several of them.
//!
//! A command is done when its register write returns, unless descriptors wait for page responses:
//! then CMDSTS stays active until the last of them is answered.

mod command;
mod completion;
mod descriptor;
mod dif;
mod flags;
mod opcode;
pub mod register;
mod software_error;
mod specific;
pub mod table;

pub use command::{Command, CommandCode, CommandError, CommandStatus};
pub use completion::{CompletionRecord, Status};
pub use descriptor::Descriptor;
pub use dif::{Dif, DifBlock, DifDestination, DifFlags, DifMismatch, DifSource, DifTags};
pub use flags::Flags;
pub use opcode::Opcode;
pub use register::{
    DeviceState, EngineCapability, GeneralCapability, GeneralConfig, GeneralControl, GeneralStatus,
    GroupCapability, InterruptCause, OperationCapability, QueueCapability, ResetType, TableOffsets,
    VERSION_1_0,
};
pub use software_error::{ErrorCode, SoftwareError};
pub use specific::{CrcSeed, CreateDelta, DELTA_ENTRY_BYTES, DeltaResult, DifFields};
pub use table::{GroupFlags, InterruptPermission, QueueConfig, QueueLimits, QueueMode, QueueState};

/// Vendor ID.
pub const VENDOR_ID: u16 = 0x8086;
/// Device ID of the first generation.
pub const DEVICE_ID: u16 = 0x0b25;
/// Class code: base system peripheral, other.
pub const CLASS_CODE: u32 = 0x08_80_00;

/// The size of BAR 0, registers and tables, in bytes.
pub const REGISTERS_BYTES: u64 = 0x1_0000;
/// The size of one portal in bytes.
pub const PORTAL_BYTES: u64 = 0x1000;
/// How many portals a queue has in BAR 2.
pub const PORTALS_PER_QUEUE: u64 = 4;
/// The size of a descriptor in bytes.
pub const DESCRIPTOR_BYTES: usize = 64;
/// The size of a completion record in bytes.
pub const COMPLETION_RECORD_BYTES: usize = 32;

/// Which of a queue's portals (DSA §3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Portal {
    /// For privileged software; a shared queue takes descriptors up to its size.
    Unlimited,
    /// For everybody; a shared queue takes descriptors up to its threshold.
    Limited,
}

/// Where a portal of a queue stands in BAR 2, in bytes (DSA §9.3).
#[must_use]
pub const fn portal_offset(queue: u8, portal: Portal) -> u64 {
    let page = match portal {
        Portal::Unlimited => 0,
        Portal::Limited => 1,
    };
    (queue as u64 * PORTALS_PER_QUEUE + page) * PORTAL_BYTES
}

#[cfg(test)]
mod tests;
