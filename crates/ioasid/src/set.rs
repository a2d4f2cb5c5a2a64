use std::sync::Arc;

use palisade_units::{GuestPasid, HostPasid, TenantId};

use crate::authority::Shared;
use crate::notify::Scope;
use crate::sets::SetId;
use crate::{
    CustomAllocator, Data, Hold, IoasidError, Listener, PasidRange, PasidState, Priority, Request,
    Subscription,
};

/// The PASIDs of one tenant. A handle: clones share the set and its quota. The set is closed by
/// [`PasidSet::close`] or when the last handle goes.
#[derive(Clone, Debug)]
pub struct PasidSet {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    id: SetId,
    tenant: TenantId,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let (id, tenant) = (self.id, self.tenant);
        self.shared.with(|state| state.close(id, tenant));
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "set of {}", self.tenant)
    }
}

impl PasidSet {
    pub(crate) fn new(shared: Arc<Shared>, id: SetId, tenant: TenantId) -> Self {
        Self {
            handle: Arc::new(Handle { shared, id, tenant }),
        }
    }

    /// Whose set it is.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.handle.tenant
    }

    /// How many PASIDs it may have out; 0 once it was closed and is gone.
    #[must_use]
    pub fn quota(&self) -> u32 {
        self.handle.shared.lock().quota(self.handle.id)
    }

    /// Whether it was closed: it takes no more requests.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        let Handle { shared, id, tenant } = &*self.handle;
        shared.lock().sets.open(*id, *tenant).is_err()
    }

    /// How many it has out, those that are free-pending among them.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.handle.shared.lock().outstanding(self.handle.id)
    }

    /// Changes the quota.
    ///
    /// # Errors
    /// [`IoasidError::InvalidQuota`] (EINVAL) below what is out, [`IoasidError::NoCapacity`]
    /// (ENOSPC) beyond what the other sets leave, [`IoasidError::Closed`].
    pub fn adjust(&self, quota: u32) -> Result<(), IoasidError> {
        let Handle { shared, id, tenant } = &*self.handle;
        shared.ask(*tenant, Request::Adjust, |state| {
            state.adjust(*id, *tenant, quota)
        })
    }

    /// Takes the lowest free PASID in the range, or the one that the active custom allocator chooses,
    /// and charges the quota.
    ///
    /// # Errors
    /// [`IoasidError::InvalidRange`] (EINVAL) for an inverted range, [`IoasidError::QuotaExceeded`]
    /// or [`IoasidError::NoSpace`] (ENOSPC), [`IoasidError::Closed`].
    pub fn alloc(&self, range: PasidRange) -> Result<HostPasid, IoasidError> {
        let Handle { shared, id, tenant } = &*self.handle;
        let mut custom = None;
        let default = shared.ask(*tenant, Request::Allocate, |state| {
            if state.customs.is_none() {
                return state.alloc(*id, *tenant, range).map(Some);
            }
            custom = state.customs.active();
            state.may_alloc(*id, *tenant, range).map(|()| None)
        })?;
        match default {
            Some(pasid) => Ok(pasid),
            None => self.alloc_by(custom, range),
        }
    }

    /// Takes the number that an allocator chooses.
    fn alloc_by(
        &self,
        allocator: Option<CustomAllocator>,
        range: PasidRange,
    ) -> Result<HostPasid, IoasidError> {
        let Handle { shared, id, tenant } = &*self.handle;
        let chosen = allocator.and_then(|one| one.alloc(range).map(|pasid| (pasid, one)));
        let answer = shared.ask(*tenant, Request::Allocate, |state| match &chosen {
            Some((pasid, one)) => state.alloc_chosen(*id, *tenant, range, (*pasid, one)),
            None => Err(IoasidError::NoSpace { range }),
        });
        if let (Err(_), Some((pasid, allocator))) = (&answer, chosen) {
            allocator.free(pasid);
        }
        answer
    }

    /// Gives a PASID back: at once when nobody holds it, else with the last hold. Its pair with a
    /// guest's number ends here in either case. Freeing a free-pending one again does nothing.
    ///
    /// # Errors
    /// [`IoasidError::NotFound`] (ENOENT), [`IoasidError::NotOwner`] (EACCES).
    pub fn free(&self, pasid: HostPasid) -> Result<(), IoasidError> {
        let Handle { shared, id, tenant } = &*self.handle;
        shared.ask(*tenant, Request::Free, |state| {
            state.free(*id, *tenant, pasid)
        })
    }

    /// Frees what the set owns in a range and says how many that were; those that were free-pending
    /// already do not count. Costs follow what is owned, whatever the range.
    pub fn free_range(&self, range: PasidRange) -> u32 {
        let Handle { shared, id, .. } = &*self.handle;
        shared.with(|state| state.free_range(*id, range))
    }

    /// Every PASID that the set has out, ascending.
    #[must_use]
    pub fn owned(&self) -> Vec<HostPasid> {
        self.owned_within(PasidRange::ALL)
    }

    /// The PASIDs in a range that the set has out, ascending.
    #[must_use]
    pub fn owned_within(&self, range: PasidRange) -> Vec<HostPasid> {
        let Handle { shared, id, .. } = &*self.handle;
        shared.lock().owned_within(*id, range)
    }

    /// Where a PASID of this set is in its life.
    ///
    /// # Errors
    /// [`IoasidError::NotFound`] (ENOENT), [`IoasidError::NotOwner`] (EACCES).
    pub fn state_of(&self, pasid: HostPasid) -> Result<PasidState, IoasidError> {
        let Handle { shared, id, tenant } = &*self.handle;
        shared.lock().state_of(*id, *tenant, pasid)
    }

    /// Looks a PASID of this set up, without a reference, and says what is attached to it.
    ///
    /// # Errors
    /// [`IoasidError::NotFound`] (ENOENT), [`IoasidError::NotOwner`] (EACCES).
    pub fn find(&self, pasid: HostPasid) -> Result<Option<Data>, IoasidError> {
        let Handle { shared, id, tenant } = &*self.handle;
        shared.lock().find(*id, *tenant, pasid)
    }

    /// Attaches a word to a PASID, or takes it away. It goes with the PASID.
    ///
    /// # Errors
    /// [`IoasidError::NotFound`] (ENOENT), [`IoasidError::NotOwner`] (EACCES).
    pub fn set_data(&self, pasid: HostPasid, data: Option<Data>) -> Result<(), IoasidError> {
        let Handle { shared, id, tenant } = &*self.handle;
        shared.with(|state| state.set_data(*id, *tenant, pasid, data))
    }

    /// Takes a reference to a PASID.
    ///
    /// # Errors
    /// [`IoasidError::NotFound`] (ENOENT), [`IoasidError::NotOwner`] (EACCES),
    /// [`IoasidError::FreePending`] (EBUSY) once it was freed.
    pub fn hold(&self, pasid: HostPasid) -> Result<Hold, IoasidError> {
        let Handle { shared, id, tenant } = &*self.handle;
        shared.ask(*tenant, Request::Hold, |state| {
            state.get(*id, *tenant, pasid)
        })?;
        Ok(Hold::adopt(Arc::clone(shared), pasid, *tenant))
    }

    /// Pairs a number of the guest with a PASID of this set. Both are in one pair at most.
    ///
    /// # Errors
    /// [`IoasidError::AlreadyPaired`] (EINVAL), and those of [`PasidSet::hold`].
    pub fn attach_guest(&self, guest: GuestPasid, host: HostPasid) -> Result<(), IoasidError> {
        let Handle { shared, id, tenant } = &*self.handle;
        shared.ask(*tenant, Request::Pair, |state| {
            state.attach_guest(*id, *tenant, guest, host)
        })
    }

    /// Ends a pair and says which PASID was in it. The PASID stays allocated.
    ///
    /// # Errors
    /// [`IoasidError::GuestNotFound`] (ENOENT), [`IoasidError::Closed`].
    pub fn detach_guest(&self, guest: GuestPasid) -> Result<HostPasid, IoasidError> {
        let Handle { shared, id, tenant } = &*self.handle;
        shared.with(|state| state.detach_guest(*id, *tenant, guest))
    }

    /// Takes a reference to the PASID that a guest's number is paired with.
    ///
    /// # Errors
    /// [`IoasidError::GuestNotFound`] (ENOENT), [`IoasidError::Closed`].
    pub fn find_guest(&self, guest: GuestPasid) -> Result<Hold, IoasidError> {
        let Handle { shared, id, tenant } = &*self.handle;
        let pasid = shared.with(|state| {
            let pasid = state.host_of(*id, *tenant, guest)?;
            state.get(*id, *tenant, pasid).map(|()| pasid)
        })?;
        Ok(Hold::adopt(Arc::clone(shared), pasid, *tenant))
    }

    /// What the guest calls a PASID of this set, or called it before it was freed.
    #[must_use]
    pub fn guest_of(&self, host: HostPasid) -> Option<GuestPasid> {
        let Handle { shared, id, .. } = &*self.handle;
        shared.lock().guest_of(*id, host)
    }

    /// Tells a listener of every transition of this set's PASIDs from now on, until the subscription
    /// is dropped. A listener that keeps a handle of the set keeps the set open.
    pub fn listen(&self, priority: Priority, listener: Arc<dyn Listener>) -> Subscription {
        let Handle { shared, id, .. } = &*self.handle;
        let (weak, scope) = (Arc::downgrade(shared), Scope::Set(*id));
        shared.with(|state| state.outbox.subscribe(weak, scope, priority, listener))
    }

    /// Frees everything and takes nothing more; the quota goes back to the host with the last hold.
    pub fn close(&self) {
        let Handle { shared, id, tenant } = &*self.handle;
        shared.with(|state| state.close(*id, *tenant));
    }
}
