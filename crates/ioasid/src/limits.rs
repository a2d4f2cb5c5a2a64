//! What an operator sets at run time beside quotas: groups and reserved ranges.

use crate::{Authority, EventKind, GroupId, GroupUsage, IoasidError, Limit, PasidRange, Request};

impl Authority {
    /// A group below another, for sets and groups.
    ///
    /// # Errors
    /// [`IoasidError::GroupNotFound`] (ENOENT), [`IoasidError::GroupTooDeep`] (EINVAL) beyond
    /// [`MAX_GROUP_DEPTH`](crate::MAX_GROUP_DEPTH), [`IoasidError::NoGroupNumber`] (ENOSPC) after 2^32 of them.
    pub fn create_group(&self, parent: GroupId, max: Limit) -> Result<GroupId, IoasidError> {
        self.shared.with(|state| {
            let answer = state.groups.create(parent, max);
            state.done(Request::Group, answer, |&group| EventKind::GroupCreated {
                group,
                parent,
                max,
            })
        })
    }

    /// Removes a group with nothing below it.
    ///
    /// # Errors
    /// [`IoasidError::GroupNotFound`] (ENOENT), [`IoasidError::GroupBusy`] (EBUSY).
    pub fn remove_group(&self, group: GroupId) -> Result<(), IoasidError> {
        self.shared.with(|state| {
            let answer = state.groups.remove(group);
            state.done(Request::Group, answer, |()| EventKind::GroupRemoved {
                group,
            })
        })
    }

    /// Sets the limit of a group, also below what is out: nothing is taken away.
    ///
    /// # Errors
    /// [`IoasidError::GroupNotFound`] (ENOENT), [`IoasidError::GroupIsRoot`] (EINVAL).
    pub fn set_group_max(&self, group: GroupId, max: Limit) -> Result<(), IoasidError> {
        self.shared.with(|state| {
            let answer = state.groups.set_max(group, max);
            state.done(Request::Group, answer, |()| EventKind::GroupLimitChanged {
                group,
                max,
            })
        })
    }

    /// The limit of a group, what is out below it, and how often its limit refused.
    ///
    /// # Errors
    /// [`IoasidError::GroupNotFound`] (ENOENT).
    pub fn group_usage(&self, group: GroupId) -> Result<GroupUsage, IoasidError> {
        self.shared.lock().groups.usage(group)
    }

    /// Keeps a range for the host's own users, all of it or nothing: no set gets a number of it, and it
    /// comes out of what is in no set's quota. Numbers from 2^20 on name nothing and are passed over.
    ///
    /// # Errors
    /// [`IoasidError::InvalidRange`] (EINVAL) for one without a number or with 0,
    /// [`IoasidError::InUse`] (EBUSY) where a number is out or reserved,
    /// [`IoasidError::NoCapacity`] (ENOSPC) where quotas leave too little.
    pub fn reserve(&self, range: PasidRange) -> Result<(), IoasidError> {
        self.shared.with(|state| {
            let answer = state.reserve(range);
            state.done(Request::Reserve, answer, |()| EventKind::Reserved { range })
        })
    }

    /// Gives back a range that [`Authority::reserve`] took, named as it was then.
    ///
    /// # Errors
    /// [`IoasidError::NotReserved`] (EINVAL), also for one reserved at construction.
    pub fn unreserve(&self, range: PasidRange) -> Result<(), IoasidError> {
        self.shared.with(|state| {
            let answer = state.unreserve(range);
            state.done(Request::Reserve, answer, |()| EventKind::Unreserved {
                range,
            })
        })
    }

    /// The ranges that were reserved at run time.
    #[must_use]
    pub fn reserved(&self) -> Vec<PasidRange> {
        self.shared.lock().reserved.clone()
    }
}
