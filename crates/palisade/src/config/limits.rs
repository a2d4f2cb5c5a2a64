//! What limits tenants together: groups, and the PASIDs that are kept for the host's own users.

use std::collections::BTreeMap;

use palisade_ioasid::{Limit, MAX_GROUP_DEPTH, PasidRange};
use palisade_units::PASID_COUNT;
use toml::Spanned;

use super::{
    GroupConfig, raw,
    validate::{Checked, Checker},
};

/// Groups above a tenant, at most: the authority's limit counts the host itself.
const GROUPS_ABOVE_MAX: usize = MAX_GROUP_DEPTH - 1;

/// Whether a tenant, a parent or a group may be called this.
pub(crate) fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
}

/// How many PASIDs are left for tenants. The ranges have no number in common.
pub(super) fn capacity_beside(reserved: &[PasidRange]) -> u32 {
    let taken: u32 = reserved.iter().map(|r| r.max - r.min + 1).sum();
    PASID_COUNT - 1 - taken
}

impl Checker<'_> {
    pub(super) fn reserved(&self, raw: &[Spanned<Vec<i64>>]) -> Checked<Vec<PasidRange>> {
        let mut ranges: Vec<PasidRange> = Vec::new();
        for value in raw {
            let numbers: Option<Vec<u32>> = value
                .get_ref()
                .iter()
                .map(|n| u32::try_from(*n).ok())
                .collect();
            let range = match numbers.as_deref() {
                Some(&[min, max]) if 1 <= min && min <= max && max < PASID_COUNT => {
                    PasidRange { min, max }
                }
                _ => {
                    return Err(self.wrong(
                        value,
                        format!(
                            "reserved range {:?}: [MIN, MAX] is allowed, with 1 <= MIN <= MAX <= {}",
                            value.get_ref(),
                            PASID_COUNT - 1
                        ),
                    ));
                }
            };
            let shares = |other: &&PasidRange| range.min <= other.max && other.min <= range.max;
            if let Some(other) = ranges.iter().find(shares) {
                return Err(self.wrong(
                    value,
                    format!(
                        "reserved range [{}, {}] overlaps [{}, {}]: make one range of the two",
                        range.min, range.max, other.min, other.max
                    ),
                ));
            }
            ranges.push(range);
        }
        Ok(ranges)
    }

    /// The groups, each behind the one that it is below.
    pub(super) fn groups(&self, raw: Vec<Spanned<raw::Group>>) -> Checked<Vec<GroupConfig>> {
        let mut open: BTreeMap<String, raw::Group> = BTreeMap::new();
        let mut order = Vec::new();
        for group in raw {
            let group = group.into_inner();
            let name = self.name(&group.name)?;
            if open.contains_key(&name) {
                return Err(self.wrong(
                    &group.name,
                    format!("a group named {name:?} is already there"),
                ));
            }
            order.push(name.clone());
            open.insert(name, group);
        }
        let mut done: Vec<GroupConfig> = Vec::new();
        for name in order {
            // From the group up to one that is done already, and down again.
            let mut chain: Vec<(String, raw::Group)> = Vec::new();
            let mut next = Some(name);
            while let Some((name, group)) = next.and_then(|name| open.remove_entry(&name)) {
                next = match &group.parent {
                    None => None,
                    Some(parent) => {
                        let above = parent.get_ref().clone();
                        let is_done = done.iter().any(|g| g.name == above);
                        if name == above || chain.iter().any(|(below, _)| *below == above) {
                            return Err(self.wrong(
                                parent,
                                format!("group {name:?} is below itself by way of {above:?}: break the circle"),
                            ));
                        }
                        if !is_done && !open.contains_key(&above) {
                            let names = done.iter().map(|g| &g.name).chain(open.keys());
                            let names = names.chain(chain.iter().map(|(name, _)| name));
                            return Err(self.no_group(parent, names.chain([&name])));
                        }
                        Some(above)
                    }
                };
                chain.push((name, group));
            }
            for (name, group) in chain.into_iter().rev() {
                let group = self.group(&done, name, &group)?;
                done.push(group);
            }
        }
        Ok(done)
    }

    /// A group whose parent is done.
    fn group(&self, done: &[GroupConfig], name: String, raw: &raw::Group) -> Checked<GroupConfig> {
        let max = raw.max.as_ref().map_or(Ok(Limit::Unlimited), |value| {
            self.number("max", value, 0, PASID_COUNT - 1)
                .map(Limit::Max)
        })?;
        let parent = raw.parent.as_ref().map(|p| p.get_ref().clone());
        let by_name = |name: &String| done.iter().find(|g| g.name == *name);
        let above = std::iter::successors(parent.as_ref(), |name| by_name(name)?.parent.as_ref());
        if above.count() >= GROUPS_ABOVE_MAX {
            return Err(self.wrong(
                &raw.name,
                format!(
                    "group {name:?} is too deep: at most {GROUPS_ABOVE_MAX} groups may stand one below the other"
                ),
            ));
        }
        Ok(GroupConfig { name, max, parent })
    }

    /// The group that a tenant names.
    pub(super) fn group_of(
        &self,
        groups: &[GroupConfig],
        name: &Spanned<String>,
    ) -> Checked<String> {
        let found = groups.iter().find(|g| g.name == *name.get_ref());
        let found = found.ok_or_else(|| self.no_group(name, groups.iter().map(|g| &g.name)))?;
        Ok(found.name.clone())
    }

    fn no_group<'a>(
        &self,
        name: &Spanned<String>,
        names: impl Iterator<Item = &'a String>,
    ) -> super::ConfigError {
        let mut names: Vec<&str> = names.map(String::as_str).collect();
        names.sort_unstable();
        let there = if names.is_empty() {
            "there is none: add a [[group]]".to_owned()
        } else {
            format!("there is {}", names.join(", "))
        };
        self.wrong(
            name,
            format!("there is no group {:?}; {there}", name.get_ref()),
        )
    }
}
