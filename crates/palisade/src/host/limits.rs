//! What an operator changes at run time: quotas, groups and reserved ranges.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use palisade_ioasid::{Authority, GroupId, IoasidError, Limit, PasidRange, PasidSet};
use palisade_units::PASID_COUNT;
use rustix::io::Errno;

use super::{
    changing::{Answer, Changing, not_too_many, refused},
    groups::{Group, Origin},
};
use crate::{
    config::is_name,
    control::{self, Ends, NewLimit, NewQuota, Refusal},
    state::RunTime,
};

/// A tenant as far as limits go.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) set: PasidSet,
    /// What the configuration says.
    pub(crate) quota: u32,
    pub(crate) group: Option<String>,
}

/// The limits of a running host.
pub(crate) struct Limits {
    authority: Authority,
    members: Vec<Member>,
    /// From the configuration.
    reserved: Vec<PasidRange>,
    changing: Mutex<Changing>,
}

fn ends(range: PasidRange) -> Ends {
    Ends(range.min, range.max)
}

fn range_of(min: u32, max: u32) -> Result<PasidRange, Refusal> {
    if min < 1 || max < min || max >= PASID_COUNT {
        return Err(Refusal::new(
            Errno::INVAL,
            format!(
                "{} is no range: 1 <= MIN <= MAX <= {} is allowed",
                Ends(min, max),
                PASID_COUNT - 1
            ),
        ));
    }
    Ok(PasidRange { min, max })
}

fn overlap(a: PasidRange, b: PasidRange) -> bool {
    a.min <= b.max && b.min <= a.max
}

impl Limits {
    pub(crate) fn new(
        authority: Authority,
        members: Vec<Member>,
        reserved: &[PasidRange],
        changing: Changing,
    ) -> Self {
        Self {
            authority,
            members,
            reserved: reserved.to_vec(),
            changing: Mutex::new(changing),
        }
    }

    /// Nobody else changes anything until this is dropped.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Changing> {
        // What is set follows what is in force and kept, so a panic elsewhere does not spoil it.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets how many PASIDs a tenant may have out.
    pub(crate) fn quota(&self, changing: &mut Changing, tenant: &str, quota: NewQuota) -> Answer {
        let mut next = changing.set.clone();
        let known = match quota {
            NewQuota::Number(number) => next.quotas.insert(tenant.to_owned(), number),
            NewQuota::Configured => next.quotas.remove(tenant),
        };
        let Some(member) = self.members.iter().find(|m| m.name == tenant) else {
            // Set for a tenant that the configuration no longer has: it can be forgotten, not changed.
            if quota == NewQuota::Configured && known.is_some() {
                return changing.keep_and_apply(next, || Ok(()));
            }
            let names: Vec<_> = self.members.iter().map(|m| m.name.as_str()).collect();
            let what = format!(
                "there is no tenant {tenant:?}; there is {}",
                names.join(", ")
            );
            return Err(Refusal::new(Errno::NOENT, what));
        };
        let wanted = match quota {
            NewQuota::Number(number) => number,
            NewQuota::Configured => member.quota,
        };
        not_too_many(next.quotas.len())?;
        let before = member.set.quota();
        // Only changes take from what is left, and this is the only one: the answer stays true.
        let fits = wanted.saturating_sub(before) <= self.authority.unreserved();
        if wanted > before && fits {
            return changing
                .keep_and_apply(next, || member.set.adjust(wanted).map_err(|e| refused(&e)));
        }
        changing.apply_and_keep(
            next,
            || {
                member.set.adjust(wanted).map_err(|e| {
                    let errno = Errno::from_raw_os_error(e.errno());
                    Refusal::new(errno, format!("{tenant}: {e}"))
                })
            },
            |()| member.set.adjust(before),
        )
    }

    /// Makes a group.
    pub(crate) fn create_group(
        &self,
        changing: &mut Changing,
        name: &str,
        max: NewLimit,
        parent: Option<&str>,
    ) -> Answer {
        if !is_name(name) {
            let what = format!("name {name:?}: 1 to 64 letters, digits, '-' and '_' are allowed");
            return Err(Refusal::new(Errno::INVAL, what));
        }
        if changing.groups.get(name).is_some() {
            let what = format!("a group named {name:?} is already there");
            return Err(Refusal::new(Errno::EXIST, what));
        }
        if let Some(parent) = parent.filter(|p| changing.groups.get(p).is_none()) {
            return Err(changing.groups.no_such(parent));
        }
        let (limit, kept) = match max {
            NewLimit::Max(max) => (Limit::Max(max), Some(kept_limit(max)?)),
            NewLimit::Unlimited => (Limit::Unlimited, None),
            NewLimit::Configured => return Err(not_configured(name)),
        };
        let mut next = changing.set.clone();
        let parent = parent.map(str::to_owned);
        next.groups.insert(name.to_owned(), parent.clone());
        match kept {
            Some(max) => next.limits.insert(name.to_owned(), Some(max)),
            None => next.limits.remove(name),
        };
        not_too_many(next.groups.len().max(next.limits.len()))?;
        let above = changing.groups.id_of(parent.as_deref());
        let mut made = None;
        changing.apply_and_keep(
            next,
            || {
                let id = self.authority.create_group(above, limit);
                let id = id.map_err(|e| match (e, &parent) {
                    (IoasidError::GroupTooDeep { .. }, Some(parent)) => Refusal::new(
                        Errno::INVAL,
                        format!(
                            "nothing can be put below {parent}: the tree is as deep as it may be"
                        ),
                    ),
                    (other, _) => refused(&other),
                })?;
                made = Some(id);
                Ok(id)
            },
            |id| self.authority.remove_group(id),
        )?;
        if let Some(id) = made {
            let origin = Origin::RunTime;
            changing.groups.insert(name, Group { id, parent, origin });
        }
        Ok(())
    }

    /// Sets the limit of a group.
    pub(crate) fn limit_group(&self, changing: &mut Changing, name: &str, max: NewLimit) -> Answer {
        let mut next = changing.set.clone();
        let Some(group) = changing.groups.get(name).cloned() else {
            if max == NewLimit::Configured && next.limits.remove(name).is_some() {
                return changing.keep_and_apply(next, || Ok(()));
            }
            return Err(changing.groups.no_such(name));
        };
        let limit = match (max, group.origin) {
            (NewLimit::Max(max), _) => {
                next.limits.insert(name.to_owned(), Some(kept_limit(max)?));
                Limit::Max(max)
            }
            (NewLimit::Unlimited, _) => {
                next.limits.insert(name.to_owned(), None);
                Limit::Unlimited
            }
            (NewLimit::Configured, Origin::Configuration(limit)) => {
                next.limits.remove(name);
                limit
            }
            (NewLimit::Configured, Origin::RunTime) => return Err(not_configured(name)),
        };
        not_too_many(next.limits.len())?;
        // A limit takes nothing away and never fails: tighter or not, it can be written first.
        changing.keep_and_apply(next, || {
            let set = self.authority.set_group_max(group.id, limit);
            set.map_err(|e| refused(&e))
        })
    }

    /// Removes a group that was made at run time.
    pub(crate) fn remove_group(&self, changing: &mut Changing, name: &str) -> Answer {
        let mut next = changing.set.clone();
        let was_made = next.groups.remove(name).is_some();
        let Some(group) = changing.groups.get(name).cloned() else {
            if was_made {
                next.limits.remove(name);
                return changing.keep_and_apply(next, || Ok(()));
            }
            return Err(changing.groups.no_such(name));
        };
        next.limits.remove(name);
        if group.origin != Origin::RunTime {
            let what =
                format!("group {name} stands in the configuration: take it out there, and restart");
            return Err(Refusal::new(Errno::PERM, what));
        }
        changing.keep_and_apply(next, || {
            self.authority.remove_group(group.id).map_err(|e| {
                let refusal = refused(&e);
                if refusal.errno == "EBUSY" {
                    let what =
                        format!("group {name} has groups or tenants below it: remove those first");
                    return Refusal::new(Errno::BUSY, what);
                }
                refusal
            })
        })?;
        changing.groups.remove(name);
        Ok(())
    }

    /// Keeps PASIDs for the host's own users.
    pub(crate) fn reserve(&self, changing: &mut Changing, min: u32, max: u32) -> Answer {
        let range = range_of(min, max)?;
        let at_run_time = changing.set.reserved.iter();
        let at_run_time = at_run_time.map(|&(min, max)| PasidRange { min, max });
        let mut all = self.reserved.iter().copied().chain(at_run_time);
        if let Some(other) = all.find(|other| overlap(*other, range)) {
            let what = format!(
                "{} overlaps {}, which is reserved already",
                ends(range),
                ends(other)
            );
            return Err(Refusal::new(Errno::BUSY, what));
        }
        let mut next = changing.set.clone();
        next.reserved.insert((range.min, range.max));
        not_too_many(next.reserved.len())?;
        let authority = &self.authority;
        changing.apply_and_keep(
            next,
            || authority.reserve(range).map_err(|e| refused(&e)),
            |()| authority.unreserve(range),
        )
    }

    /// Gives back a range that was reserved at run time.
    pub(crate) fn unreserve(&self, changing: &mut Changing, min: u32, max: u32) -> Answer {
        let range = range_of(min, max)?;
        let mut next = changing.set.clone();
        if !next.reserved.remove(&(range.min, range.max)) {
            return Err(self.not_given_back(&changing.set, range));
        }
        changing.keep_and_apply(next, || {
            let given_back = self.authority.unreserve(range);
            given_back.map_err(|e| refused(&e))
        })
    }

    /// The refusal to give back what was not reserved at run time, or not as it is named.
    fn not_given_back(&self, set: &RunTime, range: PasidRange) -> Refusal {
        let range_named = ends(range);
        if let Some(other) = self.reserved.iter().find(|other| overlap(**other, range)) {
            let other = ends(*other);
            let what = format!(
                "{range_named}: {other} is reserved in the configuration: change it there, and restart"
            );
            return Refusal::new(Errno::PERM, what);
        }
        let mut at_run_time = set
            .reserved
            .iter()
            .map(|&(min, max)| PasidRange { min, max });
        let what = match at_run_time.find(|other| overlap(*other, range)) {
            Some(other) => {
                let other = ends(other);
                format!("{range_named} was not reserved, but {other}: give that back as a whole")
            }
            None => format!("{range_named} is not reserved"),
        };
        Refusal::new(Errno::INVAL, what)
    }

    /// The names of groups, for events.
    pub(crate) fn group_names(&self) -> BTreeMap<GroupId, String> {
        self.lock().groups.names().clone()
    }

    /// The tree, for the operator.
    pub(crate) fn groups(&self) -> control::Groups {
        let changing = self.lock();
        let tenants_of = |group: Option<&str>| {
            let own = self.members.iter().filter(|m| m.group.as_deref() == group);
            own.map(|m| m.name.clone()).collect()
        };
        let line = |(name, group): (&str, &Group)| {
            let usage = self.authority.group_usage(group.id).ok()?;
            Some(control::GroupLine {
                name: name.to_owned(),
                parent: group.parent.clone(),
                max: match usage.max {
                    Limit::Max(max) => Some(max),
                    Limit::Unlimited => None,
                },
                current: usage.current,
                events: usage.events,
                origin: group.origin.into(),
                max_origin: match changing.set.limits.get(name) {
                    Some(_) => control::Origin::RunTime,
                    None => group.origin.into(),
                },
                tenants: tenants_of(Some(name)),
            })
        };
        let groups = changing.groups.in_tree_order();
        control::Groups {
            current: self.authority.outstanding(),
            left: self.authority.unreserved(),
            tenants: tenants_of(None),
            groups: groups.into_iter().filter_map(line).collect(),
        }
    }

    /// What is reserved, for the operator.
    pub(crate) fn reserved(&self) -> control::Reserved {
        let line = |min, max, origin| control::ReservedRange { min, max, origin };
        let changing = self.lock();
        let at_run_time = changing.set.reserved.iter();
        let at_run_time = at_run_time.map(|&(min, max)| line(min, max, control::Origin::RunTime));
        let configured = self.reserved.iter();
        let configured = configured.map(|r| line(r.min, r.max, control::Origin::Configuration));
        let mut ranges: Vec<_> = configured.chain(at_run_time).collect();
        ranges.sort_unstable_by_key(|range| range.min);
        control::Reserved { ranges }
    }
}

fn not_configured(name: &str) -> Refusal {
    let what = format!("group {name} is not in the configuration: give a number or \"unlimited\"");
    Refusal::new(Errno::INVAL, what)
}

/// A limit as the state keeps it.
fn kept_limit(max: u32) -> Result<u32, Refusal> {
    if max < PASID_COUNT {
        return Ok(max);
    }
    let what = format!(
        "limit {max}: 0 to {} or \"unlimited\" is allowed",
        PASID_COUNT - 1
    );
    Err(Refusal::new(Errno::INVAL, what))
}
