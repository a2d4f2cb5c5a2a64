use std::sync::Arc;

use palisade_dsa::{EntryPoint, Identity, PasidPolicy, PasidRefused};
use palisade_iommu::{Cached, PasidEnable};
use palisade_units::{Bdf, GuestPasid};
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
        let host = hold.pasid();
        self.log.forward(Forwarded {
            tenant: hold.tenant(),
            guest: pasid,
            host,
            at,
        });
        Ok(Identity {
            tag: Some(host.into()),
            hold: Some(hold),
        })
    }

    /// The slice's own bit decides what its registers take; the parent's capability serves other tenants too.
    fn set_pasid_enabled(&self, _enable: PasidEnable) {}

    fn forget_translations(&self) {
        self.container
            .invalidate(self.guest_bdf, GuestScope::All, Cached::InDevices);
    }
}
