//! References to PASIDs, and what is told of their use.

use palisade_units::{Bdf, HostPasid, TenantId};

use crate::notify::Transition;
use crate::sets::SetId;
use crate::state::State;
use crate::{Errno, EventKind, FaultCode, IoasidError, Put};

impl State {
    /// One more reference, for a new hold.
    pub(crate) fn get(
        &mut self,
        id: SetId,
        tenant: TenantId,
        pasid: HostPasid,
    ) -> Result<(), IoasidError> {
        self.live(id, tenant, pasid)?;
        self.records.add_reference(pasid);
        Ok(())
    }

    /// One more reference beside one that exists, which a free-pending PASID allows too.
    pub(crate) fn get_again(&mut self, pasid: HostPasid) {
        self.records.add_reference(pasid);
    }

    /// A hold goes. Says whether it was the last.
    pub(crate) fn put(&mut self, pasid: HostPasid) -> Put {
        if self.records.remove_reference(pasid) > 0 {
            return Put::OthersRemain;
        }
        let owner = self.records.owner(pasid);
        if owner.is_free_pending() {
            let reclaimed = EventKind::Reclaimed { pasid };
            self.log.push(owner.tenant(), reclaimed);
            self.give_back(owner, pasid);
        }
        Put::Last
    }

    /// An entry of a PASID is in a table. The caller has a reference.
    pub(crate) fn bound(&mut self, pasid: HostPasid, place: Bdf) -> Result<(), IoasidError> {
        let owner = self.records.owner(pasid);
        if owner.is_free_pending() {
            return Err(IoasidError::FreePending { pasid });
        }
        let label = self.labels.at_mut(pasid);
        let is_first = self.bindings.add(pasid, label, place);
        let bound = EventKind::Bound { pasid, place };
        self.log.push(owner.tenant(), bound);
        if is_first {
            self.announce(Transition::Bind, pasid);
        }
        Ok(())
    }

    /// An entry that [`State::bound`] told of is gone. The caller has a reference.
    pub(crate) fn unbound(&mut self, pasid: HostPasid, place: Bdf) {
        let owner = self.records.owner(pasid);
        let label = self.labels.at_mut(pasid);
        let was_last = self.bindings.remove(pasid, label, place);
        let unbound = EventKind::Unbound { pasid, place };
        self.log.push(owner.tenant(), unbound);
        if was_last {
            self.announce(Transition::Unbind, pasid);
        }
    }

    /// The platform refused an entry, for the tenant that has the PASID.
    pub(crate) fn bind_refused(&mut self, pasid: HostPasid, place: Bdf, errno: Errno) {
        let tenant = self.records.owner(pasid).tenant();
        let refused = EventKind::BindRefused {
            pasid,
            place,
            errno,
        };
        self.log.push(tenant, refused);
    }

    /// `tenant` is whose access it was; where that is not known, the PASID says it.
    pub(crate) fn faulted(
        &mut self,
        tenant: Option<TenantId>,
        (pasid, place): (HostPasid, Bdf),
        reason: FaultCode,
    ) {
        let tenant = tenant.or_else(|| self.records.owner(pasid).tenant());
        let fault = EventKind::Faulted {
            pasid,
            place,
            reason,
        };
        self.log.push(tenant, fault);
    }
}
