//! What the operations do, one file each. An operation goes on from where it was, for at most what is
//! left of the turn.

mod apply_delta;
mod cache_flush;
mod compare;
mod copy_crc;
mod crc;
mod create_delta;
mod dif;
mod dif_check;
mod dif_insert;
mod dif_strip;
mod dif_update;
mod dualcast;
mod fill;
mod memory_move;
mod so_far;

use palisade_iommu::{DmaError, DmaPort, Requester};
use palisade_units::{Access, Iova, PAGE_BYTES};

use crate::spec::{Descriptor, DifBlock, Opcode, Status};
use crate::task::Blocked;

pub(crate) use dif::strides as dif_strides;
pub(crate) use memory_move::run_at_once as move_at_once;
pub(crate) use so_far::{Carry, SoFar, Tags};

/// The most that goes through an engine's own buffer at a time, but for blocks with integrity fields, which go as a whole.
const PIECE_BYTES: usize = 4096;
const BUFFER_BYTES: usize = DifBlock::Of4104.bytes_with_field() as usize;
const _: () = assert!(BUFFER_BYTES > PIECE_BYTES);
/// The size of the words of delta records.
const WORD: usize = size_of::<u64>();
const WORD_BYTES: u64 = WORD as u64;
/// What an access costs besides its bytes, in bytes of a turn, where it is so small that this counts.
const ACCESS_COST_BYTES: u64 = 512;

/// Buffers of an engine.
pub(crate) struct Scratch {
    one: [u8; BUFFER_BYTES],
    other: [u8; BUFFER_BYTES],
    out: [u8; BUFFER_BYTES],
}

impl Scratch {
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self {
            one: [0; BUFFER_BYTES],
            other: [0; BUFFER_BYTES],
            out: [0; BUFFER_BYTES],
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Yield {
    /// Success, or what it found in the data that it cannot go on with.
    pub(crate) status: Status,
    /// The record's result byte.
    pub(crate) result: u8,
    /// The record's bytes completed; 0 for all.
    pub(crate) bytes_completed: u32,
}

impl Default for Yield {
    fn default() -> Self {
        Self {
            status: Status::SUCCESS,
            result: 0,
            bytes_completed: 0,
        }
    }
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
            DmaError::Later { .. } => Self::TurnOver,
            DmaError::Faulted { at, access, .. } => Self::Faulted(Blocked { at, access }),
        }
    }
}

/// Goes on with the operation of a descriptor that was checked, from where it was.
pub(crate) fn run(
    means: &mut Means<'_>,
    descriptor: &Descriptor,
    so_far: &mut SoFar,
) -> Result<Yield, Stop> {
    match descriptor.opcode() {
        Opcode::MEMORY_MOVE => memory_move::run(means, descriptor, &mut so_far.done_bytes),
        Opcode::MEMORY_FILL => fill::run(means, descriptor, so_far),
        Opcode::COMPARE | Opcode::COMPARE_PATTERN => {
            compare::run(means, descriptor, &mut so_far.done_bytes)
        }
        Opcode::CREATE_DELTA => create_delta::run(means, descriptor, so_far),
        Opcode::APPLY_DELTA => apply_delta::run(means, descriptor, so_far),
        Opcode::DUALCAST => dualcast::run(means, descriptor, so_far),
        Opcode::CRC => crc::run(means, descriptor, so_far),
        Opcode::COPY_CRC => copy_crc::run(means, descriptor, so_far),
        Opcode::DIF_CHECK => dif_check::run(means, descriptor, so_far),
        Opcode::DIF_INSERT => dif_insert::run(means, descriptor, so_far),
        Opcode::DIF_STRIP => dif_strip::run(means, descriptor, so_far),
        Opcode::DIF_UPDATE => dif_update::run(means, descriptor, so_far),
        Opcode::CACHE_FLUSH => cache_flush::run(means, descriptor, so_far),
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

    /// The next piece's length, where pieces are of whole units.
    fn whole(&self, unit: u64, remaining: u32, most: u64) -> Result<u64, Stop> {
        match self.piece(remaining, most)? / unit * unit {
            0 => Err(Stop::TurnOver),
            len => Ok(len),
        }
    }

    /// Takes something of the turn.
    fn spend(&mut self, bytes: u64) {
        *self.left_bytes = self.left_bytes.saturating_sub(bytes);
    }

    fn account(&mut self, done_bytes: &mut u32, len: u64) {
        self.spend(len);
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
