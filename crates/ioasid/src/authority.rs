use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use palisade_units::{GuestPasid, HostPasid, TenantId};

use crate::state::State;
use crate::{IoasidError, PasidRange, PasidSet, Quota};

pub(crate) struct Shared(Mutex<State>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // No operation leaves the state half changed, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The host's one namespace of PASIDs. A handle: clones speak of the same namespace.
#[derive(Clone)]
pub struct Authority {
    shared: Arc<Shared>,
}

impl Authority {
    /// A namespace of 2^20 PASIDs of which 0 and those in `reserved` are never given out.
    #[must_use]
    pub fn new(reserved: &[PasidRange]) -> Self {
        Self {
            shared: Arc::new(Shared(Mutex::new(State::new(reserved)))),
        }
    }

    /// Opens the one set of a tenant and reserves its quota from what the host has.
    ///
    /// # Errors
    /// [`IoasidError::Exists`] (EEXIST) when the tenant has a set, also one that was closed and
    /// still has PASIDs held; [`IoasidError::NoCapacity`] (ENOSPC) beyond what is left.
    pub fn create_set(&self, tenant: TenantId, quota: Quota) -> Result<PasidSet, IoasidError> {
        let id = self.shared.lock().create_set(tenant, quota)?;
        Ok(PasidSet::new(Arc::clone(&self.shared), id, tenant))
    }

    /// How many PASIDs are out, those that are free-pending among them.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.shared.lock().outstanding_of_all()
    }

    /// How many PASIDs are in no set's quota.
    #[must_use]
    pub fn unreserved(&self) -> u32 {
        self.shared.lock().unreserved()
    }

    /// Every PASID that is out, in ascending order.
    #[must_use]
    pub fn ledger(&self) -> Vec<LedgerEntry> {
        self.shared.lock().ledger()
    }

    /// Whose PASID this is. One that is free-pending still belongs to who freed it.
    #[must_use]
    pub fn owner_of(&self, pasid: HostPasid) -> Option<TenantId> {
        self.shared.lock().owner_of(pasid)
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// One PASID that is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// The number.
    pub pasid: HostPasid,
    /// Whose it is.
    pub tenant: TenantId,
    /// What the tenant's guest calls it, or called it before it was freed.
    pub guest: Option<GuestPasid>,
    /// How many holds are on it.
    pub references: u32,
    /// Where it is in its life.
    pub state: PasidState,
}

/// Where a PASID that is out is in its life. One that is not out is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasidState {
    /// Allocated, nobody holds it.
    Idle,
    /// Held.
    Active,
    /// Freed while held: no new hold, and no reuse before the last one goes.
    FreePending,
}

impl fmt::Display for PasidState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Idle => "idle",
            Self::Active => "active",
            Self::FreePending => "free-pending",
        })
    }
}
