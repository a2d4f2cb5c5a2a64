use std::sync::Arc;

use palisade_iommu::Cached;
use palisade_units::Bdf;

use crate::container::{Endpoint, Inner};
use crate::{Container, SpaceKey, VfioError};

/// A function that somebody else attached, in the hands of who decides alone what its requests reach.
///
/// The attachment stays its owner's: when that ends, the lease is of nothing. When the lease goes, the function is as it was
/// when it was attached.
pub(crate) struct Lease {
    inner: Arc<Inner>,
    endpoint: Arc<Endpoint>,
}

impl Container {
    /// Takes a function over. From now on its requests reach nothing but what is bound by [`Container::bind_over`];
    /// what is bound on every function passes it over.
    ///
    /// # Errors
    /// [`VfioError::NotAttached`] (ENODEV); [`VfioError::InUse`] (EBUSY) where somebody has it already, or has one of
    /// its PASIDs bound.
    pub(crate) fn lease(&self, guest_bdf: Bdf) -> Result<Lease, VfioError> {
        let inner = &self.inner;
        let _operation = inner.operation();
        let endpoint = inner.endpoint(guest_bdf)?;
        {
            let mut state = inner.state();
            let attached = state.functions.get_mut(&guest_bdf);
            let attached = attached.ok_or(VfioError::NotAttached { bdf: guest_bdf })?;
            let is_bound = |key: &SpaceKey| *key != SpaceKey::WithoutPasid;
            if attached.is_leased || attached.bound.keys().any(is_bound) {
                return Err(VfioError::InUse { bdf: guest_bdf });
            }
            attached.is_leased = true;
        }
        inner.release(&endpoint, SpaceKey::WithoutPasid);
        Ok(Lease {
            inner: Arc::clone(inner),
            endpoint,
        })
    }
}

impl Lease {
    /// Whether the function is attached still. One that was attached anew at its place is another.
    pub(crate) fn is_attached(&self) -> bool {
        self.inner.is_attached(&self.endpoint)
    }

    /// Makes the function forget every translation, for who has removed memory.
    pub(crate) fn forget(&self) {
        let _operation = self.inner.operation();
        if self.is_attached() {
            self.inner.forget_all(&self.endpoint, Cached::Everywhere);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _operation = self.inner.operation();
        if !self.is_attached() {
            return;
        }
        let endpoint = &self.endpoint;
        self.inner.release_all(endpoint);
        if let Some(attached) = self.inner.state().functions.get_mut(&endpoint.guest_bdf) {
            attached.is_leased = false;
        }
        self.inner.pass_through_again(endpoint);
    }
}
