//! A tree of limits above the sets (R53).

use std::collections::HashMap;
use std::fmt;

use crate::IoasidError;
use crate::numbers::index;

/// A node of the tree of limits. Numbers are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(u32);

impl GroupId {
    /// The node above all others. It has no limit of its own.
    pub const ROOT: Self = Self(0);

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {}", self.0)
    }
}

/// How many PASIDs the sets below a node may have out together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// This many. Below what is out, it only keeps more from being taken.
    Max(u32),
    /// As many as the nodes above allow.
    Unlimited,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max(max) => max.fmt(f),
            Self::Unlimited => f.pad("unlimited"),
        }
    }
}

/// What a node says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupUsage {
    /// Its limit.
    pub max: Limit,
    /// How many PASIDs are out below it, those that are free-pending among them.
    pub current: u32,
    /// How many allocations its own limit refused.
    pub events: u64,
}

/// How many nodes there may be above a set, the root among them: what an allocation costs is bounded.
pub const MAX_GROUP_DEPTH: usize = 16;

/// Where a group is among the nodes. It is another's once nothing is below the group and it was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u32);

impl Place {
    const ROOT: Self = Self(0);
}

struct Node {
    id: GroupId,
    parent: Option<Place>,
    usage: GroupUsage,
    /// Children and sets.
    users: u32,
}

impl Node {
    fn new(id: GroupId, parent: Option<Place>, max: Limit) -> Self {
        let usage = GroupUsage {
            max,
            current: 0,
            events: 0,
        };
        Self {
            id,
            parent,
            usage,
            users: 0,
        }
    }

    fn has_room(&self) -> bool {
        match self.usage.max {
            Limit::Max(max) => self.usage.current < max,
            Limit::Unlimited => true,
        }
    }
}

/// The tree. Sets know their groups by place, so that charging one looks nothing up.
pub(crate) struct Groups {
    nodes: Vec<Node>,
    /// Places in `nodes` whose groups were removed.
    vacant: Vec<Place>,
    place_of: HashMap<GroupId, Place>,
    /// The next group, until all numbers were used.
    next: Option<GroupId>,
}

impl Groups {
    pub(crate) fn new() -> Self {
        Self {
            nodes: vec![Node::new(GroupId::ROOT, None, Limit::Unlimited)],
            vacant: Vec::new(),
            place_of: HashMap::from([(GroupId::ROOT, Place::ROOT)]),
            next: Some(GroupId(1)),
        }
    }

    pub(crate) fn create(&mut self, parent: GroupId, max: Limit) -> Result<GroupId, IoasidError> {
        let above = self.place(parent)?;
        if self.depth(above) >= MAX_GROUP_DEPTH {
            return Err(IoasidError::GroupTooDeep { group: parent });
        }
        let id = self.next.ok_or(IoasidError::NoGroupNumber)?;
        let node = Node::new(id, Some(above), max);
        let place = match self.vacant.pop() {
            Some(place) => {
                *self.at(place) = node;
                place
            }
            None => {
                let number = u32::try_from(self.nodes.len());
                let place = number.map_err(|_| IoasidError::NoGroupNumber)?;
                self.nodes.push(node);
                Place(place)
            }
        };
        self.next = id.0.checked_add(1).map(GroupId);
        self.place_of.insert(id, place);
        self.at(above).users += 1;
        Ok(id)
    }

    pub(crate) fn remove(&mut self, id: GroupId) -> Result<(), IoasidError> {
        let busy = IoasidError::GroupBusy { group: id };
        let place = self.place(id)?;
        let node = self.at(place);
        // The root has no parent and stays.
        let parent = node.parent.filter(|_| node.users == 0).ok_or(busy)?;
        self.place_of.remove(&id);
        self.vacant.push(place);
        self.leave(parent);
        Ok(())
    }

    pub(crate) fn set_max(&mut self, id: GroupId, max: Limit) -> Result<(), IoasidError> {
        if id == GroupId::ROOT {
            return Err(IoasidError::GroupIsRoot);
        }
        let place = self.place(id)?;
        self.at(place).usage.max = max;
        Ok(())
    }

    pub(crate) fn usage(&self, id: GroupId) -> Result<GroupUsage, IoasidError> {
        let place = self.place(id)?;
        Ok(self.nodes[index(place.0)].usage)
    }

    /// A set comes below a node, whose place it needs from then on.
    pub(crate) fn enter(&mut self, id: GroupId) -> Result<Place, IoasidError> {
        let place = self.place(id)?;
        self.at(place).users += 1;
        Ok(place)
    }

    /// A set or a group below a node is gone.
    pub(crate) fn leave(&mut self, place: Place) {
        self.at(place).users -= 1;
    }

    /// Charges one PASID to a node and to those above it, or to none: the lowest that has no room counts
    /// the refusal.
    pub(crate) fn charge(&mut self, lowest: Place) -> Result<(), IoasidError> {
        let mut next = Some(lowest);
        while let Some(place) = next {
            let node = self.at(place);
            if !node.has_room() {
                node.usage.events += 1;
                let group = node.id;
                self.uncharge_below(Some(place), lowest);
                return Err(IoasidError::GroupLimit { group });
            }
            node.usage.current += 1;
            next = node.parent;
        }
        Ok(())
    }

    pub(crate) fn uncharge(&mut self, lowest: Place) {
        self.uncharge_below(None, lowest);
    }

    /// Gives one back to a node and to those above it, up to one that was not charged.
    fn uncharge_below(&mut self, end: Option<Place>, lowest: Place) {
        let mut next = Some(lowest);
        while let Some(place) = next.filter(|_| next != end) {
            let node = self.at(place);
            node.usage.current -= 1;
            next = node.parent;
        }
    }

    /// How many PASIDs are out below the root, which is all of them.
    pub(crate) fn current_of_all(&self) -> u32 {
        self.nodes[index(Place::ROOT.0)].usage.current
    }

    /// How many nodes there are from this one up.
    fn depth(&self, place: Place) -> usize {
        let parent = |place: &Place| self.nodes[index(place.0)].parent;
        std::iter::successors(Some(place), parent).count()
    }

    fn place(&self, id: GroupId) -> Result<Place, IoasidError> {
        let place = self.place_of.get(&id).copied();
        place.ok_or(IoasidError::GroupNotFound { group: id })
    }

    fn at(&mut self, place: Place) -> &mut Node {
        &mut self.nodes[index(place.0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r53_groups_that_come_and_go_take_no_more_room_and_no_number_twice() {
        let mut groups = Groups::new();
        let stays = groups.create(GroupId::ROOT, Limit::Max(1)).unwrap();
        let mut before = stays;
        for _ in 0..100 {
            let group = groups.create(stays, Limit::Max(9)).unwrap();
            assert!(group > before, "{group} after {before}");
            groups.remove(group).unwrap();
            assert!(groups.usage(group).is_err());
            before = group;
        }
        assert_eq!(groups.nodes.len(), 3);
        assert_eq!(groups.usage(stays).unwrap().max, Limit::Max(1));
    }

    #[test]
    fn r53_when_all_numbers_were_used_there_is_no_other_group() {
        let mut groups = Groups::new();
        groups.next = Some(GroupId(u32::MAX));
        let last = groups.create(GroupId::ROOT, Limit::Unlimited).unwrap();
        let refusal = Err(IoasidError::NoGroupNumber);
        assert_eq!(groups.create(last, Limit::Unlimited), refusal);
        groups.remove(last).unwrap();
        assert_eq!(groups.create(GroupId::ROOT, Limit::Unlimited), refusal);
        assert_eq!(IoasidError::NoGroupNumber.errno(), 28);
    }
}
