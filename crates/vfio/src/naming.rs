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
        let renamed = inner.rename(pasid, name)?;
        let outcome = inner.bind_all(Wanted { key, terms }, |_| ());
        if outcome.is_err()
            && let Some(renamed) = renamed
        {
            inner.undo_rename(renamed);
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

/// A change of a name, with what it takes to undo it.
#[derive(Clone, Copy)]
struct Renamed {
    pasid: HostPasid,
    before: Option<GuestPasid>,
    name: GuestPasid,
    /// Who had the name, and has none now.
    displaced: Option<HostPasid>,
}

/// The caller is in an operation, but for the first.
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

    /// Gives a PASID another name, while nothing is bound under the one that it has. A PASID that has the new one, and
    /// is bound nowhere, is without a name until it is bound.
    fn rename(&self, pasid: HostPasid, name: GuestPasid) -> Result<Option<Renamed>, VfioError> {
        let before = self.set.guest_of(pasid);
        if before == Some(name) {
            return Ok(None);
        }
        if before.is_some_and(|name| self.is_bound_anywhere(SpaceKey::Pasid(name))) {
            return Err(VfioError::BoundUnderAnotherName { pasid });
        }
        let renamed = Renamed {
            pasid,
            before,
            displaced: self.take_name(name)?,
            name,
        };
        if let Some(before) = before {
            self.set.detach_guest(before)?;
        }
        if let Err(error) = self.set.attach_guest(name, pasid) {
            self.undo_rename(renamed);
            return Err(error.into());
        }
        Ok(Some(renamed))
    }

    /// Takes a name from a PASID of the client that is bound nowhere, and says from which.
    fn take_name(&self, name: GuestPasid) -> Result<Option<HostPasid>, VfioError> {
        let Ok(hold) = self.set.find_guest(name) else {
            return Ok(None);
        };
        let other = hold.pasid();
        drop(hold);
        let is_taken = self.state().allocated.contains(&other);
        if !is_taken || self.is_bound_anywhere(SpaceKey::Pasid(name)) {
            // Attaching it will be refused.
            return Ok(None);
        }
        self.set.detach_guest(name)?;
        Ok(Some(other))
    }

    fn undo_rename(&self, renamed: Renamed) {
        self.name_as_before(renamed.pasid, renamed.before);
        if let Some(other) = renamed.displaced {
            self.name_as_before(other, Some(renamed.name));
        }
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
