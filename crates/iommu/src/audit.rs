//! What the host's own audit learns of faults: each one, in the host's names.

use std::sync::Mutex;

use palisade_ioasid::{Authority, FaultCode};
use palisade_units::{Bdf, HostPasid, PasidTag, TenantId};

use crate::FaultReason;
use crate::entry::User;
use crate::error::locked;

/// Whose numbers the tags of a function are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Numbering {
    /// Nobody has the function.
    #[default]
    Nobodys,
    /// An exclusive owner's, who chooses them.
    Owners(TenantId),
    /// The host's, on a function that tenants share.
    Hosts,
}

/// Whose a request was. Found while it is in flight: once it is not, the PASID may be given to
/// somebody else, whose fault it was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    tenant: Option<TenantId>,
    /// None for a request without a PASID that no entry serves.
    pasid: Option<HostPasid>,
}

impl Origin {
    /// Of a request that an entry serves: the PASID is the entry's, whatever the tag was.
    pub(crate) fn of(user: &User) -> Self {
        Self {
            tenant: Some(user.hold.tenant()),
            pasid: Some(user.hold.pasid()),
        }
    }
}

/// The way of one function's faults into the authority's events.
pub(crate) struct Audit {
    authority: Option<Authority>,
    /// Follows the function's claims, to be read without their lock: accesses drain under that one.
    numbering: Mutex<Numbering>,
}

impl Audit {
    pub(crate) fn by(authority: Option<Authority>) -> Self {
        Self {
            authority,
            numbering: Mutex::default(),
        }
    }

    pub(crate) fn set_numbering(&self, numbering: Numbering) {
        *locked(&self.numbering) = numbering;
    }

    /// Whose a request was that no entry serves. Its PASID is the number in its tag, which an
    /// exclusive owner may have made up.
    pub(crate) fn origin_of_unbound(&self, tag: Option<PasidTag>) -> Origin {
        let pasid = tag.and_then(|tag| HostPasid::new(tag.get()).ok());
        let tenant = match *locked(&self.numbering) {
            Numbering::Nobodys => None,
            Numbering::Owners(tenant) => Some(tenant),
            Numbering::Hosts => pasid.and_then(|pasid| self.authority.as_ref()?.owner_of(pasid)),
        };
        Origin { tenant, pasid }
    }

    /// Makes a fault one event. To be called with no lock held and no access in flight.
    ///
    /// Costs one short turn at the authority's log, which is bounded, and calls no listener.
    pub(crate) fn note(&self, place: Bdf, origin: Origin, reason: FaultReason) {
        let Some(authority) = &self.authority else {
            return;
        };
        // 0 is never given out: it stands for requests without a PASID.
        let nobodys = HostPasid::new(0);
        let Ok(pasid) = origin.pasid.map_or(nobodys, Ok) else {
            return;
        };
        let code = FaultCode::new(reason.code());
        match (origin.tenant, nobodys) {
            (Some(tenant), _) => authority.record_fault_of(tenant, pasid, place, code),
            // Nobody has the function, so its numbers are not the host's: rather no number than that of
            // a tenant who had no part in this.
            (None, Ok(nobodys)) if authority.owner_of(pasid).is_some() => {
                authority.record_fault(nobodys, place, code);
            }
            (None, _) => authority.record_fault(pasid, place, code),
        }
    }
}
