//! The model's sets and what bounds them: quotas, groups, reserved ranges.

use palisade_ioasid::{
    EventKind, GroupId, GroupUsage, IoasidError, Limit, MAX_GROUP_DEPTH, PasidRange, Quota,
};
use palisade_units::{HostPasid, PASID_COUNT, TenantId};

use crate::model::{Group, Handle, Model, Set, count};
use crate::ops::CAPACITY;

impl Model {
    /// What is in nobody's quota.
    pub(crate) fn unreserved(&self) -> u32 {
        let reserved = count((1..=CAPACITY).filter(|number| self.is_reserved(*number)));
        CAPACITY - reserved - self.sets.iter().map(|set| set.quota).sum::<u32>()
    }

    pub(crate) fn create_set(
        &mut self,
        group: GroupId,
        tenant: TenantId,
        quota: Quota,
    ) -> Result<(), IoasidError> {
        if self.sets.iter().any(|set| set.tenant == tenant) {
            return Err(IoasidError::Exists { tenant });
        }
        let available = self.unreserved();
        let (quota, wanted) = match quota {
            Quota::Exactly(quota) => (quota, quota),
            Quota::AllThatIsLeft => (available, available.max(1)),
        };
        if wanted > available {
            return Err(IoasidError::NoCapacity { wanted, available });
        }
        self.group(group)?;
        self.created += 1;
        let number = self.created;
        self.sets.push(Set {
            number,
            tenant,
            group,
            quota,
            is_closed: false,
        });
        self.handles.push(Handle {
            set: number,
            tenant,
        });
        self.note(tenant, EventKind::SetCreated { quota });
        Ok(())
    }

    pub(crate) fn adjust(&mut self, handle: Handle, wanted: u32) -> Result<(), IoasidError> {
        let left = self.unreserved();
        let available = self.open(handle)?.quota + left;
        let outstanding = count(self.out_of(handle.set).iter());
        if wanted < outstanding {
            return Err(IoasidError::InvalidQuota {
                wanted,
                outstanding,
            });
        }
        if wanted > available {
            return Err(IoasidError::NoCapacity { wanted, available });
        }
        self.open(handle)?.quota = wanted;
        self.note(handle.tenant, EventKind::QuotaChanged { quota: wanted });
        Ok(())
    }

    pub(crate) fn close(&mut self, handle: Handle) {
        self.free_range(handle, PasidRange::ALL);
        if let Ok(set) = self.open(handle) {
            set.is_closed = true;
            self.note(handle.tenant, EventKind::SetClosed);
        }
        self.forget_empty_sets();
    }

    /// The last handle of a set closes it.
    pub(crate) fn drop_handle(&mut self, at: usize) {
        let handle = self.handles.swap_remove(at);
        if !self.handles.iter().any(|other| other.set == handle.set) {
            self.close(handle);
        }
    }

    pub(crate) fn forget_empty_sets(&mut self) {
        let owners: Vec<u32> = self.ids.values().map(|id| id.set).collect();
        self.sets
            .retain(|set| !set.is_closed || owners.contains(&set.number));
    }

    pub(crate) fn group(&mut self, id: GroupId) -> Result<&mut Group, IoasidError> {
        let mut groups = self.groups.iter_mut();
        let found = groups.find(|group| group.id == id);
        found.ok_or(IoasidError::GroupNotFound { group: id })
    }

    /// A group and those above it, the root last.
    pub(crate) fn path(&self, id: GroupId) -> Vec<GroupId> {
        let parent = |id: &GroupId| self.groups.iter().find(|group| group.id == *id)?.parent;
        std::iter::successors(Some(id), parent).collect()
    }

    /// What is out below a group.
    pub(crate) fn current(&self, group: GroupId) -> u32 {
        let below = self
            .sets
            .iter()
            .filter(|set| self.path(set.group).contains(&group));
        count(below.flat_map(|set| self.out_of(set.number)))
    }

    pub(crate) fn usage(&mut self, id: GroupId) -> Result<GroupUsage, IoasidError> {
        let current = self.current(id);
        self.group(id).map(|group| GroupUsage {
            max: group.max,
            current,
            events: group.events,
        })
    }

    /// Whether there is room for one more in all groups from this one up. The lowest that is full says no.
    pub(crate) fn check_groups(&mut self, id: GroupId) -> Result<(), IoasidError> {
        for group in self.path(id) {
            let usage = self.usage(group)?;
            if matches!(usage.max, Limit::Max(max) if usage.current >= max) {
                self.group(group)?.events += 1;
                return Err(IoasidError::GroupLimit { group });
            }
        }
        Ok(())
    }

    /// Groups have the names that the authority gives them.
    pub(crate) fn create_group(
        &mut self,
        parent: GroupId,
        max: Limit,
        name: Option<GroupId>,
    ) -> Result<(), IoasidError> {
        self.group(parent)?;
        if self.path(parent).len() >= MAX_GROUP_DEPTH {
            return Err(IoasidError::GroupTooDeep { group: parent });
        }
        let Some(id) = name else { return Ok(()) };
        assert!(!self.named.contains(&id), "{id:?} named a group before");
        self.named.push(id);
        self.groups.push(Group {
            id,
            parent: Some(parent),
            max,
            events: 0,
        });
        Ok(())
    }

    pub(crate) fn remove_group(&mut self, id: GroupId) -> Result<(), IoasidError> {
        self.group(id)?;
        let is_parent = self.groups.iter().any(|group| group.parent == Some(id));
        let has_sets = self.sets.iter().any(|set| set.group == id);
        if is_parent || has_sets || id == GroupId::ROOT {
            return Err(IoasidError::GroupBusy { group: id });
        }
        self.groups.retain(|group| group.id != id);
        Ok(())
    }

    pub(crate) fn set_group_max(&mut self, id: GroupId, max: Limit) -> Result<(), IoasidError> {
        if id == GroupId::ROOT {
            return Err(IoasidError::GroupIsRoot);
        }
        self.group(id)?.max = max;
        Ok(())
    }

    /// Numbers beyond the capacity were reserved at construction.
    pub(crate) fn reserve(&mut self, range: PasidRange) -> Result<(), IoasidError> {
        let (min, last) = (range.min, range.max.min(PASID_COUNT - 1));
        if min == 0 || min > last {
            return Err(IoasidError::InvalidRange { range });
        }
        for number in min..=last {
            let pasid = HostPasid::new(number).unwrap();
            if number > CAPACITY || self.is_reserved(number) || self.ids.contains_key(&pasid) {
                return Err(IoasidError::InUse { pasid });
            }
        }
        let (wanted, available) = (last - min + 1, self.unreserved());
        if wanted > available {
            return Err(IoasidError::NoCapacity { wanted, available });
        }
        self.reserved.push(range);
        self.reserved.sort_by_key(|range| range.min);
        Ok(())
    }

    pub(crate) fn unreserve(&mut self, range: PasidRange) -> Result<(), IoasidError> {
        let at = self.reserved.iter().position(|other| *other == range);
        self.reserved
            .remove(at.ok_or(IoasidError::NotReserved { range })?);
        Ok(())
    }
}
