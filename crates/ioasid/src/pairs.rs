//! The guests' names of PASIDs.

use palisade_units::{GuestPasid, HostPasid, TenantId};

use crate::IoasidError;
use crate::sets::SetId;
use crate::state::State;

impl State {
    pub(crate) fn attach_guest(
        &mut self,
        id: SetId,
        tenant: TenantId,
        guest: GuestPasid,
        host: HostPasid,
    ) -> Result<(), IoasidError> {
        let paired = IoasidError::AlreadyPaired { guest, host };
        let owner = self.live(id, tenant, host)?;
        if self.labels.at(host).guest().is_some() {
            return Err(paired);
        }
        let set = self.sets.open(id, tenant)?;
        if set.guests.contains_key(&guest) {
            return Err(paired);
        }
        set.guests.insert(guest, host);
        self.labels.at_mut(host).set_guest(Some(guest));
        self.records.set_owner(host, owner.labelled());
        Ok(())
    }

    pub(crate) fn detach_guest(
        &mut self,
        id: SetId,
        tenant: TenantId,
        guest: GuestPasid,
    ) -> Result<HostPasid, IoasidError> {
        let removed = self.sets.open(id, tenant)?.guests.remove(&guest);
        let host = removed.ok_or(IoasidError::GuestNotFound { tenant, guest })?;
        self.labels.at_mut(host).set_guest(None);
        Ok(host)
    }

    pub(crate) fn host_of(
        &mut self,
        id: SetId,
        tenant: TenantId,
        guest: GuestPasid,
    ) -> Result<HostPasid, IoasidError> {
        let set = self.sets.open(id, tenant)?;
        let host = set.guests.get(&guest).copied();
        host.ok_or(IoasidError::GuestNotFound { tenant, guest })
    }

    pub(crate) fn guest_of(&self, id: SetId, host: HostPasid) -> Option<GuestPasid> {
        let is_mine = self.is_in(id, host);
        is_mine.then(|| self.labels.at(host).guest()).flatten()
    }
}
