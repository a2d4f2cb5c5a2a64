use std::sync::Arc;

use palisade_memory::{MemoryError, Reach};
use palisade_units::{Access, Bdf, Iova, PasidTag};

use crate::caches::{Caches, Request};
use crate::epoch::Presence;
use crate::faults::HostFault;
use crate::function::Function;
use crate::resolve::Blocked;
use crate::tlb::{Found, Key, Kind};
use crate::walk::Mend;
use crate::{Ats, FaultReason, LookedUp};

mod copy;
mod page_request;
mod publish;
mod work;

pub use copy::{Partial, Side};
pub use work::PieceOfWork;

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
    /// Its mode. Without a PASID there is none but user mode.
    pub privilege: Privilege,
    /// What it does on a miss.
    pub on_miss: OnMiss,
    /// Whether its address was translated for the function before, or is to be.
    pub ats: Ats,
}

impl Requester {
    /// A user-mode request with an untranslated address that faults on a miss.
    #[must_use]
    pub const fn new(tag: Option<PasidTag>) -> Self {
        Self {
            tag,
            privilege: Privilege::User,
            on_miss: OnMiss::Fault,
            ats: Ats::Off,
        }
    }

    /// Mode and execution are told by the prefix that holds the PASID: without one a request is of user mode
    /// and executes nothing (VT-d §9.4).
    #[inline]
    fn access(self, access: Access) -> Access {
        match (self.tag, self.privilege) {
            (None, _) => access - Access::EXECUTE,
            (Some(_), Privilege::User) => access,
            (Some(_), Privilege::Privileged) => access | Access::PRIVILEGED,
        }
    }

    #[inline]
    fn kind(self, access: Access) -> Kind {
        let access = self.access(access);
        let flag = |present: bool, bit| if present { bit } else { 0 };
        let privileged = flag(access.contains(Access::PRIVILEGED), Kind::PRIVILEGED);
        let execute = flag(access.contains(Access::EXECUTE), Kind::EXECUTE);
        let of_device = flag(self.ats == Ats::On, Kind::OF_DEVICE);
        Kind::new(self.tag, privileged | execute | of_device)
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
    /// Nothing is bound to the tag, and the tenant's unit, which may know of an entry, is at work: the access is to
    /// be made again in a while. Nothing was recorded.
    #[error("{access} at {at} is to be made again: the tenant's unit is at work")]
    Later {
        /// The first address that was not reached.
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
            Self::Faulted { at, .. } | Self::NotPresent { at, .. } | Self::Later { at, .. } => *at,
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
    presence: Presence,
    caches: Caches,
}

impl DmaPort {
    pub(crate) fn new(function: Arc<Function>) -> Self {
        let presence = Presence::new(function.slots.add());
        Self {
            function,
            presence,
            caches: Caches::new(),
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
    #[inline]
    pub fn read(&mut self, by: Requester, from: Iova, into: &mut [u8]) -> Result<(), DmaError> {
        self.read_as(by, from, into, Access::READ)
    }

    /// Reads instructions: as [`DmaPort::read`] with the execute bit.
    ///
    /// # Errors
    /// [`DmaError`]; what came before its address was read.
    #[inline]
    pub fn fetch(&mut self, by: Requester, from: Iova, into: &mut [u8]) -> Result<(), DmaError> {
        self.read_as(by, from, into, Access::READ | Access::EXECUTE)
    }

    #[inline]
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
        job.run(self, |reach, done, len| {
            reach.read(into.get_mut(done..done + len).unwrap_or_default())
        })
    }

    /// Writes all of `data`.
    ///
    /// # Errors
    /// [`DmaError`]; what came before its address was written.
    #[inline]
    pub fn write(&mut self, by: Requester, to: Iova, data: &[u8]) -> Result<(), DmaError> {
        self.write_with(by, to, len_of(data), |reach, done, len| {
            reach.write(data.get(done..done + len).unwrap_or_default())
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
        self.write_with(by, to, len_bytes, |reach, done, _| {
            // A piece may start inside the pattern.
            let turn = u32::try_from(done % 8).unwrap_or_default() * 8;
            reach.fill_pattern(pattern.rotate_right(turn))
        })
    }

    #[inline]
    fn write_with(
        &mut self,
        by: Requester,
        to: Iova,
        len_bytes: u64,
        part: impl FnMut(Reach<'_>, usize, usize) -> Result<(), MemoryError>,
    ) -> Result<(), DmaError> {
        let job = Job {
            by,
            at: to,
            access: by.access(Access::WRITE),
            len_bytes,
        };
        job.run(self, part)
    }

    /// Lets go of memory that translations lead to which were invalidated. No access uses them, but their memory
    /// stays mapped in this process until this is called.
    pub fn forget_stale(&mut self) {
        let Self {
            function, caches, ..
        } = self;
        caches.forget_stale(&function.generations);
    }
}

impl Drop for DmaPort {
    fn drop(&mut self) {
        // An invalidation may have seen it before.
        self.presence.leave();
        self.function.slots.remove(self.presence.slot());
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
    /// Serves it, by the short way if all of it lies in one page that is cached, or whose table is.
    // In the caller, who knows the length and whether it reads or writes, it is a third shorter.
    #[inline(always)]
    fn run(
        self,
        port: &mut DmaPort,
        mut part: impl FnMut(Reach<'_>, usize, usize) -> Result<(), MemoryError>,
    ) -> Result<(), DmaError> {
        let DmaPort {
            function,
            presence,
            caches,
        } = &mut *port;
        let in_flight = presence.enter(self.len_bytes);
        caches.refresh(&function.generations, self.by.tag);
        let key = self.key(caches);
        let found = match caches.cached(key, self.at, self.access) {
            Some(found) => Some(found),
            None => caches.step(key, self.request()),
        };
        if let Some(found) = found
            && self.len_bytes <= found.left_bytes
            && self.len_bytes <= CHUNK_BYTES
            && let Ok(reach) = caches.reach(found, self.len_bytes)
            && part(reach, 0, index(self.len_bytes)).is_ok()
        {
            return Ok(());
        }
        drop(in_flight);
        self.run_in_pieces(port, part)
    }

    #[inline(never)]
    fn run_in_pieces(
        self,
        port: &mut DmaPort,
        mut part: impl FnMut(Reach<'_>, usize, usize) -> Result<(), MemoryError>,
    ) -> Result<(), DmaError> {
        let DmaPort {
            function,
            presence,
            caches,
        } = port;
        let mut done = 0;
        let mut search = Search::Possible;
        while done < self.len_bytes {
            let goal = self.len_bytes.min(done.saturating_add(CHUNK_BYTES));
            let in_flight = presence.enter(goal - done);
            caches.refresh(&function.generations, self.by.tag);
            let key = self.key(caches);
            let mut blocked = None;
            while done < goal {
                let found = match self.find(function, caches, key, done) {
                    Ok(found) => found,
                    Err(why) => {
                        blocked = Some(why);
                        break;
                    }
                };
                let len = found.left_bytes.min(goal - done);
                let moved = caches.reach(found, len);
                match moved.and_then(|reach| part(reach, index(done), index(len))) {
                    Ok(()) => done += len,
                    Err(error) => {
                        blocked = Some(self.failed(function, done, error));
                        break;
                    }
                }
            }
            drop(in_flight);
            if let Some(blocked) = blocked {
                presence.leave();
                match search.entry(function, &blocked) {
                    LookedUp::Bound => continue,
                    LookedUp::Later => return Err(blocked.later()),
                    LookedUp::Nothing => return Err(conclude(function, self.by, *blocked)),
                }
            }
        }
        Ok(())
    }

    #[inline]
    const fn request(&self) -> Request {
        Request {
            tag: self.by.tag,
            at: self.at,
            access: self.access,
            ats: self.by.ats,
        }
    }

    /// What cached translations for it must agree with.
    #[inline]
    fn key(&self, caches: &Caches) -> Key {
        caches.key(self.by.tag, self.by.kind(self.access))
    }

    /// The memory `done` bytes into the range.
    #[inline]
    fn find(
        &self,
        function: &Function,
        caches: &mut Caches,
        key: Key,
        done: u64,
    ) -> Result<Found, Box<Blocked>> {
        let Some(at) = self.at.checked_add(done) else {
            return Err(past_the_end(function, self.by.tag, self.access));
        };
        let here = Request {
            at,
            ..self.request()
        };
        caches.find(function, key, here)
    }

    #[cold]
    fn failed(&self, function: &Function, done: u64, error: MemoryError) -> Box<Blocked> {
        let here = Iova::new(self.at.get().saturating_add(done));
        function.memory_failed(self.by.tag, here, self.access, error)
    }
}

/// Whether an access that finds nothing bound to its tag may have its tenant look once more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Search {
    Possible,
    Over,
}

impl Search {
    /// Has the tenant's unit look for the entry that a request lacks. Nothing is in flight.
    #[cold]
    fn entry(&mut self, function: &Function, blocked: &Blocked) -> LookedUp {
        let lacks_entry = blocked.fault.reason == FaultReason::PasidEntryNotPresent;
        if *self == Self::Over || !lacks_entry {
            return LookedUp::Nothing;
        }
        *self = Self::Over;
        function.faults.look_up(blocked.fault.tag)
    }
}

/// Stops a range that runs over the end of the address space.
#[cold]
fn past_the_end(function: &Function, tag: Option<PasidTag>, access: Access) -> Box<Blocked> {
    function.refuse(
        tag,
        Iova::new(u64::MAX),
        access,
        FaultReason::NotCanonical.into(),
    )
}

/// Tells of a request that was refused, once nothing is in flight.
#[cold]
#[inline(never)]
fn conclude(function: &Function, by: Requester, blocked: Blocked) -> DmaError {
    let Blocked {
        fault,
        mend,
        origin,
        addressee,
    } = blocked;
    let HostFault {
        at, access, reason, ..
    } = fault;
    if (by.on_miss, mend) == (OnMiss::Ask, Mend::ByPageRequest) {
        return DmaError::NotPresent { at, access };
    }
    function
        .faults
        .report(function.bdf, fault, by.ats, origin, addressee);
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
