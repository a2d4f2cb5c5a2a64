//! What the operations do, one file each. An operation goes on from where it was, for at most what is
//! left of the turn.

mod compare;
mod fill;
mod memory_move;

use palisade_iommu::{DmaError, DmaPort, Requester};
use palisade_units::{Access, Iova, PAGE_BYTES};

use crate::spec::{Descriptor, Opcode};
use crate::task::Blocked;

/// The most that goes through an engine's own buffer at a time.
const PIECE_BYTES: usize = 4096;

/// Buffers of an engine.
pub(crate) struct Scratch {
    one: [u8; PIECE_BYTES],
    other: [u8; PIECE_BYTES],
}

impl Scratch {
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self {
            one: [0; PIECE_BYTES],
            other: [0; PIECE_BYTES],
        })
    }
}

/// Means of an operation.
pub(crate) struct Means<'a> {
    pub(crate) port: &'a mut DmaPort,
    pub(crate) by: Requester,
    pub(crate) scratch: &'a mut Scratch,
    /// What is left of the turn, in bytes.
    pub(crate) left_bytes: &'a mut u64,
}

/// What an operation yields when it is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Yield {
    /// The record's result byte.
    pub(crate) result: u8,
    /// The record's bytes completed; 0 for all.
    pub(crate) bytes_completed: u32,
}

/// Why an operation stopped short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Its turn is over.
    TurnOver,
    /// It needs a page and may wait for it.
    Blocked(Blocked),
    /// An access was refused for good.
    Faulted(Blocked),
}

impl From<DmaError> for Stop {
    fn from(error: DmaError) -> Self {
        match error {
            DmaError::NotPresent { at, access } => Self::Blocked(Blocked { at, access }),
            DmaError::Faulted { at, access, .. } => Self::Faulted(Blocked { at, access }),
        }
    }
}

/// Goes on with the operation of a descriptor that was checked. `done_bytes` is how far it has come.
pub(crate) fn run(
    means: &mut Means<'_>,
    descriptor: &Descriptor,
    done_bytes: &mut u32,
) -> Result<Yield, Stop> {
    match descriptor.opcode() {
        Opcode::MEMORY_MOVE => memory_move::run(means, descriptor, done_bytes),
        Opcode::MEMORY_FILL => fill::run(means, descriptor, done_bytes),
        Opcode::COMPARE | Opcode::COMPARE_PATTERN => compare::run(means, descriptor, done_bytes),
        // No-op and drain have nothing to do; others are refused before they come here.
        _ => Ok(Yield::default()),
    }
}

/// The result byte of a move that went from the end.
pub(crate) fn direction_result(descriptor: &Descriptor) -> u8 {
    u8::from(descriptor.opcode() == Opcode::MEMORY_MOVE && memory_move::is_backward(descriptor))
}

impl Means<'_> {
    /// The next piece's length: within what is left of the operation and the turn.
    fn piece(&self, remaining: u32, most: u64) -> Result<u64, Stop> {
        match u64::from(remaining).min(most).min(*self.left_bytes) {
            0 => Err(Stop::TurnOver),
            len => Ok(len),
        }
    }

    fn account(&mut self, done_bytes: &mut u32, len: u64) {
        *self.left_bytes = self.left_bytes.saturating_sub(len);
        // A piece is never longer than what remains of a 32-bit size.
        *done_bytes = done_bytes.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
    }
}

/// How many bytes there are from an address to the end of its page.
const fn to_page_end(at: u64) -> u64 {
    PAGE_BYTES - at % PAGE_BYTES
}

/// How many bytes of its page are before the end of a range that ends at this address.
const fn from_page_start(end: u64) -> u64 {
    (end - 1) % PAGE_BYTES + 1
}

/// A length that fits a piece's buffer.
fn piece_len(len: u64) -> usize {
    usize::try_from(len).map_or(PIECE_BYTES, |len| len.min(PIECE_BYTES))
}

fn iova(at: u64) -> Iova {
    Iova::new(at)
}

/// Whether the access that failed was a write.
pub(crate) fn was_write(blocked: Blocked) -> bool {
    blocked.access.contains(Access::WRITE)
}
