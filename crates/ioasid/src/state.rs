use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use palisade_units::{GuestPasid, HostPasid, TenantId};

use crate::bitmap::{FreeMap, OwnedIds};
use crate::custom::Customs;
use crate::event::Log;
use crate::group::Groups;
use crate::notify::{Letter, Notification, Outbox, Transition};
use crate::owners::Owners;
use crate::records::{Freed, Record, Records, SetId};
use crate::{
    CustomAllocator, Data, EventKind, FreeOutcome, GroupId, IoasidError, LedgerEntry, PasidRange,
    PasidState, Quota,
};

pub(super) struct Set {
    tenant: TenantId,
    group: GroupId,
    quota: u32,
    outstanding: u32,
    owned: OwnedIds,
    pub(super) guests: HashMap<GuestPasid, HostPasid>,
    is_closed: bool,
}

/// All that the authority knows, behind one lock.
pub(crate) struct State {
    free: FreeMap,
    pub(super) records: Records,
    sets: BTreeMap<SetId, Set>,
    next_set: u32,
    /// Ids that are in no set's quota.
    unreserved: u32,
    data: HashMap<HostPasid, Data>,
    pub(crate) customs: Customs,
    pub(crate) groups: Groups,
    /// What was reserved at run time.
    reserved: Vec<PasidRange>,
    pub(crate) owners: Arc<Owners>,
    pub(crate) log: Log,
    pub(crate) outbox: Outbox,
}

impl State {
    pub(crate) fn new(reserved: &[PasidRange], log: Log) -> Self {
        let mut free = FreeMap::empty();
        let mut unreserved = 0;
        for id in PasidRange::ALL.min..=PasidRange::ALL.max {
            if !reserved.iter().any(|r| (r.min..=r.max).contains(&id)) {
                free.insert(id);
                unreserved += 1;
            }
        }
        Self {
            free,
            records: Records::new(),
            sets: BTreeMap::new(),
            next_set: 0,
            unreserved,
            data: HashMap::new(),
            customs: Customs::default(),
            groups: Groups::new(),
            reserved: Vec::new(),
            owners: Arc::new(Owners::new()),
            log,
            outbox: Outbox::default(),
        }
    }

    pub(crate) fn create_set(
        &mut self,
        tenant: TenantId,
        quota: Quota,
        group: GroupId,
    ) -> Result<SetId, IoasidError> {
        if self.sets.values().any(|set| set.tenant == tenant) {
            return Err(IoasidError::Exists { tenant });
        }
        let available = self.unreserved;
        let quota = match quota {
            Quota::Exactly(wanted) if wanted > available => {
                return Err(IoasidError::NoCapacity { wanted, available });
            }
            Quota::Exactly(wanted) => wanted,
            Quota::AllThatIsLeft if available == 0 => {
                return Err(IoasidError::NoCapacity {
                    wanted: 1,
                    available,
                });
            }
            Quota::AllThatIsLeft => available,
        };
        let id = SetId(self.next_set);
        let next = self.next_set.checked_add(1);
        let next = next.ok_or(IoasidError::NoCapacity {
            wanted: quota,
            available: 0,
        })?;
        self.groups.enter(group)?;
        self.next_set = next;
        self.unreserved -= quota;
        let set = Set {
            tenant,
            group,
            quota,
            outstanding: 0,
            owned: OwnedIds::default(),
            guests: HashMap::new(),
            is_closed: false,
        };
        self.sets.insert(id, set);
        self.log.push(Some(tenant), EventKind::SetCreated { quota });
        Ok(id)
    }

    pub(crate) fn quota(&self, id: SetId) -> u32 {
        self.sets.get(&id).map_or(0, |set| set.quota)
    }

    pub(crate) fn outstanding(&self, id: SetId) -> u32 {
        self.sets.get(&id).map_or(0, |set| set.outstanding)
    }

    pub(crate) fn outstanding_of_all(&self) -> u32 {
        self.sets.values().map(|set| set.outstanding).sum()
    }

    pub(crate) fn unreserved(&self) -> u32 {
        self.unreserved
    }

    /// Takes a range out of what can be given out: all of it or nothing.
    pub(crate) fn reserve(&mut self, range: PasidRange) -> Result<(), IoasidError> {
        let numbers = range.min..=range.last_pasid();
        if range.min < PasidRange::ALL.min || numbers.is_empty() {
            return Err(IoasidError::InvalidRange { range });
        }
        let wanted = numbers.end() - numbers.start() + 1;
        let taken = numbers
            .clone()
            .find(|number| self.free.lowest_from(*number) != Some(*number));
        if let Some(pasid) = taken.and_then(|number| HostPasid::new(number).ok()) {
            return Err(IoasidError::InUse { pasid });
        }
        let available = self.unreserved;
        if wanted > available {
            return Err(IoasidError::NoCapacity { wanted, available });
        }
        self.unreserved -= wanted;
        numbers.for_each(|number| self.free.remove(number));
        self.reserved.push(range);
        Ok(())
    }

    /// Gives a range back that [`State::reserve`] took.
    pub(crate) fn unreserve(&mut self, range: PasidRange) -> Result<(), IoasidError> {
        let at = self.reserved.iter().position(|other| *other == range);
        let range = self
            .reserved
            .swap_remove(at.ok_or(IoasidError::NotReserved { range })?);
        for number in range.min..=range.last_pasid() {
            self.free.insert(number);
            self.unreserved += 1;
        }
        Ok(())
    }

    pub(crate) fn reserved(&self) -> &[PasidRange] {
        &self.reserved
    }

    pub(crate) fn adjust(
        &mut self,
        id: SetId,
        tenant: TenantId,
        wanted: u32,
    ) -> Result<(), IoasidError> {
        let unreserved = self.unreserved;
        let set = self.open_set(id, tenant)?;
        let outstanding = set.outstanding;
        if wanted < outstanding {
            return Err(IoasidError::InvalidQuota {
                wanted,
                outstanding,
            });
        }
        let available = unreserved + set.quota;
        if wanted > available {
            return Err(IoasidError::NoCapacity { wanted, available });
        }
        set.quota = wanted;
        self.unreserved = available - wanted;
        let changed = EventKind::QuotaChanged { quota: wanted };
        self.log.push(Some(tenant), changed);
        Ok(())
    }

    pub(crate) fn alloc(
        &mut self,
        id: SetId,
        tenant: TenantId,
        range: PasidRange,
    ) -> Result<HostPasid, IoasidError> {
        self.may_alloc(id, tenant, range)?;
        let found = self.free.lowest_from(range.min);
        let pasid = found
            .filter(|lowest| *lowest <= range.last_pasid())
            .and_then(|lowest| HostPasid::new(lowest).ok())
            .ok_or(IoasidError::NoSpace { range })?;
        let group = self.open_set(id, tenant)?.group;
        self.groups.check(group)?;
        self.groups.charge(group);
        self.free.remove(pasid.get());
        let set = self.open_set(id, tenant)?;
        set.outstanding += 1;
        set.owned.insert(pasid.get());
        let since = self.log.push(Some(tenant), EventKind::Allocated { pasid });
        *self.records.slot(pasid) = Some(Record::new(id, since));
        self.owners.out(pasid, tenant);
        self.announce(Transition::Alloc, pasid);
        Ok(pasid)
    }

    /// Whether a set may have one more PASID, wherever the number comes from.
    pub(crate) fn may_alloc(
        &mut self,
        id: SetId,
        tenant: TenantId,
        range: PasidRange,
    ) -> Result<(), IoasidError> {
        if range.is_inverted() {
            return Err(IoasidError::InvalidRange { range });
        }
        let set = self.open_set(id, tenant)?;
        if set.outstanding >= set.quota {
            let quota = set.quota;
            return Err(IoasidError::QuotaExceeded { tenant, quota });
        }
        Ok(())
    }

    /// Takes the number that an allocator chose.
    pub(crate) fn alloc_chosen(
        &mut self,
        id: SetId,
        tenant: TenantId,
        range: PasidRange,
        (chosen, allocator): (HostPasid, &CustomAllocator),
    ) -> Result<HostPasid, IoasidError> {
        let no_space = IoasidError::NoSpace { range };
        if !(range.min..=range.max).contains(&chosen.get()) {
            return Err(no_space);
        }
        let answer = self.alloc(id, tenant, PasidRange::only(chosen.get()));
        let pasid = answer.map_err(|error| match error {
            IoasidError::NoSpace { .. } => no_space,
            other => other,
        })?;
        self.customs.took(pasid, allocator);
        Ok(pasid)
    }

    pub(crate) fn find(
        &mut self,
        id: SetId,
        tenant: TenantId,
        pasid: HostPasid,
    ) -> Result<Option<Data>, IoasidError> {
        self.owned(id, tenant, pasid)?;
        Ok(self.data.get(&pasid).copied())
    }

    pub(crate) fn set_data(
        &mut self,
        id: SetId,
        tenant: TenantId,
        pasid: HostPasid,
        data: Option<Data>,
    ) -> Result<(), IoasidError> {
        self.owned(id, tenant, pasid)?;
        match data {
            Some(data) => self.data.insert(pasid, data),
            None => self.data.remove(&pasid),
        };
        Ok(())
    }

    pub(crate) fn free(
        &mut self,
        id: SetId,
        tenant: TenantId,
        pasid: HostPasid,
    ) -> Result<(), IoasidError> {
        let record = self.owned(id, tenant, pasid)?;
        if record.freed == Freed::Pending {
            return Ok(());
        }
        record.freed = Freed::Pending;
        let (guest, references) = (record.guest(), record.references);
        let outcome = if references == 0 {
            FreeOutcome::Reclaimed
        } else {
            FreeOutcome::Pending
        };
        let freed = EventKind::Freed { pasid, outcome };
        self.log.push(Some(tenant), freed);
        self.owners.free_pending(pasid, tenant);
        self.announce(Transition::Free, pasid);
        if let (Some(guest), Some(set)) = (guest, self.sets.get_mut(&id)) {
            set.guests.remove(&guest);
        }
        if outcome == FreeOutcome::Reclaimed {
            self.give_back(pasid);
        }
        Ok(())
    }

    pub(crate) fn free_range(&mut self, id: SetId, tenant: TenantId, range: PasidRange) -> u32 {
        let mut freed = 0;
        for pasid in self.owned_within(id, range) {
            let is_live = self
                .records
                .get(pasid)
                .is_some_and(|record| record.freed == Freed::No);
            if is_live && self.free(id, tenant, pasid).is_ok() {
                freed += 1;
            }
        }
        freed
    }

    pub(crate) fn owned_within(&self, id: SetId, range: PasidRange) -> Vec<HostPasid> {
        let Some(set) = self.sets.get(&id) else {
            return Vec::new();
        };
        let ids = set.owned.within(range.min, range.last_pasid());
        ids.into_iter()
            .filter_map(|id| HostPasid::new(id).ok())
            .collect()
    }

    pub(crate) fn state_of(
        &mut self,
        id: SetId,
        tenant: TenantId,
        pasid: HostPasid,
    ) -> Result<PasidState, IoasidError> {
        self.owned(id, tenant, pasid).map(|record| record.state())
    }

    pub(crate) fn close(&mut self, id: SetId, tenant: TenantId) {
        self.free_range(id, tenant, PasidRange::ALL);
        if let Some(set) = self.sets.get_mut(&id).filter(|set| !set.is_closed) {
            set.is_closed = true;
            self.log.push(Some(tenant), EventKind::SetClosed);
        }
        self.remove_if_done(id);
    }

    pub(crate) fn owner_of(&self, pasid: HostPasid) -> Option<TenantId> {
        let record = self.records.get(pasid)?;
        self.sets.get(&record.set).map(|set| set.tenant)
    }

    /// Every PASID that is out, ascending.
    pub(crate) fn ledger(&self) -> Vec<LedgerEntry> {
        let mut entries = Vec::new();
        for (&id, set) in &self.sets {
            for pasid in self.owned_within(id, PasidRange::ALL) {
                if let Some(record) = self.records.get(pasid) {
                    entries.push(LedgerEntry {
                        pasid,
                        tenant: set.tenant,
                        guest: record.guest(),
                        references: record.references,
                        bindings: record.bindings,
                        state: record.state(),
                        since: record.since,
                    });
                }
            }
        }
        entries.sort_unstable_by_key(|entry| entry.pasid);
        entries
    }

    /// Writes to the listeners of a PASID that is out.
    pub(super) fn announce(&mut self, kind: Transition, pasid: HostPasid) {
        let Some(record) = self.records.get(pasid) else {
            return;
        };
        let Some(set) = self.sets.get(&record.set) else {
            return;
        };
        let notification = Notification {
            kind,
            pasid,
            guest: record.guest(),
            tenant: set.tenant,
            data: self.data.get(&pasid).copied(),
        };
        self.outbox.write(record.set, notification);
    }

    pub(super) fn open_set(
        &mut self,
        id: SetId,
        tenant: TenantId,
    ) -> Result<&mut Set, IoasidError> {
        let set = self.sets.get_mut(&id).filter(|set| !set.is_closed);
        set.ok_or(IoasidError::Closed { tenant })
    }

    /// The record of a PASID, if it is this set's.
    pub(super) fn owned(
        &mut self,
        id: SetId,
        tenant: TenantId,
        pasid: HostPasid,
    ) -> Result<&mut Record, IoasidError> {
        match self.records.get_mut(pasid) {
            None => Err(IoasidError::NotFound { pasid }),
            Some(record) if record.set != id => Err(IoasidError::NotOwner { pasid, tenant }),
            Some(record) => Ok(record),
        }
    }

    /// The record of a PASID that is this set's and was not freed.
    pub(super) fn live(
        &mut self,
        id: SetId,
        tenant: TenantId,
        pasid: HostPasid,
    ) -> Result<&mut Record, IoasidError> {
        let record = self.owned(id, tenant, pasid)?;
        match record.freed {
            Freed::No => Ok(record),
            Freed::Pending => Err(IoasidError::FreePending { pasid }),
        }
    }

    /// The end of a PASID's life: the number may be given out again.
    pub(super) fn give_back(&mut self, pasid: HostPasid) {
        let Some(record) = self.records.slot(pasid).take() else {
            return;
        };
        self.owners.gone(pasid);
        self.free.insert(pasid.get());
        self.data.remove(&pasid);
        if let Some(allocator) = self.customs.gone(pasid) {
            self.outbox.post(Letter::Return { pasid, allocator });
        }
        if let Some(set) = self.sets.get_mut(&record.set) {
            set.outstanding -= 1;
            self.groups.uncharge(set.group);
            set.owned.remove(pasid.get());
        }
        self.remove_if_done(record.set);
    }

    fn remove_if_done(&mut self, id: SetId) {
        let is_done = |set: &Set| set.is_closed && set.outstanding == 0;
        if self.sets.get(&id).is_some_and(is_done)
            && let Some(set) = self.sets.remove(&id)
        {
            self.unreserved += set.quota;
            self.groups.leave(set.group);
        }
    }
}

#[cfg(test)]
impl State {
    /// What is kept for the PASIDs that are out, in bytes, as the containers say their capacity. The
    /// tables of a hash map are powers of two at 7/8 of which they grow, with a byte beside each entry.
    pub(crate) fn footprint_bytes(&self) -> usize {
        let pairs = self.sets.values().map(|set| set.guests.capacity());
        let pair_tables = pairs.map(|capacity| (capacity * 8 / 7).next_power_of_two() * 9);
        // An entry for each 64 ids, in nodes that are half full at worst.
        let owned_words = self.sets.values().map(|set| set.owned.words() * 16 * 2);
        let bitmap = 1024 * 1024 / 8 * 2;
        let owners = 1024 * 1024 * size_of::<u64>();
        let lists: usize = pair_tables.sum::<usize>() + owned_words.sum::<usize>();
        self.records.footprint_bytes() + lists + bitmap + owners
    }
}
