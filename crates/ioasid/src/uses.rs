//! References to PASIDs, and what is told of their use.

use palisade_units::{Bdf, HostPasid, TenantId};

use crate::notify::Transition;
use crate::records::{Freed, SetId};
use crate::state::State;
use crate::{EventKind, FaultCode, IoasidError, Put, Request};

impl State {
    /// One more reference, for a new hold.
    pub(crate) fn get(
        &mut self,
        id: SetId,
        tenant: TenantId,
        pasid: HostPasid,
    ) -> Result<(), IoasidError> {
        self.live(id, tenant, pasid)?.references += 1;
        Ok(())
    }

    /// One more reference beside one that exists, which a free-pending PASID allows too.
    pub(crate) fn get_again(&mut self, pasid: HostPasid) {
        if let Some(record) = self.records.get_mut(pasid) {
            record.references += 1;
        }
    }

    /// A hold goes. Says whether it was the last.
    pub(crate) fn put(&mut self, pasid: HostPasid) -> Put {
        let Some(record) = self.records.get_mut(pasid) else {
            return Put::Last;
        };
        record.references -= 1;
        if record.references > 0 {
            return Put::OthersRemain;
        }
        if record.freed == Freed::Pending {
            let owner = self.owner_of(pasid);
            self.log.push(owner, EventKind::Reclaimed { pasid });
            self.give_back(pasid);
        }
        Put::Last
    }

    /// An entry of a PASID is in a table. The caller has a reference.
    pub(crate) fn bound(&mut self, pasid: HostPasid, place: Bdf) -> Result<(), IoasidError> {
        let owner = self.owner_of(pasid);
        let record = self.records.get_mut(pasid);
        let record = record.ok_or(IoasidError::NotFound { pasid })?;
        if record.freed == Freed::Pending {
            return Err(IoasidError::FreePending { pasid });
        }
        record.bindings += 1;
        let is_first = record.bindings == 1;
        self.log.push(owner, EventKind::Bound { pasid, place });
        if is_first {
            self.announce(Transition::Bind, pasid);
        }
        Ok(())
    }

    /// An entry that [`State::bound`] told of is gone. The caller has a reference.
    pub(crate) fn unbound(&mut self, pasid: HostPasid, place: Bdf) {
        let owner = self.owner_of(pasid);
        let Some(record) = self.records.get_mut(pasid) else {
            return;
        };
        record.bindings -= 1;
        let was_last = record.bindings == 0;
        self.log.push(owner, EventKind::Unbound { pasid, place });
        if was_last {
            self.announce(Transition::Unbind, pasid);
        }
    }

    pub(crate) fn faulted(&mut self, pasid: HostPasid, place: Bdf, reason: FaultCode) {
        let owner = self.owner_of(pasid);
        let fault = EventKind::Faulted {
            pasid,
            place,
            reason,
        };
        self.log.push(owner, fault);
    }

    /// Notes a request that was refused.
    pub(crate) fn note<T>(
        &mut self,
        tenant: TenantId,
        request: Request,
        answer: Result<T, IoasidError>,
    ) -> Result<T, IoasidError> {
        answer.inspect_err(|&error| {
            let refused = EventKind::Refused { request, error };
            self.log.push(Some(tenant), refused);
        })
    }
}
