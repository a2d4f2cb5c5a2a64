use std::collections::BTreeMap;
use std::sync::Arc;

use palisade_units::{Bdf, TenantId};

use crate::IommuError;
use crate::function::Function;

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
}

impl Claim {
    pub(crate) fn new(function: Arc<Function>, tenant: TenantId, sharing: Sharing) -> Self {
        Self {
            function,
            tenant,
            sharing,
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
        self.function.release_claim(self.tenant);
    }
}
