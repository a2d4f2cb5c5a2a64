//! What is given out to whom: quotas of sets, and ranges for the host's own users.

use palisade_units::{HostPasid, TenantId};

use crate::sets::{Set, SetId};
use crate::state::State;
use crate::{EventKind, GroupId, IoasidError, PasidRange, Quota};

impl State {
    pub(crate) fn create_set(
        &mut self,
        tenant: TenantId,
        quota: Quota,
        group: GroupId,
    ) -> Result<SetId, IoasidError> {
        if self.sets.has_one_of(tenant) {
            return Err(IoasidError::Exists { tenant });
        }
        let available = self.unreserved;
        let wanted = match quota {
            Quota::Exactly(wanted) => wanted,
            // All of nothing is one too many.
            Quota::AllThatIsLeft => available.max(1),
        };
        if wanted > available {
            return Err(IoasidError::NoCapacity { wanted, available });
        }
        let group = self.groups.enter(group)?;
        let set = Set::new(tenant, group, wanted);
        let id = self.sets.insert(set);
        let id = id.inspect_err(|_| self.groups.leave(group))?;
        self.unreserved -= wanted;
        let created = EventKind::SetCreated { quota: wanted };
        self.log.push(Some(tenant), created);
        Ok(id)
    }

    pub(crate) fn adjust(
        &mut self,
        id: SetId,
        tenant: TenantId,
        wanted: u32,
    ) -> Result<(), IoasidError> {
        let set = self.sets.open(id, tenant)?;
        let outstanding = set.outstanding();
        if wanted < outstanding {
            return Err(IoasidError::InvalidQuota {
                wanted,
                outstanding,
            });
        }
        let available = self.unreserved + set.quota;
        if wanted > available {
            return Err(IoasidError::NoCapacity { wanted, available });
        }
        set.quota = wanted;
        self.unreserved = available - wanted;
        let changed = EventKind::QuotaChanged { quota: wanted };
        self.log.push(Some(tenant), changed);
        Ok(())
    }

    pub(crate) fn close(&mut self, id: SetId, tenant: TenantId) {
        self.free_range(id, PasidRange::ALL);
        if let Ok(set) = self.sets.open(id, tenant) {
            set.is_closed = true;
            self.log.push(Some(tenant), EventKind::SetClosed);
            self.remove_if_done(id.slot);
        }
    }

    /// Removes a closed set that has nothing out, and gives its quota back to the host.
    pub(crate) fn remove_if_done(&mut self, slot: u32) {
        let set = self.sets.in_slot(slot);
        if set.is_some_and(|set| set.is_closed && set.outstanding() == 0)
            && let Some(set) = self.sets.remove(slot)
        {
            self.unreserved += set.quota;
            self.groups.leave(set.group);
        }
    }

    pub(crate) fn quota(&self, id: SetId) -> u32 {
        self.sets.get(id).map_or(0, |set| set.quota)
    }

    pub(crate) fn outstanding(&self, id: SetId) -> u32 {
        self.sets.get(id).map_or(0, Set::outstanding)
    }

    /// Takes a range out of what can be given out: all of it or nothing.
    pub(crate) fn reserve(&mut self, range: PasidRange) -> Result<(), IoasidError> {
        let numbers = range.min..=range.last_pasid();
        if range.min < PasidRange::ALL.min || numbers.is_empty() {
            return Err(IoasidError::InvalidRange { range });
        }
        let wanted = numbers.end() - numbers.start() + 1;
        let taken = numbers.clone().find(|number| !self.free.contains(*number));
        if let Some(pasid) = taken.and_then(|number| HostPasid::new(number).ok()) {
            return Err(IoasidError::InUse { pasid });
        }
        let available = self.unreserved;
        if wanted > available {
            return Err(IoasidError::NoCapacity { wanted, available });
        }
        self.unreserved -= wanted;
        numbers.for_each(|number| self.free.remove(number));
        self.reserved.push(range);
        Ok(())
    }

    /// Gives a range back that [`State::reserve`] took.
    pub(crate) fn unreserve(&mut self, range: PasidRange) -> Result<(), IoasidError> {
        let at = self.reserved.iter().position(|other| *other == range);
        self.reserved
            .swap_remove(at.ok_or(IoasidError::NotReserved { range })?);
        for number in range.min..=range.last_pasid() {
            self.free.insert(number);
            self.unreserved += 1;
        }
        Ok(())
    }
}
