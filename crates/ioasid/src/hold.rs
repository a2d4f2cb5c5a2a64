use std::sync::Arc;

use palisade_units::{HostPasid, TenantId};

use crate::authority::Shared;

/// A counted reference to a PASID of one tenant. While one lives, the number is not given out again.
///
/// A clone is one more reference, allowed on a free-pending PASID too: what is in use may be passed
/// on until it is clear. Dropping gives the reference back.
pub struct Hold {
    shared: Arc<Shared>,
    pasid: HostPasid,
    tenant: TenantId,
}

impl Hold {
    /// Takes over a reference that was counted already.
    pub(crate) fn adopt(shared: Arc<Shared>, pasid: HostPasid, tenant: TenantId) -> Self {
        Self {
            shared,
            pasid,
            tenant,
        }
    }

    /// The PASID that is held.
    #[must_use]
    pub const fn pasid(&self) -> HostPasid {
        self.pasid
    }

    /// Whose PASID it is.
    #[must_use]
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }
}

impl Clone for Hold {
    fn clone(&self) -> Self {
        self.shared.lock().get_again(self.pasid);
        Self::adopt(Arc::clone(&self.shared), self.pasid, self.tenant)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.lock().put(self.pasid);
    }
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hold({} of {})", self.pasid, self.tenant)
    }
}
