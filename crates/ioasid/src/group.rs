//! A tree of limits above the sets (R53).

use std::collections::BTreeMap;

use crate::IoasidError;

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

/// How many PASIDs the sets below a node may have out together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// This many. Below what is out, it only keeps more from being taken.
    Max(u32),
    /// As many as the nodes above allow.
    Unlimited,
}

impl Limit {
    fn allows_one_beside(self, current: u32) -> bool {
        match self {
            Self::Max(max) => current < max,
            Self::Unlimited => true,
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

struct Node {
    parent: Option<GroupId>,
    usage: GroupUsage,
    /// Children and sets.
    users: u32,
}

impl Node {
    fn below(parent: Option<GroupId>, max: Limit) -> Self {
        let usage = GroupUsage {
            max,
            current: 0,
            events: 0,
        };
        Self {
            parent,
            usage,
            users: 0,
        }
    }
}

pub(crate) struct Groups {
    nodes: BTreeMap<GroupId, Node>,
    next: u32,
}

impl Groups {
    pub(crate) fn new() -> Self {
        let root = Node::below(None, Limit::Unlimited);
        Self {
            nodes: BTreeMap::from([(GroupId::ROOT, root)]),
            next: 1,
        }
    }

    pub(crate) fn create(&mut self, parent: GroupId, max: Limit) -> Result<GroupId, IoasidError> {
        self.enter(parent)?;
        if self.path(parent).len() >= MAX_GROUP_DEPTH {
            self.leave(parent);
            return Err(IoasidError::GroupTooDeep { group: parent });
        }
        let id = GroupId(self.next);
        let Some(next) = self.next.checked_add(1) else {
            self.leave(parent);
            return Err(IoasidError::GroupTooDeep { group: parent });
        };
        self.next = next;
        self.nodes.insert(id, Node::below(Some(parent), max));
        Ok(id)
    }

    pub(crate) fn remove(&mut self, id: GroupId) -> Result<(), IoasidError> {
        let busy = IoasidError::GroupBusy { group: id };
        let node = self.node(id)?;
        // The root has no parent and stays.
        let parent = node.parent.filter(|_| node.users == 0).ok_or(busy)?;
        self.nodes.remove(&id);
        self.leave(parent);
        Ok(())
    }

    pub(crate) fn set_max(&mut self, id: GroupId, max: Limit) -> Result<(), IoasidError> {
        if id == GroupId::ROOT {
            return Err(IoasidError::GroupIsRoot);
        }
        self.node(id)?.usage.max = max;
        Ok(())
    }

    pub(crate) fn usage(&mut self, id: GroupId) -> Result<GroupUsage, IoasidError> {
        self.node(id).map(|node| node.usage)
    }

    /// A set or a child comes below a node.
    pub(crate) fn enter(&mut self, id: GroupId) -> Result<(), IoasidError> {
        self.node(id)?.users += 1;
        Ok(())
    }

    /// A set or a child is gone.
    pub(crate) fn leave(&mut self, id: GroupId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.users -= 1;
        }
    }

    /// Whether each node from this one up has room for one more. The lowest that has not counts it.
    pub(crate) fn check(&mut self, id: GroupId) -> Result<(), IoasidError> {
        for group in self.path(id) {
            let usage = &mut self.node(group)?.usage;
            if !usage.max.allows_one_beside(usage.current) {
                usage.events += 1;
                return Err(IoasidError::GroupLimit { group });
            }
        }
        Ok(())
    }

    pub(crate) fn charge(&mut self, id: GroupId) {
        for group in self.path(id) {
            if let Some(node) = self.nodes.get_mut(&group) {
                node.usage.current += 1;
            }
        }
    }

    pub(crate) fn uncharge(&mut self, id: GroupId) {
        for group in self.path(id) {
            if let Some(node) = self.nodes.get_mut(&group) {
                node.usage.current -= 1;
            }
        }
    }

    /// The node and those above it, the root last.
    fn path(&self, id: GroupId) -> Vec<GroupId> {
        std::iter::successors(Some(id), |id| self.nodes.get(id)?.parent).collect()
    }

    fn node(&mut self, id: GroupId) -> Result<&mut Node, IoasidError> {
        let node = self.nodes.get_mut(&id);
        node.ok_or(IoasidError::GroupNotFound { group: id })
    }
}
