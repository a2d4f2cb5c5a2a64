//! What an earlier daemon was told at run time, brought together with the configuration of this one.
//!
//! The operator's word holds over the configuration's. What is for a name that the configuration no longer has is
//! kept and told of, since the name may come back; what cannot be in force beside the configuration is refused,
//! since a host with other limits than it was told is worse than one that does not start.

use std::collections::BTreeMap;

use palisade_ioasid::{Authority, Limit, PasidRange};
use palisade_units::PASID_COUNT;

use super::{
    changing::Changing,
    groups::{Group, Groups, Origin},
};
use crate::{
    config::{HostConfig, TenantConfig},
    state::{RunTime, StateError, Store},
};

/// Why a host cannot have the limits that it was told to have.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// A group of the configuration.
    #[error("group {group:?}")]
    Group {
        /// Its name.
        group: String,
        /// Why.
        source: palisade_ioasid::IoasidError,
    },
    /// What was set at run time does not fit the configuration.
    #[error("{state}: {what}")]
    DoesNotFit {
        /// Where it is kept.
        state: String,
        /// What does not fit, and what to do.
        what: String,
    },
}

/// The limits of a host before it has tenants.
pub(crate) struct Restored {
    pub(crate) authority: Authority,
    pub(crate) changing: Changing,
}

impl Restored {
    /// Reads what was kept and puts it in force.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub(crate) fn new(
        config: &HostConfig,
        audit: palisade_ioasid::Audit,
    ) -> Result<Self, RestoreError> {
        let (store, mut set) = match &config.state {
            Some(folder) => {
                let (store, set) = Store::open(folder)?;
                (Some(store), set)
            }
            None => (None, RunTime::default()),
        };
        let file = store.as_ref().map(|s| s.file().display().to_string());
        let file = file.unwrap_or_default();
        let does_not_fit = |what| RestoreError::DoesNotFit {
            state: file.clone(),
            what,
        };
        reserved(config, &mut set).map_err(does_not_fit)?;
        quotas(config, &set).map_err(does_not_fit)?;
        let authority = Authority::with_audit(&config.reserved, audit);
        for &(min, max) in &set.reserved {
            authority
                .reserve(PasidRange { min, max })
                .map_err(|e| does_not_fit(format!("{min}-{max} was reserved at run time: {e}")))?;
        }
        let groups = Groups::configured(&authority, &config.groups)
            .map_err(|(group, source)| RestoreError::Group { group, source })?;
        let groups = groups_made(&authority, groups, &mut set);
        limits(&authority, &groups, &set);
        let changing = Changing { groups, set, store };
        Ok(Self {
            authority,
            changing,
        })
    }

    /// What a tenant's quota is.
    pub(crate) fn quota(&self, tenant: &TenantConfig) -> u32 {
        let set = self.changing.set.quotas.get(&tenant.name);
        *set.unwrap_or(&tenant.quota)
    }
}

/// Ranges that the configuration has by now are its own; others must not share a number with one of its.
fn reserved(config: &HostConfig, set: &mut RunTime) -> Result<(), String> {
    for (min, max) in set.reserved.clone() {
        let covers = |r: &&PasidRange| r.min <= min && max <= r.max;
        let shares = |r: &&PasidRange| r.min <= max && min <= r.max;
        if config.reserved.iter().any(|r| covers(&r)) {
            tracing::info!("{min}-{max}, reserved at run time, is in the configuration now");
            set.reserved.remove(&(min, max));
        } else if let Some(range) = config.reserved.iter().find(shares) {
            return Err(format!(
                "{min}-{max} was reserved at run time and overlaps [{}, {}] of the configuration: let `reserved` there \
                 have all of it or nothing of it",
                range.min, range.max
            ));
        }
    }
    Ok(())
}

/// The quotas as they are to be have to fit beside what is reserved.
fn quotas(config: &HostConfig, set: &RunTime) -> Result<(), String> {
    for (tenant, quota) in &set.quotas {
        if config.tenant(tenant).is_none() {
            tracing::warn!(
                tenant,
                quota,
                "the quota was set at run time, and the configuration has no such tenant; `palisade ctl quota {tenant} \
                 configured` forgets it"
            );
        }
    }
    let wanted = |t: &TenantConfig| u64::from(*set.quotas.get(&t.name).unwrap_or(&t.quota));
    let quotas: u64 = config.tenants.iter().map(wanted).sum();
    let len = |min: u32, max: u32| u64::from(max - min + 1);
    let configured: u64 = config.reserved.iter().map(|r| len(r.min, r.max)).sum();
    let at_run_time: u64 = set.reserved.iter().map(|r| len(r.0, r.1)).sum();
    let capacity = u64::from(PASID_COUNT - 1);
    let reserved = configured + at_run_time;
    if quotas + reserved <= capacity {
        return Ok(());
    }
    let own = config.tenants.iter().filter_map(|t| {
        let quota = set.quotas.get(&t.name)?;
        Some(format!("quota {quota} of tenant {:?}", t.name))
    });
    let ranges = set.reserved.iter();
    let ranges = ranges.map(|(min, max)| format!("reserved {min}-{max}"));
    let own: Vec<_> = own.chain(ranges).collect();
    Err(format!(
        "what was set at run time ({}) does not fit the configuration any more: quotas of {quotas} and {reserved} \
         reserved PASIDs are more than {capacity}; lower other quotas in the configuration, or start with the one \
         before and lower these with `palisade ctl`",
        own.join(", ")
    ))
}

/// Makes the groups again that the configuration has not.
fn groups_made(authority: &Authority, mut groups: Groups, set: &mut RunTime) -> Groups {
    set.groups.retain(|name, _| {
        let is_configured = groups.get(name).is_some();
        if is_configured {
            tracing::info!(
                group = name,
                "made at run time, and in the configuration now"
            );
        }
        !is_configured
    });
    let mut open: BTreeMap<&String, &Option<String>> = set.groups.iter().collect();
    loop {
        let is_ready =
            |parent: &Option<String>| parent.as_ref().is_none_or(|p| groups.get(p).is_some());
        let ready = open.iter().find(|(_, parent)| is_ready(parent));
        let Some((&name, &parent)) = ready else {
            break;
        };
        open.remove(name);
        let above = groups.id_of(parent.as_deref());
        match authority.create_group(above, Limit::Unlimited) {
            Ok(id) => groups.insert(
                name,
                Group {
                    id,
                    parent: parent.clone(),
                    origin: Origin::RunTime,
                },
            ),
            Err(e) => tracing::warn!(group = name, "made at run time, and not made again: {e}"),
        }
    }
    for (name, parent) in open {
        let parent = parent.as_deref().unwrap_or_default();
        tracing::warn!(
            group = name,
            "made at run time below {parent}, which is not there any more; `palisade ctl group remove {name}` forgets it"
        );
    }
    groups
}

/// Limits set at run time hold also for groups of the configuration.
fn limits(authority: &Authority, groups: &Groups, set: &RunTime) {
    for (name, max) in &set.limits {
        let max = max.map_or(Limit::Unlimited, Limit::Max);
        let done = groups
            .get(name)
            .map(|group| authority.set_group_max(group.id, max));
        match done {
            Some(Ok(())) => {}
            Some(Err(e)) => tracing::warn!(group = name, "its limit is not set: {e}"),
            None => tracing::warn!(
                group = name,
                "its limit was set at run time, and there is no such group; `palisade ctl group limit {name} \
                 configured` forgets it"
            ),
        }
    }
}
