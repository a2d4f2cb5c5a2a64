//! The groups of a host by their names; the authority knows numbers only.

use std::collections::BTreeMap;

use palisade_ioasid::{Authority, GroupId, IoasidError, Limit};

use rustix::io::Errno;

use super::KEPT_EVENTS;
use crate::{
    config::GroupConfig,
    control::{self, Refusal},
};

/// Where a group comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The configuration, with this limit.
    Configuration(Limit),
    /// The operator, at run time.
    RunTime,
}

impl From<Origin> for control::Origin {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Configuration(_) => Self::Configuration,
            Origin::RunTime => Self::RunTime,
        }
    }
}

/// One group.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) id: GroupId,
    pub(crate) parent: Option<String>,
    pub(crate) origin: Origin,
}

/// The groups, in the order of their names.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    by_name: BTreeMap<String, Group>,
    /// Those that are gone among them, since there may be events of theirs.
    names: BTreeMap<GroupId, String>,
}

/// How many names are kept of groups that are gone or not: so many events of removals hide any earlier one.
const NAMES_MAX: usize = KEPT_EVENTS;

impl Groups {
    /// Makes the groups of a configuration, parents first, as it lists them.
    ///
    /// # Errors
    /// The group that could not be made, and why.
    pub(crate) fn configured(
        authority: &Authority,
        groups: &[GroupConfig],
    ) -> Result<Self, (String, IoasidError)> {
        let mut made = Self::default();
        for group in groups {
            let above = made.id_of(group.parent.as_deref());
            let id = authority
                .create_group(above, group.max)
                .map_err(|e| (group.name.clone(), e))?;
            let group_made = Group {
                id,
                parent: group.parent.clone(),
                origin: Origin::Configuration(group.max),
            };
            made.insert(&group.name, group_made);
        }
        Ok(made)
    }

    /// The number of a group, or of the host itself.
    pub(crate) fn id_of(&self, name: Option<&str>) -> GroupId {
        let group = name.and_then(|name| self.by_name.get(name));
        group.map_or(GroupId::ROOT, |group| group.id)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Group> {
        self.by_name.get(name)
    }

    pub(crate) fn insert(&mut self, name: &str, group: Group) {
        if self.names.len() >= NAMES_MAX {
            // Numbers ascend: the first one that is gone is the one that went into the oldest events.
            let by_name = &self.by_name;
            let is_gone =
                |id: &&GroupId, name: &String| by_name.get(name).is_none_or(|g| g.id != **id);
            let gone = self.names.iter().find(|(id, name)| is_gone(id, name));
            if let Some(id) = gone.map(|(id, _)| *id) {
                self.names.remove(&id);
            }
        }
        self.names.insert(group.id, name.to_owned());
        self.by_name.insert(name.to_owned(), group);
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.by_name.remove(name);
    }

    /// What each number stands or stood for.
    pub(crate) fn names(&self) -> &BTreeMap<GroupId, String> {
        &self.names
    }

    /// The refusal of a name that no group has.
    pub(crate) fn no_such(&self, name: &str) -> Refusal {
        let names: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
        let there = match names.as_slice() {
            [] => "there is none".to_owned(),
            some => format!("there is {}", some.join(", ")),
        };
        Refusal::new(Errno::NOENT, format!("there is no group {name:?}; {there}"))
    }

    /// Every group, in tree order: each behind its parent, siblings by name.
    pub(crate) fn in_tree_order(&self) -> Vec<(&str, &Group)> {
        let mut order = Vec::with_capacity(self.by_name.len());
        let mut below: BTreeMap<Option<&str>, Vec<&str>> = BTreeMap::new();
        // Reversed, since the last one pushed is the first one visited.
        for (name, group) in self.by_name.iter().rev() {
            below.entry(group.parent.as_deref()).or_default().push(name);
        }
        let mut open = below.remove(&None).unwrap_or_default();
        while let Some(name) = open.pop() {
            if let Some(group) = self.by_name.get(name) {
                order.push((name, group));
            }
            open.extend(below.remove(&Some(name)).unwrap_or_default());
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r78_names_of_groups_that_come_and_go_do_not_pile_up() {
        let authority = Authority::new(&[]);
        let mut groups = Groups::default();
        let mut make = |name: &str| {
            let id = authority.create_group(GroupId::ROOT, Limit::Unlimited);
            let (id, parent, origin) = (id.unwrap(), None, Origin::RunTime);
            groups.insert(name, Group { id, parent, origin });
            if name == "gone" {
                groups.remove(name);
                authority.remove_group(id).unwrap();
            }
            id
        };
        let stays = make("stays");
        let first_gone = make("gone");
        for _ in 1..NAMES_MAX {
            make("gone");
        }
        let last_gone = make("gone");
        let kept = groups.names();
        assert_eq!(kept.len(), NAMES_MAX);
        assert_eq!(kept.get(&stays).map(String::as_str), Some("stays"));
        assert_eq!(kept.get(&first_gone), None);
        assert!(kept.contains_key(&last_gone));
    }
}
