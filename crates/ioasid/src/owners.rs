use palisade_units::{HostPasid, TenantId};

use crate::numbers::ByPasid;
use crate::sync::{AtomicU64, Ordering};

/// Set in the word of a PASID that is out. Free is 0.
const OUT: u64 = 1 << 32;
/// Set beside [`OUT`] once the PASID was freed.
const FREE_PENDING: u64 = 1 << 33;
/// From this bit up stands where the set is.
const SLOT_SHIFT: u32 = 34;

/// How many sets there can be at a time: where one is has to fit beside its tenant.
pub(crate) const MAX_SETS: u32 = 1 << (u64::BITS - SLOT_SHIFT);

/// Whose a PASID is, as one word: the tenant's number in bits 31:0, then [`OUT`] and
/// [`FREE_PENDING`], then the slot of its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(u64);

impl Owner {
    pub(crate) fn new(tenant: TenantId, slot: u32) -> Self {
        Self((u64::from(slot) << SLOT_SHIFT) | OUT | u64::from(tenant.get()))
    }

    pub(crate) fn free_pending(self) -> Self {
        Self(self.0 | FREE_PENDING)
    }

    pub(crate) fn is_out(self) -> bool {
        self.0 & OUT != 0
    }

    pub(crate) fn is_free_pending(self) -> bool {
        self.0 & FREE_PENDING != 0
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

/// Whose each PASID is, to be read without the authority's lock: one load of one word. Written under the
/// lock alone, and only when a PASID changes hands, so that readers keep their cache lines.
pub(crate) struct Owners {
    words: ByPasid<AtomicU64>,
}

impl Owners {
    pub(crate) fn new() -> Self {
        Self {
            words: ByPasid::zeroed(),
        }
    }

    pub(crate) fn get(&self, pasid: HostPasid) -> Owner {
        Owner(self.words.at(pasid).load(Ordering::Acquire))
    }

    pub(crate) fn set(&self, pasid: HostPasid, owner: Owner) {
        self.words.at(pasid).store(owner.0, Ordering::Release);
    }

    pub(crate) fn gone(&self, pasid: HostPasid) {
        self.words.at(pasid).store(0, Ordering::Release);
    }
}
