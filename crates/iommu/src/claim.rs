use std::collections::BTreeMap;
use std::sync::Arc;

use palisade_units::{Bdf, TenantId};

use crate::audit::Numbering;
use crate::function::Function;
use crate::{IommuError, SliceOwner};

/// How a function is given to tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// One tenant has all of it and programs PASIDs as it likes.
    Exclusive,
    /// Tenants have mediated devices on it; every tag is a host PASID.
    Mediated,
}

impl core::fmt::Display for Sharing {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Exclusive => "exclusively",
            Self::Mediated => "by mediated devices",
        })
    }
}

/// Who has a claim on a function.
#[derive(Debug, Default)]
pub(crate) enum Claims {
    #[default]
    Idle,
    Exclusive(TenantId),
    /// With the number of claims of each tenant, never 0.
    Mediated(BTreeMap<TenantId, u32>),
}

/// What is left of a tenant's claims when one was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Released {
    OthersOfTheTenant,
    LastOfTheTenant,
}

impl Claims {
    fn holder(&self) -> Option<(TenantId, Sharing)> {
        match self {
            Self::Idle => None,
            Self::Exclusive(tenant) => Some((*tenant, Sharing::Exclusive)),
            Self::Mediated(tenants) => Some((*tenants.keys().next()?, Sharing::Mediated)),
        }
    }

    /// Whose numbers the function's tags are.
    pub(crate) fn numbering(&self) -> Numbering {
        match self {
            Self::Idle => Numbering::Nobodys,
            Self::Exclusive(tenant) => Numbering::Owners(*tenant),
            Self::Mediated(_) => Numbering::Hosts,
        }
    }

    /// How the function is shared, where this tenant may bind on it.
    pub(crate) fn sharing_for(&self, tenant: TenantId) -> Option<Sharing> {
        match self {
            Self::Exclusive(holder) if *holder == tenant => Some(Sharing::Exclusive),
            Self::Mediated(tenants) if tenants.contains_key(&tenant) => Some(Sharing::Mediated),
            _ => None,
        }
    }

    pub(crate) fn take(
        &mut self,
        bdf: Bdf,
        tenant: TenantId,
        sharing: Sharing,
    ) -> Result<(), IommuError> {
        if let (Self::Mediated(tenants), Sharing::Mediated) = (&mut *self, sharing) {
            *tenants.entry(tenant).or_insert(0) += 1;
            return Ok(());
        }
        if let Some((holder, sharing)) = self.holder() {
            return Err(IommuError::Busy {
                bdf,
                holder,
                sharing,
            });
        }
        *self = match sharing {
            Sharing::Exclusive => Self::Exclusive(tenant),
            Sharing::Mediated => Self::Mediated(BTreeMap::from([(tenant, 1)])),
        };
        Ok(())
    }

    /// Takes a claim back, after the caller has removed what depended on a tenant's last one.
    pub(crate) fn release(&mut self, tenant: TenantId) {
        if let Self::Mediated(tenants) = self {
            if let Some(count) = tenants.get_mut(&tenant) {
                *count -= 1;
                if *count == 0 {
                    tenants.remove(&tenant);
                }
            }
            if !tenants.is_empty() {
                return;
            }
        }
        *self = Self::Idle;
    }

    pub(crate) fn next_release(&self, tenant: TenantId) -> Released {
        match self {
            Self::Mediated(tenants) if tenants.get(&tenant).is_some_and(|count| *count > 1) => {
                Released::OthersOfTheTenant
            }
            _ => Released::LastOfTheTenant,
        }
    }
}

/// A tenant's right to bind on a function, until dropped.
///
/// When a tenant's last claim on a function goes, so do its entries there: accesses in flight have
/// ended, page requests were answered and caches forget before the drop returns.
pub struct Claim {
    function: Arc<Function>,
    tenant: TenantId,
    sharing: Sharing,
    slice_owner: Option<Arc<SliceOwner>>,
}

impl Claim {
    pub(crate) fn new(function: Arc<Function>, tenant: TenantId, sharing: Sharing) -> Self {
        Self {
            function,
            tenant,
            sharing,
            slice_owner: None,
        }
    }

    /// Names who is told of faults of the tenant's PASIDs that nothing is bound to on this shared
    /// function, until the claim is dropped; in the place of whom it named before. While nobody is
    /// named, such faults go to the host's log.
    ///
    /// # Errors
    /// [`IommuError::Busy`] on an exclusive claim, whose tags are the owner's own numbers
    /// ([`FunctionHandle::set_default_sink`](crate::FunctionHandle::set_default_sink));
    /// [`IommuError::NotClaimed`] where the PASIDs are another tenant's.
    pub fn set_slice_owner(&mut self, owner: SliceOwner) -> Result<(), IommuError> {
        let (bdf, sharing) = (self.function.bdf, self.sharing);
        if sharing == Sharing::Exclusive {
            let holder = self.tenant;
            return Err(IommuError::Busy {
                bdf,
                holder,
                sharing,
            });
        }
        let tenants = [owner.set.tenant(), owner.default.tenant()];
        if let Some(tenant) = tenants.into_iter().find(|tenant| *tenant != self.tenant) {
            return Err(IommuError::NotClaimed { bdf, tenant });
        }
        self.forget_slice_owner();
        let owner = Arc::new(owner);
        self.function.faults.slice_owners.add(&owner);
        self.slice_owner = Some(owner);
        Ok(())
    }

    fn forget_slice_owner(&mut self) {
        if let Some(owner) = self.slice_owner.take() {
            self.function.faults.slice_owners.remove(&owner);
        }
    }

    /// The function.
    #[must_use]
    pub fn bdf(&self) -> Bdf {
        self.function.bdf
    }

    /// Whose claim it is.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// How the function is shared.
    #[must_use]
    pub fn sharing(&self) -> Sharing {
        self.sharing
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.forget_slice_owner();
        self.function.release_claim(self.tenant);
    }
}
