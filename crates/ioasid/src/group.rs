//! A tree of limits above the sets (R53).

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

    fn has_room(&self) -> bool {
        match self.usage.max {
            Limit::Max(max) => self.usage.current < max,
            Limit::Unlimited => true,
        }
    }
}

/// The nodes by number.
pub(crate) struct Groups {
    nodes: Vec<Option<Node>>,
}

impl Groups {
    pub(crate) fn new() -> Self {
        let root = Node::below(None, Limit::Unlimited);
        Self {
            nodes: vec![Some(root)],
        }
    }

    pub(crate) fn create(&mut self, parent: GroupId, max: Limit) -> Result<GroupId, IoasidError> {
        self.node(parent)?;
        let too_deep = IoasidError::GroupTooDeep { group: parent };
        if self.depth(parent) >= MAX_GROUP_DEPTH {
            return Err(too_deep);
        }
        let number = u32::try_from(self.nodes.len()).map_err(|_| too_deep)?;
        self.nodes.push(Some(Node::below(Some(parent), max)));
        self.enter(parent)?;
        Ok(GroupId(number))
    }

    pub(crate) fn remove(&mut self, id: GroupId) -> Result<(), IoasidError> {
        let busy = IoasidError::GroupBusy { group: id };
        let node = self.node(id)?;
        // The root has no parent and stays.
        let parent = node.parent.filter(|_| node.users == 0).ok_or(busy)?;
        self.nodes[index(id.0)] = None;
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
        if let Ok(node) = self.node(id) {
            node.users -= 1;
        }
    }

    /// Charges one PASID to a node and to those above it, or to none: the lowest that has no room counts
    /// the refusal.
    pub(crate) fn charge(&mut self, id: GroupId) -> Result<(), IoasidError> {
        let mut at = Some(id);
        while let Some(group) = at {
            let node = self.node(group)?;
            if !node.has_room() {
                node.usage.events += 1;
                self.uncharge_below(Some(group), id);
                return Err(IoasidError::GroupLimit { group });
            }
            node.usage.current += 1;
            at = node.parent;
        }
        Ok(())
    }

    pub(crate) fn uncharge(&mut self, id: GroupId) {
        self.uncharge_below(None, id);
    }

    /// Gives one back to a node and to those above it, up to one that was not charged.
    fn uncharge_below(&mut self, end: Option<GroupId>, id: GroupId) {
        let mut at = Some(id);
        while let Some(group) = at.filter(|_| at != end) {
            let Ok(node) = self.node(group) else { return };
            node.usage.current -= 1;
            at = node.parent;
        }
    }

    /// How many PASIDs are out below the root, which is all of them.
    pub(crate) fn current_of_all(&self) -> u32 {
        let root = self.nodes.first().and_then(Option::as_ref);
        root.map_or(0, |root| root.usage.current)
    }

    /// How many nodes there are from this one up.
    fn depth(&self, id: GroupId) -> usize {
        let parent = |id: &GroupId| self.nodes.get(index(id.0))?.as_ref()?.parent;
        std::iter::successors(Some(id), parent).count()
    }

    fn node(&mut self, id: GroupId) -> Result<&mut Node, IoasidError> {
        let node = self.nodes.get_mut(index(id.0)).and_then(Option::as_mut);
        node.ok_or(IoasidError::GroupNotFound { group: id })
    }
}
