//! What of a container a tenant takes along to another host: the numbers that its guest allocated.
//!
//! What was bound to them is not part of it: whoever reads the guest's tables binds it again.

use palisade_ioasid::{IoasidError, PasidRange};
use palisade_units::{GuestPasid, HostPasid};

use crate::pasids::guest_name;
use crate::{Container, SpaceKey, VfioError};

impl Container {
    /// The numbers that the guest allocated and has not freed, as it knows them, ascending.
    #[must_use]
    pub fn allocated(&self) -> Vec<GuestPasid> {
        let state = self.inner.state();
        let here = state.allocated.iter().copied().filter_map(guest_name);
        let mut all: Vec<_> = here.chain(state.adopted.keys().copied()).collect();
        all.sort_unstable();
        all
    }

    /// Gives the guest a number that it allocated on another host. It is allocated as by
    /// [`Container::alloc_pasid`], but that the host's number may be another one: the guest's number is
    /// its own where it is free. [`Container::free_pasid`] takes the number that the guest knows.
    ///
    /// # Errors
    /// [`VfioError::InvalidPasid`] (EINVAL) for PASID 0, EINVAL where the guest has the number already,
    /// ENOSPC beyond the quota.
    pub fn adopt_pasid(&self, guest: GuestPasid) -> Result<HostPasid, VfioError> {
        let inner = &self.inner;
        let _operation = inner.operation();
        let Ok(same) = HostPasid::new(guest.get()) else {
            return Err(VfioError::InvalidPasid { guest });
        };
        if guest.get() == 0 {
            return Err(VfioError::InvalidPasid { guest });
        }
        let pasid = match inner.set.alloc(PasidRange::only(guest.get())) {
            Err(IoasidError::NoSpace { .. }) => inner.set.alloc(PasidRange::ALL)?,
            allocated => allocated?,
        };
        if let Err(error) = inner.set.attach_guest(guest, pasid) {
            inner.give_back(pasid);
            return Err(error.into());
        }
        let mut state = inner.state();
        if pasid == same {
            state.allocated.insert(pasid);
        } else {
            state.adopted.insert(guest, pasid);
        }
        Ok(pasid)
    }

    /// The numbers of a range, as the guest knows them, whose PASID has another number here.
    pub(crate) fn adopted_within(&self, range: PasidRange) -> Vec<HostPasid> {
        let state = self.inner.state();
        let guests = state.adopted.keys().map(|guest| guest.get());
        guests
            .filter(|raw| (range.min..=range.max).contains(raw))
            .filter_map(|raw| HostPasid::new(raw).ok())
            .collect()
    }

    /// Frees an adopted PASID by the number that the guest knows, if it is one. The caller is in an
    /// operation.
    pub(crate) fn free_adopted(&self, known: HostPasid) -> bool {
        let inner = &self.inner;
        let Some(guest) = guest_name(known) else {
            return false;
        };
        if !inner.state().adopted.contains_key(&guest) {
            return false;
        }
        for endpoint in inner.endpoints() {
            inner.release(&endpoint, SpaceKey::Pasid(guest));
        }
        let pasid = inner.state().adopted.remove(&guest);
        if let Some(pasid) = pasid {
            inner.give_back(pasid);
        }
        pasid.is_some()
    }
}
