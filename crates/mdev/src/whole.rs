use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use palisade_dsa::{Direct, DsaFunction, Switch};
use palisade_iommu::{PasidEnable, Sharing};
use palisade_memory::GuestMemory;
use palisade_units::{Bdf, TenantId};
use palisade_vfio::Container;

use crate::{Assigned, MdevError, Parent};

/// The whole of a parent, set aside for one tenant until dropped: while it is, no slice is made of the
/// parent and nobody else gets it, whether the tenant uses it or not (R20).
pub struct Whole {
    parent: Arc<Parent>,
    tenant: TenantId,
    usage: Mutex<Usage>,
}

/// Whether the tenant has the function at the moment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Usage {
    Unused,
    Assigned,
}

impl Whole {
    /// To be called for who has marked the parent as this tenant's.
    pub(crate) fn of_claimed(parent: Arc<Parent>, tenant: TenantId) -> Arc<Self> {
        Arc::new(Self {
            parent,
            tenant,
            usage: Mutex::new(Usage::Unused),
        })
    }

    /// The parent.
    #[must_use]
    pub const fn parent(&self) -> &Arc<Parent> {
        &self.parent
    }

    /// For whom it is set aside.
    #[must_use]
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Gives the whole function to its tenant. `memory` is what its connection will share.
    ///
    /// # Errors
    /// [`MdevError::HeldExclusively`] (EBUSY) for another tenant, and for the same one while it has the
    /// function already; those of [`Container::attach`].
    pub fn assign(
        self: &Arc<Self>,
        container: &Container,
        guest_bdf: Bdf,
        memory: GuestMemory,
    ) -> Result<Assigned, MdevError> {
        let use_of_all = Use::take(self, container.set().tenant())?;
        let function = self.parent.function().clone();
        let attachment = container.attach(guest_bdf, function, Sharing::Exclusive, memory)?;
        let lanes = self.parent.lanes()?;
        let shape = self.parent.function_shape(Switch::On, Switch::On);
        let policy = Direct::new(self.parent.function().clone());
        let function = Arc::new(DsaFunction::new(policy, lanes, shape)?);
        Ok(Assigned::new(function, attachment, use_of_all))
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        self.parent.end_claim();
    }
}

/// The tenant's use of the whole parent, until dropped.
struct Use {
    whole: Arc<Whole>,
}

impl Use {
    fn take(whole: &Arc<Whole>, tenant: TenantId) -> Result<Self, MdevError> {
        let mut usage = whole.usage();
        if tenant != whole.tenant || *usage == Usage::Assigned {
            return Err(MdevError::HeldExclusively {
                parent: whole.parent.name().to_owned(),
                holder: whole.tenant,
            });
        }
        *usage = Usage::Assigned;
        drop(usage);
        Ok(Self {
            whole: Arc::clone(whole),
        })
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        // What this owner turned off is on for mediated devices.
        self.whole
            .parent
            .function()
            .set_pasid_enabled(PasidEnable::On);
        *self.whole.usage() = Usage::Unused;
    }
}
