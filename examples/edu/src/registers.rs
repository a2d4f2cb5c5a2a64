//! BAR 0: what stands where, and what a write to it asks for.

use palisade_units::{GuestPasid, Iova};

/// Reads as [`IDENTITY`].
pub const IDENTIFICATION: u64 = 0x00;
/// Reads as the complement of what was written.
pub const LIVENESS: u64 = 0x04;
/// A number goes in, its factorial comes out, once [`STATUS`] says so.
pub const FACTORIAL: u64 = 0x08;
/// Bit 0: computing. Bit 7, writable: interrupt when done.
pub const STATUS: u64 = 0x20;
/// Why there was an interrupt.
pub const CAUSE: u64 = 0x24;
/// Bits written here are set in [`CAUSE`], with an interrupt.
pub const RAISE: u64 = 0x60;
/// Bits written here are cleared in [`CAUSE`].
pub const ACKNOWLEDGE: u64 = 0x64;
/// 64 bits: where a copy reads.
pub const SOURCE: u64 = 0x80;
/// 64 bits: where it writes.
pub const DESTINATION: u64 = 0x88;
/// 64 bits: how many bytes.
pub const COUNT: u64 = 0x90;
/// 64 bits, of which the lower half is a doorbell. Bit 0 starts, and reads as one until the copy has ended. Bit 2:
/// interrupt then.
pub const COMMAND: u64 = 0x98;
/// Bits 19:0: whose addresses they are. Bit 31: they are a process's at all.
pub const PASID: u64 = 0xa0;
/// How the last copy ended: an [`Outcome`].
pub const RESULT: u64 = 0xa4;
/// 64 bits: the address at which it stopped.
pub const STOPPED_AT: u64 = 0xa8;
/// 64 bits: how many bytes were copied.
pub const DONE: u64 = 0xb0;
/// The MSI-X table, of one vector, and its pending bits.
pub const VECTOR: u32 = 0x800;
pub(crate) const PENDING: u32 = 0x900;

/// What [`IDENTIFICATION`] holds: edu, version 1.0.
pub const IDENTITY: u32 = 0x0100_00ed;
/// The size of BAR 0 in bytes.
pub const BAR_BYTES: u64 = 4096;
/// In [`STATUS`].
pub const COMPUTING: u32 = 1;
/// In [`STATUS`].
pub const INTERRUPT_WHEN_COMPUTED: u32 = 1 << 7;
/// In [`CAUSE`]: a factorial.
pub const COMPUTED: u32 = 1;
/// In [`CAUSE`]: a copy.
pub const COPIED: u32 = 1 << 8;
/// In [`COMMAND`].
pub const START: u32 = 1;
/// In [`COMMAND`].
pub const INTERRUPT_WHEN_COPIED: u32 = 1 << 2;
/// In [`PASID`].
pub const PASID_ENABLE: u32 = 1 << 31;

/// How a copy ended: the values of [`RESULT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All bytes were copied.
    Done = 1,
    /// An address led nowhere.
    Faulted = 2,
    /// The page was asked for, and will not come.
    NoPage = 3,
    /// The device may not, or the copy is too long.
    Refused = 4,
}

/// A copy as the registers had it when it was started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) source: Iova,
    pub(crate) destination: Iova,
    pub(crate) left_bytes: u64,
    pub(crate) done_bytes: u64,
    pub(crate) pasid: Option<GuestPasid>,
}

/// What a write asks for, beyond changing a register.
pub(crate) enum Doorbell {
    Compute(u32),
    Copy(Job),
    Raise(u32),
}

/// The bits of a word that a write changes.
fn writable(offset: u64) -> u32 {
    const VECTOR_AT: u64 = VECTOR as u64;
    match offset {
        LIVENESS | SOURCE..COMMAND => u32::MAX,
        STATUS => INTERRUPT_WHEN_COMPUTED,
        PASID => PASID_ENABLE | 0xf_ffff,
        VECTOR_AT..0x80c => u32::MAX,
        0x80c => 1,
        _ => 0,
    }
}

/// The register file, in words of 32 bits. Wider accesses are several of those.
pub(crate) struct Registers([u32; 1024]);

impl Registers {
    pub(crate) fn new() -> Self {
        let mut registers = Self([0; 1024]);
        *registers.word(IDENTIFICATION) = IDENTITY;
        registers
    }

    fn word(&mut self, offset: u64) -> &mut u32 {
        let index = usize::try_from(offset / 4).unwrap_or(0) % self.0.len();
        &mut self.0[index]
    }

    fn wide(&mut self, offset: u64) -> u64 {
        u64::from(*self.word(offset)) | u64::from(*self.word(offset + 4)) << 32
    }

    pub(crate) fn read(&mut self, offset: u64) -> u32 {
        *self.word(offset)
    }

    pub(crate) fn write(&mut self, offset: u64, value: u32) -> Option<Doorbell> {
        let value = if offset == LIVENESS { !value } else { value };
        let mask = writable(offset);
        let word = self.word(offset);
        *word = *word & !mask | value & mask;
        match offset {
            FACTORIAL if *self.word(STATUS) & COMPUTING == 0 => {
                *self.word(STATUS) |= COMPUTING;
                Some(Doorbell::Compute(value))
            }
            COMMAND if *self.word(COMMAND) & START == 0 && value & START != 0 => {
                *self.word(COMMAND) = value & (START | INTERRUPT_WHEN_COPIED);
                *self.word(RESULT) = 0;
                Some(Doorbell::Copy(self.job()))
            }
            RAISE => Some(Doorbell::Raise(value)),
            ACKNOWLEDGE => {
                *self.word(CAUSE) &= !value;
                None
            }
            _ => None,
        }
    }

    fn job(&mut self) -> Job {
        let pasid = *self.word(PASID);
        let is_named = pasid & PASID_ENABLE != 0;
        Job {
            source: Iova::new(self.wide(SOURCE)),
            destination: Iova::new(self.wide(DESTINATION)),
            left_bytes: self.wide(COUNT),
            done_bytes: 0,
            pasid: GuestPasid::new(pasid & 0xf_ffff).ok().filter(|_| is_named),
        }
    }

    pub(crate) fn raise(&mut self, cause: u32) {
        *self.word(CAUSE) |= cause;
    }

    /// Returns whether an interrupt is wanted, by its cause.
    pub(crate) fn computed(&mut self, factorial: u32) -> Option<u32> {
        *self.word(FACTORIAL) = factorial;
        *self.word(STATUS) &= !COMPUTING;
        (*self.word(STATUS) & INTERRUPT_WHEN_COMPUTED != 0).then_some(COMPUTED)
    }

    /// Returns whether an interrupt is wanted, by its cause.
    pub(crate) fn copied(&mut self, job: Job, outcome: Outcome, at: Iova) -> Option<u32> {
        for (offset, value) in [(STOPPED_AT, at.get()), (DONE, job.done_bytes)] {
            let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
            *self.word(offset) = u32::from_le_bytes([a, b, c, d]);
            *self.word(offset + 4) = u32::from_le_bytes([e, f, g, h]);
        }
        *self.word(RESULT) = outcome as u32;
        *self.word(COMMAND) &= !START;
        (*self.word(COMMAND) & INTERRUPT_WHEN_COPIED != 0).then_some(COPIED)
    }
}
