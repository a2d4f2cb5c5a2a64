use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use palisade_ioasid::{Hold, IoasidError, PasidSet};
use palisade_iommu::{Claim, FunctionHandle, LookedUp, MayWait, Sharing, Sink, Space, UserId};
use palisade_memory::GuestMemory;
use palisade_units::{Bdf, GuestPasid, HostPasid, PasidTag};

use crate::binding::Bound;
use crate::outlet::Outlet;
use crate::{SpaceKey, VfioError};

/// What one tenant has of the host. A handle: clones speak of the same tenant.
///
/// Calls may come from any thread. Those that change entries of the platform follow one another, and
/// may wait for accesses in flight; so nothing that the platform calls from within them (the waiter
/// of a page request) may call the container. A unit's [`Sink`] runs outside of them.
#[derive(Clone)]
pub struct Container {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) set: PasidSet,
    pub(crate) outlet: Arc<Outlet>,
    /// Held by whatever changes entries, also while the platform waits. Taken before `state`.
    operations: Mutex<()>,
    /// Never held over a call of the platform.
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) functions: BTreeMap<Bdf, Attached>,
    /// What the guest's allocator took. Each is paired with the guest's number that is the same.
    pub(crate) allocated: BTreeSet<HostPasid>,
    /// What the guest's allocator took on another host, where the number was the same. Here it may be
    /// another.
    pub(crate) adopted: BTreeMap<GuestPasid, HostPasid>,
    /// The pairs that a bind made for a number of the guest's own.
    pub(crate) made: BTreeMap<GuestPasid, HostPasid>,
}

/// A function of the tenant and what is bound on it.
pub(crate) struct Attached {
    pub(crate) endpoint: Arc<Endpoint>,
    /// The right to bind on it.
    pub(crate) claim: Claim,
    /// On the PASID that serves the requests without one.
    pub(crate) default: Hold,
    pub(crate) bound: BTreeMap<SpaceKey, Bound>,
    /// Whether a [`Lease`](crate::lease::Lease) decides what is bound.
    pub(crate) is_leased: bool,
}

/// What of an attached function does not change.
pub(crate) struct Endpoint {
    pub(crate) function: FunctionHandle,
    pub(crate) sharing: Sharing,
    pub(crate) user: UserId,
    pub(crate) guest_bdf: Bdf,
    pub(crate) memory: GuestMemory,
}

impl Endpoint {
    /// How requests of a key are tagged on the host's bus, when `hold` is on the key's PASID.
    pub(crate) fn tag(&self, key: SpaceKey, hold: &Hold) -> Option<PasidTag> {
        match (self.sharing, key) {
            (Sharing::Mediated, _) => Some(hold.pasid().into()),
            (Sharing::Exclusive, SpaceKey::WithoutPasid) => None,
            (Sharing::Exclusive, SpaceKey::Pasid(guest)) => {
                Some(PasidTag::of_exclusive_owner(guest))
            }
        }
    }
}

impl Container {
    /// A container with nothing attached, whose PASIDs come from `set`.
    #[must_use]
    pub fn new(set: PasidSet) -> Self {
        Self {
            inner: Arc::new(Inner {
                set,
                outlet: Arc::default(),
                operations: Mutex::default(),
                state: Mutex::default(),
            }),
        }
    }

    /// The tenant's PASIDs.
    #[must_use]
    pub fn set(&self) -> &PasidSet {
        &self.inner.set
    }

    /// Names the tenant's unit, which from now on gets the faults and page requests of everything that
    /// is bound. Kept weakly: without the unit, faults are dropped and page requests refused.
    pub fn set_sink(&self, sink: Arc<dyn Sink>) {
        self.inner.outlet.set(&sink);
    }

    /// The functions of the tenant, as its guest names them, ascending.
    #[must_use]
    pub fn guest_bdfs(&self) -> Vec<Bdf> {
        self.inner.state().functions.keys().copied().collect()
    }

    /// What is bound on a function; nothing where none is attached.
    #[must_use]
    pub fn bound(&self, guest_bdf: Bdf) -> Vec<(SpaceKey, Space)> {
        let state = self.inner.state();
        let attached = state.functions.get(&guest_bdf);
        let bound = attached.into_iter().flat_map(|attached| &attached.bound);
        bound
            .map(|(key, bound)| (*key, bound.terms.space))
            .collect()
    }

    /// The PASID of the host for a number that the guest gives to one of its functions. It is this
    /// tenant's, whatever the guest wrote. One that is not known is looked for by the tenant's unit, if that
    /// is not told of new entries; so whatever the unit may hold is not held by the caller.
    ///
    /// # Errors
    /// [`VfioError::NotAttached`] (ENODEV); an unknown number is ENOENT.
    pub fn translate(&self, guest_bdf: Bdf, guest: GuestPasid) -> Result<Hold, VfioError> {
        self.inner.endpoint(guest_bdf)?;
        match self.inner.set.find_guest(guest) {
            Err(IoasidError::GuestNotFound { .. })
                if self
                    .inner
                    .outlet
                    .look_up(guest_bdf, Some(guest), MayWait::Yes)
                    == LookedUp::Bound => {}
            found => return Ok(found?),
        }
        Ok(self.inner.set.find_guest(guest)?)
    }

    /// The PASID of the host that serves a function's requests without a PASID.
    ///
    /// # Errors
    /// [`VfioError::NotAttached`] (ENODEV).
    pub fn default_hold(&self, guest_bdf: Bdf) -> Result<Hold, VfioError> {
        self.inner.default_hold(guest_bdf)
    }

    /// The tenant's client is gone: unbinds, drains and frees everything that it took. Its functions
    /// stay attached as they were at first, ready for the next client.
    pub fn close(&self) {
        let inner = &self.inner;
        let _operation = inner.operation();
        let endpoints = inner.endpoints();
        for endpoint in &endpoints {
            inner.release_all(endpoint);
        }
        let (allocated, adopted, made) = {
            let mut state = inner.state();
            (
                std::mem::take(&mut state.allocated),
                std::mem::take(&mut state.adopted),
                std::mem::take(&mut state.made),
            )
        };
        let paired = adopted.into_values().chain(made.into_values());
        for pasid in allocated.into_iter().chain(paired) {
            inner.give_back(pasid);
        }
        for endpoint in &endpoints {
            inner.pass_through_again(endpoint);
        }
    }
}

impl Inner {
    pub(crate) fn operation(&self) -> MutexGuard<'_, ()> {
        self.operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn endpoint(&self, guest_bdf: Bdf) -> Result<Arc<Endpoint>, VfioError> {
        let state = self.state();
        let attached = state.functions.get(&guest_bdf);
        let attached = attached.ok_or(VfioError::NotAttached { bdf: guest_bdf })?;
        Ok(Arc::clone(&attached.endpoint))
    }

    pub(crate) fn default_hold(&self, guest_bdf: Bdf) -> Result<Hold, VfioError> {
        let state = self.state();
        let attached = state.functions.get(&guest_bdf);
        let attached = attached.ok_or(VfioError::NotAttached { bdf: guest_bdf })?;
        Ok(attached.default.clone())
    }

    pub(crate) fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        let state = self.state();
        let attached = state.functions.values();
        attached.map(|one| Arc::clone(&one.endpoint)).collect()
    }

    /// Those that no lease is of.
    pub(crate) fn free_endpoints(&self) -> Vec<Arc<Endpoint>> {
        let state = self.state();
        let free = state.functions.values().filter(|one| !one.is_leased);
        free.map(|one| Arc::clone(&one.endpoint)).collect()
    }

    /// Frees a PASID of this container, of which the set may know already.
    pub(crate) fn give_back(&self, pasid: HostPasid) {
        if let Err(error) = self.set.free(pasid) {
            tracing::debug!(%pasid, %error, "a PASID was gone already");
        }
    }
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Container({})", self.inner.set.tenant())
    }
}
