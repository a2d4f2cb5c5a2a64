use std::sync::atomic::{AtomicU32, AtomicU64 as LockedU64};

use palisade_units::{HostPasid, TenantId};

use crate::Timestamp;
use crate::numbers::ByPasid;
use crate::sync::{AtomicU64, Ordering};

/// Set in the owner word of a PASID that is out. Free is 0.
const OUT: u64 = 1 << 32;
/// Set beside [`OUT`] once the PASID was freed.
const FREE_PENDING: u64 = 1 << 33;
/// Set beside [`OUT`] once the PASID got a guest's number, and until it is free.
const LABELLED: u64 = 1 << 34;
/// From this bit up stands where the set is.
const SLOT_SHIFT: u32 = 35;

/// How many sets there can be at a time: where one is has to fit beside its tenant.
pub(crate) const MAX_SETS: u32 = 1 << (u64::BITS - SLOT_SHIFT);

/// Whose a PASID is, as one word: the tenant's number in bits 31:0, then [`OUT`],
/// [`FREE_PENDING`] and [`LABELLED`], then the slot of its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(u64);

impl Owner {
    pub(crate) fn new(tenant: TenantId, slot: u32) -> Self {
        Self((u64::from(slot) << SLOT_SHIFT) | OUT | u64::from(tenant.get()))
    }

    pub(crate) fn free_pending(self) -> Self {
        Self(self.0 | FREE_PENDING)
    }

    pub(crate) fn labelled(self) -> Self {
        Self(self.0 | LABELLED)
    }

    pub(crate) fn is_out(self) -> bool {
        self.0 & OUT != 0
    }

    pub(crate) fn is_free_pending(self) -> bool {
        self.0 & FREE_PENDING != 0
    }

    pub(crate) fn is_labelled(self) -> bool {
        self.0 & LABELLED != 0
    }

    pub(crate) fn tenant(self) -> Option<TenantId> {
        let number = u32::try_from(self.0 & u64::from(u32::MAX)).ok()?;
        self.is_out().then_some(TenantId::new(number))
    }

    /// Where the set is, of a PASID that is out.
    pub(crate) fn slot(self) -> u32 {
        u32::try_from(self.0 >> SLOT_SHIFT).unwrap_or(u32::MAX)
    }
}

/// What is kept for one PASID that is out, in half a cache line. The owner is read without the authority's
/// lock, with one load. Everything is written under the lock alone, and all but the owner is read under it
/// alone; it is atomic because it stands beside the owner, and ordered by the lock.
#[cfg_attr(not(loom), derive(zerocopy::FromZeros))]
#[derive(Default)]
struct Record {
    owner: AtomicU64,
    /// When it was allocated, in nanoseconds of the authority's clock.
    since_nanos: LockedU64,
    /// Where it stands in its set's list.
    listed_at: AtomicU32,
    references: AtomicU32,
}

/// The record of each PASID.
pub(crate) struct Records {
    records: ByPasid<Record>,
}

impl Records {
    pub(crate) fn new() -> Self {
        Self {
            records: ByPasid::zeroed(),
        }
    }

    /// Whose a PASID is. The one thing here that may be asked without the lock.
    pub(crate) fn owner(&self, pasid: HostPasid) -> Owner {
        Owner(self.records.at(pasid).owner.load(Ordering::Acquire))
    }

    pub(crate) fn set_owner(&self, pasid: HostPasid, owner: Owner) {
        let word = &self.records.at(pasid).owner;
        word.store(owner.0, Ordering::Release);
    }

    /// A PASID is out from now on.
    pub(crate) fn begin(&self, pasid: HostPasid, owner: Owner, since: Timestamp, listed_at: u32) {
        let record = self.records.at(pasid);
        let nanos = since.as_nanos();
        record.since_nanos.store(nanos, Ordering::Relaxed);
        record.listed_at.store(listed_at, Ordering::Relaxed);
        record.references.store(0, Ordering::Relaxed);
        record.owner.store(owner.0, Ordering::Release);
    }

    /// A PASID is free from now on.
    pub(crate) fn end(&self, pasid: HostPasid) {
        self.set_owner(pasid, Owner(0));
    }

    pub(crate) fn since(&self, pasid: HostPasid) -> Timestamp {
        let nanos = &self.records.at(pasid).since_nanos;
        Timestamp::from_nanos(nanos.load(Ordering::Relaxed))
    }

    pub(crate) fn listed_at(&self, pasid: HostPasid) -> u32 {
        self.records.at(pasid).listed_at.load(Ordering::Relaxed)
    }

    pub(crate) fn set_listed_at(&self, pasid: HostPasid, at: u32) {
        let listed_at = &self.records.at(pasid).listed_at;
        listed_at.store(at, Ordering::Relaxed);
    }

    pub(crate) fn references(&self, pasid: HostPasid) -> u32 {
        self.records.at(pasid).references.load(Ordering::Relaxed)
    }

    pub(crate) fn add_reference(&self, pasid: HostPasid) {
        let references = &self.records.at(pasid).references;
        references.store(references.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Takes a reference away and says how many are left.
    pub(crate) fn remove_reference(&self, pasid: HostPasid) -> u32 {
        let references = &self.records.at(pasid).references;
        let left = references.load(Ordering::Relaxed) - 1;
        references.store(left, Ordering::Relaxed);
        left
    }
}
