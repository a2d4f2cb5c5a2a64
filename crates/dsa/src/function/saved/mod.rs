//! The state of a function, to be saved on one host and restored on another.
//!
//! A state is what the driver can see of its function, and what it counts on: configuration space, registers and
//! tables, what it submitted and how far that has come, the command that waits, and the interrupts that it has not had.
//! All PASIDs in it are the driver's; what they mean on this host is the policy's to say when the function goes on.
//! Which of them meant nothing any more where it was saved, the state says itself.

mod check;
mod codec;
mod work;

use std::collections::BTreeSet;

use palisade_pci::saved::Unreadable;
use palisade_pci::{AccessError, Bar, CONFIG_SPACE_BYTES};
use palisade_units::GuestPasid;

use super::portal::{Piece, Target};
use super::shape::Layout;
use super::stale::Stale;
use super::state::After;
use crate::Switch;
use crate::spec::Descriptor;
use crate::task::LaneWork;

pub(super) use check::device;
pub(super) use codec::max_len_bytes;

/// How much a stopped function takes of its driver's writes, in registers and descriptors.
const MAX_HELD: usize = 1024;

/// The state of a function between two lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FunctionState {
    pub(super) config: Box<[u8; CONFIG_SPACE_BYTES]>,
    pub(super) registers: RegistersState,
    pub(super) groups: Vec<[u32; 16]>,
    pub(super) queues: Vec<QueueState>,
    pub(super) vectors: Vec<[u32; 4]>,
    /// The entries of the MSI-X permission table.
    pub(super) permissions: Vec<u32>,
    /// The vectors that are owed an interrupt.
    pub(super) owed: BTreeSet<u16>,
    pub(super) running: Option<RunningState>,
    /// Descriptors that came in part, by queue.
    pub(super) pieces: Vec<(u8, Piece)>,
    pub(super) held: Vec<Held>,
    /// The PASIDs that mean nothing any more, and are not to be looked for.
    pub(super) stale: BTreeSet<Stale>,
}

/// Registers that are in no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RegistersState {
    pub(super) general_config: u32,
    pub(super) general_control: u32,
    /// GENSTS.
    pub(super) device: u8,
    pub(super) cause: u32,
    pub(super) command_status: u32,
    pub(super) error: [u64; 4],
}

/// A queue: its configuration and its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QueueState {
    pub(super) words: [u32; 4],
    pub(super) enabled: bool,
    /// Whether descriptors may be privileged.
    pub(super) privileged: Switch,
    pub(super) work: LaneWork,
}

/// A command that waits for work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunningState {
    pub(super) after: After,
    /// The driver asked for an interrupt.
    pub(super) interrupt: Switch,
    /// The queues whose work it waits for.
    pub(super) queues: u64,
    /// The PASIDs on shared queues whose work it waits for.
    pub(super) uses: Vec<(u8, GuestPasid)>,
}

/// What a driver wrote to a stopped function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// A word of BAR 0.
    Word { offset: u64, value: u32 },
    /// A descriptor.
    Descriptor(Target, Descriptor),
}

/// Keeps writes for later: all of them, or none where there is no room.
pub(super) fn hold(held: &mut Vec<Held>, writes: Vec<Held>, bar: Bar) -> Result<(), AccessError> {
    if held.len() + writes.len() > MAX_HELD {
        return Err(AccessError::Retry { bar });
    }
    held.extend(writes);
    Ok(())
}

impl FunctionState {
    /// The bytes, in the format of this version.
    pub(super) fn to_bytes(&self, layout: &Layout) -> Vec<u8> {
        codec::encode(self, layout)
    }

    /// The bytes as they were before there was more to say.
    #[cfg(test)]
    pub(super) fn to_bytes_of_version_one(&self, layout: &Layout) -> Vec<u8> {
        codec::encode_as(codec::Version::One, self, layout)
    }

    /// The state of bytes, of a function of this shape. What it allocates is bounded by their number.
    pub(super) fn from_bytes(bytes: &[u8], layout: &Layout) -> Result<Self, Unreadable> {
        codec::decode(bytes, layout)
    }
}
