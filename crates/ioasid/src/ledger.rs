//! Who holds which PASID, since when, bound where, with how many references.

use std::fmt;

use palisade_units::{GuestPasid, HostPasid, TenantId};

use crate::sets::Set;
use crate::state::State;
use crate::{Binding, Timestamp};

/// One PASID that is out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// The number.
    pub pasid: HostPasid,
    /// Whose it is.
    pub tenant: TenantId,
    /// What the tenant's guest calls it, or called it before it was freed.
    pub guest: Option<GuestPasid>,
    /// When it was allocated.
    pub since: Timestamp,
    /// How many holds are on it.
    pub references: u32,
    /// In which functions' tables it is, as far as that was told with
    /// [`Hold::bind`](crate::Hold::bind), by function.
    pub bindings: Vec<Binding>,
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

impl State {
    /// Every PASID that is out, in no order.
    pub(crate) fn ledger(&self) -> Vec<LedgerEntry> {
        let owned = self.sets.iter().flat_map(Set::owned).copied();
        owned.filter_map(|pasid| self.entry(pasid)).collect()
    }

    fn entry(&self, pasid: HostPasid) -> Option<LedgerEntry> {
        let (owner, label) = (self.records.owner(pasid), self.labels.at(pasid));
        Some(LedgerEntry {
            pasid,
            tenant: owner.tenant()?,
            guest: label.guest(),
            since: self.records.since(pasid),
            references: self.records.references(pasid),
            bindings: self.bindings.of(pasid, label),
            state: self.life(owner, pasid),
        })
    }
}
