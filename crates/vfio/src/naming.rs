//! PASIDs that a client took and names itself: who reads no guest's tables says with each bind what the guest
//! calls the PASID.

use palisade_units::{GuestPasid, HostPasid};

use crate::bind_all::Wanted;
use crate::container::Inner;
use crate::pasids::guest_name;
use crate::{Container, SpaceKey, Terms, VfioError};

/// All of these are about what [`Container::alloc_pasid`] gave; what the host took for the tenant by itself is
/// unknown to them.
impl Container {
    /// Binds a PASID on every function, as [`Container::bind_all`], under the name that the guest has for it.
    /// The check that the client took it, and the bind, are one step: what another thread frees meanwhile is
    /// either bound before, and unbound by the free, or refused.
    pub(crate) fn bind_allocated(
        &self,
        pasid: HostPasid,
        name: GuestPasid,
        terms: Terms,
    ) -> Result<(), VfioError> {
        let key = SpaceKey::Pasid(name);
        key.check()?;
        let inner = &self.inner;
        let _operation = inner.operation();
        inner.check_allocated(pasid)?;
        let before = inner.set.guest_of(pasid);
        inner.rename(pasid, before, name)?;
        let outcome = inner.bind_all(Wanted { key, terms }, |_| ());
        if outcome.is_err() && before != Some(name) {
            inner.name_as_before(pasid, before);
        }
        outcome
    }

    /// Unbinds a PASID from every function. It has its own number as its name again.
    pub(crate) fn unbind_allocated(&self, pasid: HostPasid) -> Result<(), VfioError> {
        let inner = &self.inner;
        let _operation = inner.operation();
        inner.check_allocated(pasid)?;
        let name = inner.set.guest_of(pasid);
        let key = name.map(SpaceKey::Pasid);
        let key = key.ok_or(VfioError::NotBoundAnywhere { pasid })?;
        let mut was_bound = false;
        for endpoint in inner.endpoints() {
            was_bound |= inner.release(&endpoint, key);
        }
        if !was_bound {
            return Err(VfioError::NotBoundAnywhere { pasid });
        }
        if name != guest_name(pasid) {
            inner.name_as_before(pasid, guest_name(pasid));
        }
        Ok(())
    }

    /// What the guest calls a PASID that the client took; nothing where its own number is another PASID's name.
    pub(crate) fn name_of_allocated(
        &self,
        pasid: HostPasid,
    ) -> Result<Option<GuestPasid>, VfioError> {
        self.inner.check_allocated(pasid)?;
        Ok(self.inner.set.guest_of(pasid))
    }
}

impl Inner {
    /// ENOENT or EACCES for what the client did not take.
    pub(crate) fn check_allocated(&self, pasid: HostPasid) -> Result<(), VfioError> {
        self.set.state_of(pasid)?;
        if self.state().allocated.contains(&pasid) {
            Ok(())
        } else {
            Err(VfioError::NotAllocated { pasid })
        }
    }

    /// Gives a PASID another name, while nothing is bound under the one that it has.
    fn rename(
        &self,
        pasid: HostPasid,
        before: Option<GuestPasid>,
        name: GuestPasid,
    ) -> Result<(), VfioError> {
        if before == Some(name) {
            return Ok(());
        }
        if before.is_some_and(|name| self.is_bound_anywhere(SpaceKey::Pasid(name))) {
            return Err(VfioError::BoundUnderAnotherName { pasid });
        }
        if let Some(before) = before {
            self.set.detach_guest(before)?;
        }
        if let Err(error) = self.set.attach_guest(name, pasid) {
            self.name_as_before(pasid, before);
            return Err(error.into());
        }
        Ok(())
    }

    /// The name of a PASID becomes this again, unless another PASID has it by now: then it has none until it is
    /// bound.
    fn name_as_before(&self, pasid: HostPasid, before: Option<GuestPasid>) {
        if let Some(now) = self.set.guest_of(pasid)
            && let Err(error) = self.set.detach_guest(now)
        {
            tracing::debug!(%pasid, %error, "a name was gone already");
        }
        let Some(before) = before else { return };
        if let Err(error) = self.set.attach_guest(before, pasid) {
            tracing::debug!(%pasid, %error, "a PASID has no name for now");
        }
    }

    fn is_bound_anywhere(&self, key: SpaceKey) -> bool {
        let state = self.state();
        let mut functions = state.functions.values();
        functions.any(|attached| attached.bound.contains_key(&key))
    }
}
