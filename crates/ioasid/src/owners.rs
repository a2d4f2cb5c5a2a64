use std::sync::atomic::{AtomicU64, Ordering};

use palisade_units::{HostPasid, PASID_COUNT, TenantId};
use zerocopy::FromZeros;

/// Set beside the tenant's number in an entry of a PASID that is out. Free is 0.
const OUT: u64 = 1 << 32;
/// Set beside [`OUT`] once the PASID was freed.
const FREE_PENDING: u64 = 1 << 33;

/// Whose each PASID is, to be read without the authority's lock: one load of one word. Written under the
/// lock alone, and only when a PASID changes hands, so that readers keep their cache lines.
pub(crate) struct Owners {
    /// By PASID: the tenant's number in bits 31:0, then [`OUT`] and [`FREE_PENDING`].
    entries: Box<[AtomicU64]>,
}

impl Owners {
    pub(crate) fn new() -> Self {
        let count = usize::try_from(PASID_COUNT).unwrap_or(usize::MAX);
        // Zeroed by the allocator: a page of the table costs nothing before a PASID of it is out.
        let zeroed = <[AtomicU64]>::new_box_zeroed_with_elems(count);
        let entries =
            zeroed.unwrap_or_else(|_| (0..count).map(|_| AtomicU64::new(0)).collect::<Box<[_]>>());
        Self { entries }
    }

    pub(crate) fn out(&self, pasid: HostPasid, tenant: TenantId) {
        self.store(pasid, OUT | u64::from(tenant.get()));
    }

    pub(crate) fn free_pending(&self, pasid: HostPasid, tenant: TenantId) {
        self.store(pasid, FREE_PENDING | OUT | u64::from(tenant.get()));
    }

    pub(crate) fn gone(&self, pasid: HostPasid) {
        self.store(pasid, 0);
    }

    pub(crate) fn owner_of(&self, pasid: HostPasid) -> Option<TenantId> {
        let entry = self.load(pasid);
        let number = u32::try_from(entry & u64::from(u32::MAX)).ok()?;
        (entry & OUT != 0).then_some(TenantId::new(number))
    }

    pub(crate) fn is_free_pending(&self, pasid: HostPasid) -> bool {
        self.load(pasid) & FREE_PENDING != 0
    }

    fn load(&self, pasid: HostPasid) -> u64 {
        let entry = usize::try_from(pasid.get())
            .ok()
            .and_then(|at| self.entries.get(at));
        entry.map_or(0, |entry| entry.load(Ordering::Acquire))
    }

    fn store(&self, pasid: HostPasid, value: u64) {
        let entry = usize::try_from(pasid.get())
            .ok()
            .and_then(|at| self.entries.get(at));
        if let Some(entry) = entry {
            entry.store(value, Ordering::Release);
        }
    }
}
