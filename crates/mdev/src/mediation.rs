use std::sync::Arc;

use palisade_dsa::{EntryPoint, Identity, PasidPolicy, PasidRefused};
use palisade_ioasid::{Hold, IoasidError, PasidRange, PasidSet};
use palisade_iommu::{Cached, PasidEnable};
use palisade_units::{Bdf, GuestPasid, PasidTag};
use palisade_vfio::{Container, GuestScope};

use crate::{Forwarded, ForwardedLog};

/// The policy of a slice: a guest's PASID is turned into the host's of the same tenant, or refused; then
/// nothing reaches the parent (R19). Where the guest has PASIDs off, requests carry the PASID of the
/// slice's default address space, so that no request on the parent is without one (R71).
pub struct Mediation {
    container: Container,
    guest_bdf: Bdf,
    log: Arc<ForwardedLog>,
}

impl Mediation {
    pub(crate) const fn new(container: Container, guest_bdf: Bdf, log: Arc<ForwardedLog>) -> Self {
        Self {
            container,
            guest_bdf,
            log,
        }
    }

    fn forwarded(&self, guest: Option<GuestPasid>, hold: Hold, at: EntryPoint) -> Identity {
        let host = hold.pasid();
        self.log.forward(Forwarded {
            tenant: hold.tenant(),
            guest,
            host,
            at,
        });
        Identity {
            tag: Some(host.into()),
            hold: Some(hold),
        }
    }
}

/// A PASID of a set that was freed and is held still. Its faults are told under the guest's number, unless that means
/// something by now.
fn freed(set: &PasidSet, guest: GuestPasid) -> Result<Hold, IoasidError> {
    let host = set.alloc(PasidRange::ALL)?;
    let hold = set.hold(host);
    let named = set.attach_guest(guest, host);
    set.free(host)?;
    match named {
        Ok(()) | Err(IoasidError::AlreadyPaired { .. }) => hold,
        Err(error) => Err(error),
    }
}

impl PasidPolicy for Mediation {
    fn resolve(&self, pasid: Option<GuestPasid>, at: EntryPoint) -> Result<Identity, PasidRefused> {
        let hold = match pasid {
            Some(guest) => self.container.translate(self.guest_bdf, guest),
            None => self.container.default_hold(self.guest_bdf),
        };
        let Ok(hold) = hold else {
            self.log.refuse();
            return Err(PasidRefused);
        };
        Ok(self.forwarded(pasid, hold, at))
    }

    fn meaning_now(&self, pasid: GuestPasid) -> Option<PasidTag> {
        let hold = self.container.set().find_guest(pasid).ok()?;
        Some(hold.pasid().into())
    }

    /// A PASID of the tenant's own that is freed at once: it is bound nowhere, and while the function holds it nobody gets
    /// it. That is what the driver had left on the host where it freed it.
    fn resolve_stale(&self, pasid: GuestPasid, at: EntryPoint) -> Result<Identity, PasidRefused> {
        let hold = freed(self.container.set(), pasid).map_err(|_| PasidRefused)?;
        Ok(self.forwarded(Some(pasid), hold, at))
    }

    /// The slice's own bit decides what its registers take; the parent's capability serves other tenants too.
    fn set_pasid_enabled(&self, _enable: PasidEnable) {}

    fn forget_translations(&self) {
        self.container
            .invalidate(self.guest_bdf, GuestScope::All, Cached::InDevices);
    }
}
