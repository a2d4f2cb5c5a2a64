use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use palisade_ioasid::PasidRange;
use palisade_iommu::{Cached, FunctionHandle, Sharing, Sink, SliceOwner, UnknownTags, UserId};
use palisade_memory::{GuestMemory, MapError};
use palisade_units::{Bdf, Gpa};

use crate::container::{Attached, Endpoint, Inner};
use crate::{Container, VfioError};

/// Every attachment of every container on the host is a user of its own.
static NEXT_USER: AtomicU64 = AtomicU64::new(0);

/// A function that is attached to a tenant, until it is detached or dropped.
pub struct Attachment {
    inner: Arc<Inner>,
    endpoint: Arc<Endpoint>,
}

impl Container {
    /// Gives a function, or with [`Sharing::Mediated`] a slice of it, to the tenant. `memory` is what
    /// its connection shares: where the guest's tables stand and where every access ends.
    ///
    /// A PASID of the tenant's set serves requests without one. They pass through to the tenant's
    /// memory until the unit binds them to something else.
    ///
    /// # Errors
    /// [`VfioError::AlreadyAttached`] (EEXIST), EBUSY where the function belongs to somebody else or is
    /// shared in the other way, ENOSPC beyond the quota.
    pub fn attach(
        &self,
        guest_bdf: Bdf,
        function: FunctionHandle,
        sharing: Sharing,
        memory: GuestMemory,
    ) -> Result<Attachment, VfioError> {
        let inner = &self.inner;
        let _operation = inner.operation();
        if inner.endpoint(guest_bdf).is_ok() {
            return Err(VfioError::AlreadyAttached { bdf: guest_bdf });
        }
        let mut claim = function.claim(inner.set.tenant(), sharing)?;
        let pasid = inner.set.alloc(PasidRange::ALL)?;
        let default = inner
            .set
            .hold(pasid)
            .inspect_err(|_| inner.give_back(pasid))?;
        let sink = Arc::clone(&inner.outlet) as Arc<dyn Sink>;
        if sharing == Sharing::Mediated {
            let owner = SliceOwner {
                set: inner.set.clone(),
                default: default.clone(),
                sink: Arc::clone(&sink),
                guest_bdf,
            };
            claim
                .set_slice_owner(owner)
                .inspect_err(|_| inner.give_back(pasid))?;
        }
        let endpoint = Arc::new(Endpoint {
            function,
            sharing,
            user: UserId(NEXT_USER.fetch_add(1, Ordering::Relaxed)),
            guest_bdf,
            memory,
        });
        let attached = Attached {
            endpoint: Arc::clone(&endpoint),
            claim,
            default,
            bound: BTreeMap::new(),
            is_leased: false,
        };
        inner.state().functions.insert(guest_bdf, attached);
        if sharing == Sharing::Exclusive {
            let names = UnknownTags::AsGuestPasid;
            endpoint
                .function
                .set_default_sink(Some(sink), guest_bdf, names);
        }
        if let Err(error) = inner.bind_pass_through(&endpoint) {
            inner.detach(&endpoint);
            return Err(error);
        }
        Ok(Attachment {
            inner: Arc::clone(inner),
            endpoint,
        })
    }
}

impl Inner {
    /// Takes a function back: everything on it is unbound and drained, and its default PASID freed,
    /// before its claim goes. The caller is in an operation.
    fn detach(&self, endpoint: &Endpoint) {
        if !self.is_attached(endpoint) {
            return;
        }
        self.release_all(endpoint);
        let attached = self.state().functions.remove(&endpoint.guest_bdf);
        if let Some(Attached { claim, default, .. }) = attached {
            drop(claim);
            self.give_back(default.pasid());
        }
    }

    pub(crate) fn is_attached(&self, endpoint: &Endpoint) -> bool {
        let state = self.state();
        let attached = state.functions.get(&endpoint.guest_bdf);
        attached.is_some_and(|one| one.endpoint.user == endpoint.user)
    }
}

impl Attachment {
    /// The function's place in the guest.
    #[must_use]
    pub fn guest_bdf(&self) -> Bdf {
        self.endpoint.guest_bdf
    }

    /// The function of the host.
    #[must_use]
    pub fn function(&self) -> &FunctionHandle {
        &self.endpoint.function
    }

    /// What the function's connection shares. Memory may be mapped there directly; it is removed by
    /// [`Attachment::unmap`].
    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.endpoint.memory
    }

    /// Removes memory. When this returns, no access of the function reaches it, by whatever
    /// translation.
    ///
    /// # Errors
    /// Those of [`GuestMemory::unmap`].
    pub fn unmap(&self, at: Gpa, len_bytes: u64) -> Result<(), MapError> {
        self.endpoint.memory.unmap(at, len_bytes)?;
        self.forget();
        Ok(())
    }

    /// Removes all memory, as [`Attachment::unmap`].
    pub fn unmap_all(&self) {
        self.endpoint.memory.unmap_all();
        self.forget();
    }

    /// Makes the function forget every translation, for who has removed memory.
    pub(crate) fn forget(&self) {
        let _operation = self.inner.operation();
        if self.inner.is_attached(&self.endpoint) {
            self.inner.forget_all(&self.endpoint, Cached::Everywhere);
        }
    }

    /// Takes the function back: everything on it is unbound and drained when this returns. Detaching
    /// again does nothing.
    pub fn detach(&self) {
        let _operation = self.inner.operation();
        self.inner.detach(&self.endpoint);
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.detach();
    }
}

impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Attachment({} at guest {})",
            self.endpoint.function.bdf(),
            self.endpoint.guest_bdf
        )
    }
}
