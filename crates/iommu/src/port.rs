use std::sync::Arc;

use palisade_memory::{HostSlice, MemoryError};
use palisade_units::{Access, Bdf, Iova, PasidTag};

use crate::FaultReason;
use crate::epoch::{Generation, Slot};
use crate::faults::HostFault;
use crate::function::Function;
use crate::resolve::Blocked;
use crate::tlb::{Kind, Piece, Tlb};
use crate::walk::Mend;

mod copy;
mod page_request;

pub use copy::{Partial, Side};

/// How many bytes move before the port passes a quiescent point: an invalidation waits for no more
/// than this.
const CHUNK_BYTES: u64 = 64 << 10;

/// The mode of a request (PCIe 6.20.2.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Privilege {
    /// User mode.
    #[default]
    User,
    /// Privileged mode.
    Privileged,
}

/// What happens when the first stage lacks a page or a permission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnMiss {
    /// The request faults.
    #[default]
    Fault,
    /// The port says [`DmaError::NotPresent`] and records nothing: the device may ask for the page.
    Ask,
}

/// Who makes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requester {
    /// The request's PASID, if it has one.
    pub tag: Option<PasidTag>,
    /// Its mode.
    pub privilege: Privilege,
    /// What it does on a miss.
    pub on_miss: OnMiss,
}

impl Requester {
    /// A user-mode request that faults on a miss.
    #[must_use]
    pub const fn new(tag: Option<PasidTag>) -> Self {
        Self {
            tag,
            privilege: Privilege::User,
            on_miss: OnMiss::Fault,
        }
    }

    fn access(self, access: Access) -> Access {
        match self.privilege {
            Privilege::User => access,
            Privilege::Privileged => access | Access::PRIVILEGED,
        }
    }

    fn kind(self, access: Access) -> Kind {
        let flag = |present: bool, bit| if present { bit } else { 0 };
        let privileged = flag(self.privilege == Privilege::Privileged, Kind::PRIVILEGED);
        let execute = flag(access.contains(Access::EXECUTE), Kind::EXECUTE);
        Kind::new(self.tag, privileged | execute)
    }
}

/// Why an access stopped. What came before `at` was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DmaError {
    /// Refused; counted, and told to whom it concerns.
    #[error("{access} at {at} was refused: {reason}")]
    Faulted {
        /// Why.
        reason: FaultReason,
        /// The first address that was refused.
        at: Iova,
        /// What was wanted there.
        access: Access,
    },
    /// Only with [`OnMiss::Ask`]: the guest may make it succeed by answering a page request. Nothing
    /// was recorded.
    #[error("{access} at {at} needs a page that is not there yet")]
    NotPresent {
        /// The first address that is not there.
        at: Iova,
        /// What was wanted there.
        access: Access,
    },
}

impl DmaError {
    /// The address at which the access stopped.
    #[must_use]
    pub const fn at(&self) -> Iova {
        match self {
            Self::Faulted { at, .. } | Self::NotPresent { at, .. } => *at,
        }
    }
}

/// The way of one engine to memory, and the only one.
///
/// A port belongs to one thread at a time. It keeps translations in private caches: an access that
/// finds its own there takes no lock and writes no cache line that other threads write. Reads and
/// writes have a cache each. Accesses of more than 64 KiB pass points at which an invalidation may
/// take effect; a smaller one is served by the state before it or by that after it.
pub struct DmaPort {
    function: Arc<Function>,
    slot: Arc<Slot>,
    reads: Tlb,
    writes: Tlb,
}

impl DmaPort {
    pub(crate) fn new(function: Arc<Function>) -> Self {
        let slot = function.slots.add();
        Self {
            function,
            slot,
            reads: Tlb::new(),
            writes: Tlb::new(),
        }
    }

    /// The function whose requests these are.
    #[must_use]
    pub fn bdf(&self) -> Bdf {
        self.function.bdf
    }

    /// Reads `into.len()` bytes.
    ///
    /// # Errors
    /// [`DmaError`]; what came before its address was read.
    pub fn read(&mut self, by: Requester, from: Iova, into: &mut [u8]) -> Result<(), DmaError> {
        self.read_as(by, from, into, Access::READ)
    }

    /// Reads instructions: as [`DmaPort::read`] with the execute bit.
    ///
    /// # Errors
    /// [`DmaError`]; what came before its address was read.
    pub fn fetch(&mut self, by: Requester, from: Iova, into: &mut [u8]) -> Result<(), DmaError> {
        self.read_as(by, from, into, Access::READ | Access::EXECUTE)
    }

    fn read_as(
        &mut self,
        by: Requester,
        from: Iova,
        into: &mut [u8],
        access: Access,
    ) -> Result<(), DmaError> {
        let job = Job {
            by,
            at: from,
            access: by.access(access),
            len_bytes: len_of(into),
        };
        let part = |slice: &HostSlice, offset_bytes, done: usize, len: usize| {
            let part = into.get_mut(done..done + len).unwrap_or_default();
            slice.read(offset_bytes, part)
        };
        job.run(&self.function, &self.slot, &mut self.reads, part)
    }

    /// Writes all of `data`.
    ///
    /// # Errors
    /// [`DmaError`]; what came before its address was written.
    pub fn write(&mut self, by: Requester, to: Iova, data: &[u8]) -> Result<(), DmaError> {
        self.write_with(by, to, len_of(data), |slice, offset_bytes, done, len| {
            let part = data.get(done..done + len).unwrap_or_default();
            slice.write(offset_bytes, part)
        })
    }

    /// Repeats the eight bytes of `pattern`, lowest first, over `len_bytes`.
    ///
    /// # Errors
    /// [`DmaError`]; what came before its address was written.
    pub fn fill(
        &mut self,
        by: Requester,
        to: Iova,
        len_bytes: u64,
        pattern: u64,
    ) -> Result<(), DmaError> {
        self.write_with(by, to, len_bytes, |slice, offset_bytes, done, len| {
            // A piece may start inside the pattern.
            let turn = u32::try_from(done % 8).unwrap_or_default() * 8;
            slice.fill_pattern(offset_bytes, bytes(len), pattern.rotate_right(turn))
        })
    }

    fn write_with(
        &mut self,
        by: Requester,
        to: Iova,
        len_bytes: u64,
        part: impl FnMut(&HostSlice, u64, usize, usize) -> Result<(), MemoryError>,
    ) -> Result<(), DmaError> {
        let job = Job {
            by,
            at: to,
            access: by.access(Access::WRITE),
            len_bytes,
        };
        job.run(&self.function, &self.slot, &mut self.writes, part)
    }

    /// Lets go of memory that translations lead to which were invalidated. No access uses them, but their memory
    /// stays mapped in this process until they are replaced or this is called.
    pub fn forget_stale(&mut self) {
        let current = |tag| self.function.generations.current(tag);
        self.reads.drop_stale(current);
        self.writes.drop_stale(current);
    }
}

impl Drop for DmaPort {
    fn drop(&mut self) {
        self.function.slots.remove(&self.slot);
    }
}

/// One access to a range.
#[derive(Clone, Copy)]
struct Job {
    by: Requester,
    at: Iova,
    access: Access,
    len_bytes: u64,
}

impl Job {
    fn run(
        self,
        function: &Function,
        slot: &Slot,
        tlb: &mut Tlb,
        mut part: impl FnMut(&HostSlice, u64, usize, usize) -> Result<(), MemoryError>,
    ) -> Result<(), DmaError> {
        let mut done = 0;
        while done < self.len_bytes {
            let goal = self.len_bytes.min(done.saturating_add(CHUNK_BYTES));
            let in_flight = slot.enter();
            let generation = function.generations.current(self.by.tag);
            let mut blocked = None;
            while done < goal && blocked.is_none() {
                let piece = match self.piece(function, tlb, generation, done) {
                    Ok(piece) => piece,
                    Err(why) => {
                        blocked = Some(why);
                        break;
                    }
                };
                let len = piece.left_bytes.min(goal - done);
                match part(piece.slice, piece.offset_bytes, index(done), index(len)) {
                    Ok(()) => done += len,
                    Err(error) => blocked = Some(self.failed(function, done, error)),
                }
            }
            drop(in_flight);
            if let Some(blocked) = blocked {
                return Err(conclude(function, self.by.on_miss, *blocked));
            }
        }
        Ok(())
    }

    /// The memory `done` bytes into the range.
    fn piece<'a>(
        &self,
        function: &Function,
        tlb: &'a mut Tlb,
        generation: Generation,
        done: u64,
    ) -> Result<Piece<'a>, Box<Blocked>> {
        let Job { by, at, access, .. } = *self;
        let Some(here) = at.checked_add(done) else {
            return Err(past_the_end(function, by.tag, access));
        };
        let kind = by.kind(access);
        let found = tlb.find(kind, here, generation, || {
            function.resolve(by.tag, here, access)
        })?;
        found.ok_or_else(|| past_the_end(function, by.tag, access))
    }

    fn failed(&self, function: &Function, done: u64, error: MemoryError) -> Box<Blocked> {
        let here = Iova::new(self.at.get().saturating_add(done));
        function.memory_failed(self.by.tag, here, self.access, error)
    }
}

/// Stops a range that runs over the end of the address space.
fn past_the_end(function: &Function, tag: Option<PasidTag>, access: Access) -> Box<Blocked> {
    function.refuse(
        tag,
        Iova::new(u64::MAX),
        access,
        FaultReason::NotCanonical.into(),
    )
}

/// Tells of a request that was refused, once nothing is in flight.
fn conclude(function: &Function, on_miss: OnMiss, blocked: Blocked) -> DmaError {
    let Blocked {
        fault,
        mend,
        origin,
        addressee,
    } = blocked;
    let HostFault {
        at, access, reason, ..
    } = fault;
    if (on_miss, mend) == (OnMiss::Ask, Mend::ByPageRequest) {
        return DmaError::NotPresent { at, access };
    }
    function
        .faults
        .report(function.bdf, fault, origin, addressee);
    DmaError::Faulted { reason, at, access }
}

fn bytes(len: usize) -> u64 {
    len as u64
}

fn len_of(data: &[u8]) -> u64 {
    bytes(data.len())
}

/// An offset into a buffer of the caller, which is one because the buffer's length was.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
