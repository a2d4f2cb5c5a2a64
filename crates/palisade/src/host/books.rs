//! What a host answers its operator.

use std::{collections::BTreeMap, sync::Arc};

use palisade_ioasid::{Authority, GroupId, LedgerEntry, Sequence};
use palisade_units::TenantId;

use super::{
    changing::Changing,
    functions::{Functions, Wanted},
    limits::Limits,
    tenant::Tenant,
};
use crate::control::{self, Books, Change, Changed, EventLine, EventPage, Names, Refusal};

/// What the threads of a host share.
pub(super) struct Shared {
    pub(super) authority: Authority,
    pub(super) tenants: Vec<Arc<Tenant>>,
    pub(super) limits: Limits,
    pub(super) functions: Functions,
}

struct EventNames<'a> {
    tenants: BTreeMap<TenantId, &'a str>,
    groups: BTreeMap<GroupId, String>,
}

impl Names for EventNames<'_> {
    fn tenant(&self, id: TenantId) -> Option<String> {
        self.tenants.get(&id).map(|name| (*name).to_owned())
    }

    fn group(&self, id: GroupId) -> String {
        match self.groups.get(&id) {
            Some(name) => format!("group {name}"),
            None if id == GroupId::ROOT => "the host".to_owned(),
            None => id.to_string(),
        }
    }
}

impl Books for Shared {
    fn ledger(&self) -> control::Ledger {
        let entries = self.authority.ledger();
        let outstanding = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let mut of_tenant: BTreeMap<TenantId, Vec<LedgerEntry>> = BTreeMap::new();
        for entry in entries {
            of_tenant.entry(entry.tenant).or_default().push(entry);
        }
        let mut line = |tenant: &Arc<Tenant>| {
            let own = of_tenant.remove(&tenant.id());
            tenant.ledger(&own.unwrap_or_default())
        };
        control::Ledger {
            outstanding,
            tenants: self.tenants.iter().map(&mut line).collect(),
        }
    }

    fn events(&self, since: u64) -> EventPage {
        let found = self.authority.events_since(Sequence::new(since));
        let names = EventNames {
            tenants: self.tenants.iter().map(|t| (t.id(), t.name())).collect(),
            groups: self.limits.group_names(),
        };
        EventPage {
            events: found
                .events
                .iter()
                .map(|e| EventLine::new(e, &names))
                .collect(),
            dropped: found.dropped,
            next: found.next.get(),
        }
    }

    fn groups(&self) -> control::Groups {
        self.limits.groups()
    }

    fn reserved(&self) -> control::Reserved {
        self.limits.reserved()
    }

    fn mdevs(&self) -> control::Mdevs {
        self.functions.lines()
    }

    fn change(&self, change: Change) -> Result<Changed, Refusal> {
        let mut changing = self.limits.lock();
        let done = self.apply(&mut changing, change)?;
        tracing::info!("{done}");
        Ok(Changed {
            change: done,
            kept: changing.kept(),
        })
    }
}

impl Shared {
    /// Makes a change, and says which one, with all that was left to the host to choose.
    fn apply(&self, changing: &mut Changing, change: Change) -> Result<Change, Refusal> {
        let limits = &self.limits;
        match &change {
            Change::Quota { tenant, quota } => limits.quota(changing, tenant, *quota),
            Change::CreateGroup { name, max, parent } => {
                limits.create_group(changing, name, *max, parent.as_deref())
            }
            Change::LimitGroup { name, max } => limits.limit_group(changing, name, *max),
            Change::RemoveGroup { name } => limits.remove_group(changing, name),
            Change::Reserve { min, max } => limits.reserve(changing, *min, *max),
            Change::Unreserve { min, max } => limits.unreserve(changing, *min, *max),
            Change::CreateMdev {
                parent,
                kind,
                tenant,
                uuid,
                socket,
                guest_bdf,
            } => {
                let wanted = Wanted {
                    parent,
                    kind: *kind,
                    tenant,
                    uuid: uuid.as_deref(),
                    socket: socket.as_deref(),
                    guest_bdf: guest_bdf.as_deref(),
                };
                return self.functions.create(changing, &wanted);
            }
            Change::RemoveMdev { uuid } => self.functions.remove(changing, uuid),
        }?;
        Ok(change)
    }
}
