use std::sync::{Arc, Mutex};

use palisade_ioasid::{Hold, PasidSet};
use palisade_units::{Bdf, HostPasid, PasidTag};

use crate::Sink;
use crate::error::locked;
use crate::faults::Addressee;

/// The owner of one mediated device on a function that tenants share, for faults of requests that
/// no entry serves though their tag is the owner's.
///
/// Whose a tag is, and what the guest calls it, is asked of the set when a fault is reported: nothing
/// is kept for each tag, and a number that was given to somebody else is theirs at once.
pub struct SliceOwner {
    /// The tenant's PASIDs. A tag is told of under the number that the guest paired with it, also
    /// after it was freed, for as long as something still holds it.
    pub set: PasidSet,
    /// On the PASID by which the host tags the device's requests without one.
    pub default: Hold,
    /// Who is told.
    pub sink: Arc<dyn Sink>,
    /// The device, as the guest sees it.
    pub guest_bdf: Bdf,
}

impl SliceOwner {
    fn addressee(&self, pasid: HostPasid) -> Option<Addressee> {
        let guest = if pasid == self.default.pasid() {
            None
        } else {
            Some(self.set.guest_of(pasid)?)
        };
        Some(Addressee::Tenant {
            sink: Arc::clone(&self.sink),
            bdf: self.guest_bdf,
            pasid: guest,
        })
    }
}

/// The owners of the mediated devices of one function, in the order in which they came: as many as it
/// has claims at most. No access that is served looks here.
#[derive(Default)]
pub(crate) struct SliceOwners {
    owners: Mutex<Vec<Arc<SliceOwner>>>,
}

impl SliceOwners {
    pub(crate) fn add(&self, owner: &Arc<SliceOwner>) {
        locked(&self.owners).push(Arc::clone(owner));
    }

    /// Tells this owner of nothing more. The caller drops the last reference, without a lock.
    pub(crate) fn remove(&self, owner: &Arc<SliceOwner>) {
        locked(&self.owners).retain(|other| !Arc::ptr_eq(other, owner));
    }

    /// Who is told of faults of a tag of a shared function, where it is one of an owner's. Of a PASID
    /// that several devices of one tenant may use, the first of them: a request does not say more.
    pub(crate) fn addressee(&self, tag: PasidTag) -> Option<Addressee> {
        self.addressees(tag).into_iter().next()
    }

    /// All of them.
    pub(crate) fn addressees(&self, tag: PasidTag) -> Vec<Addressee> {
        let Ok(pasid) = HostPasid::new(tag.get()) else {
            return Vec::new();
        };
        let owners = locked(&self.owners);
        let of_pasid = owners.iter().filter_map(|owner| owner.addressee(pasid));
        of_pasid.collect()
    }
}
