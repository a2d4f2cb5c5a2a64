use std::collections::{BTreeMap, HashMap};

use palisade_units::{Bdf, GuestPasid, HostPasid, TenantId};

use crate::bitmap::{FreeMap, OwnedIds};
use crate::custom::Customs;
use crate::event::Log;
use crate::notify::{Letter, Notification, Outbox, Transition};
use crate::records::{Freed, Record, Records, SetId};
use crate::{
    CustomAllocator, Data, EventKind, FaultCode, FreeOutcome, IoasidError, LedgerEntry, PasidRange,
    PasidState, Put, Quota, Request,
};

struct Set {
    tenant: TenantId,
    quota: u32,
    outstanding: u32,
    owned: OwnedIds,
    guests: HashMap<GuestPasid, HostPasid>,
    is_closed: bool,
}

/// All that the authority knows, behind one lock.
pub(crate) struct State {
    free: FreeMap,
    records: Records,
    sets: BTreeMap<SetId, Set>,
    next_set: u32,
    /// Ids that are in no set's quota.
    unreserved: u32,
    data: HashMap<HostPasid, Data>,
    pub(crate) customs: Customs,
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
            log,
            outbox: Outbox::default(),
        }
    }

    pub(crate) fn create_set(
        &mut self,
        tenant: TenantId,
        quota: Quota,
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
        self.next_set = self
            .next_set
            .checked_add(1)
            .ok_or(IoasidError::NoCapacity {
                wanted: quota,
                available: 0,
            })?;
        self.unreserved -= quota;
        let set = Set {
            tenant,
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
        self.free.remove(pasid.get());
        let set = self.open_set(id, tenant)?;
        set.outstanding += 1;
        set.owned.insert(pasid.get());
        let since = self.log.push(Some(tenant), EventKind::Allocated { pasid });
        *self.records.slot(pasid) = Some(Record::new(id, since));
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

    /// One more reference, for a new hold.
    pub(crate) fn get(
        &mut self,
        id: SetId,
        tenant: TenantId,
        pasid: HostPasid,
    ) -> Result<(), IoasidError> {
        self.live(id, tenant, pasid)?.references += 1;
        Ok(())
    }

    /// One more reference beside one that exists, which a free-pending PASID allows too.
    pub(crate) fn get_again(&mut self, pasid: HostPasid) {
        if let Some(record) = self.records.get_mut(pasid) {
            record.references += 1;
        }
    }

    /// A hold goes. Says whether it was the last.
    pub(crate) fn put(&mut self, pasid: HostPasid) -> Put {
        let Some(record) = self.records.get_mut(pasid) else {
            return Put::Last;
        };
        record.references -= 1;
        if record.references > 0 {
            return Put::OthersRemain;
        }
        if record.freed == Freed::Pending {
            let owner = self.owner_of(pasid);
            self.log.push(owner, EventKind::Reclaimed { pasid });
            self.give_back(pasid);
        }
        Put::Last
    }

    /// An entry of a PASID is in a table. The caller has a reference.
    pub(crate) fn bound(&mut self, pasid: HostPasid, place: Bdf) -> Result<(), IoasidError> {
        let owner = self.owner_of(pasid);
        let record = self.records.get_mut(pasid);
        let record = record.ok_or(IoasidError::NotFound { pasid })?;
        if record.freed == Freed::Pending {
            return Err(IoasidError::FreePending { pasid });
        }
        record.bindings += 1;
        let is_first = record.bindings == 1;
        self.log.push(owner, EventKind::Bound { pasid, place });
        if is_first {
            self.announce(Transition::Bind, pasid);
        }
        Ok(())
    }

    /// An entry that [`State::bound`] told of is gone. The caller has a reference.
    pub(crate) fn unbound(&mut self, pasid: HostPasid, place: Bdf) {
        let owner = self.owner_of(pasid);
        let Some(record) = self.records.get_mut(pasid) else {
            return;
        };
        record.bindings -= 1;
        let was_last = record.bindings == 0;
        self.log.push(owner, EventKind::Unbound { pasid, place });
        if was_last {
            self.announce(Transition::Unbind, pasid);
        }
    }

    pub(crate) fn faulted(&mut self, pasid: HostPasid, place: Bdf, reason: FaultCode) {
        let owner = self.owner_of(pasid);
        let fault = EventKind::Faulted {
            pasid,
            place,
            reason,
        };
        self.log.push(owner, fault);
    }

    /// Notes a request that was refused.
    pub(crate) fn note<T>(
        &mut self,
        tenant: TenantId,
        request: Request,
        answer: Result<T, IoasidError>,
    ) -> Result<T, IoasidError> {
        answer.inspect_err(|&error| {
            let refused = EventKind::Refused { request, error };
            self.log.push(Some(tenant), refused);
        })
    }

    pub(crate) fn attach_guest(
        &mut self,
        id: SetId,
        tenant: TenantId,
        guest: GuestPasid,
        host: HostPasid,
    ) -> Result<(), IoasidError> {
        let paired = IoasidError::AlreadyPaired { guest, host };
        if self.live(id, tenant, host)?.guest().is_some() {
            return Err(paired);
        }
        let set = self.open_set(id, tenant)?;
        if set.guests.contains_key(&guest) {
            return Err(paired);
        }
        set.guests.insert(guest, host);
        self.live(id, tenant, host)?.set_guest(Some(guest));
        Ok(())
    }

    pub(crate) fn detach_guest(
        &mut self,
        id: SetId,
        tenant: TenantId,
        guest: GuestPasid,
    ) -> Result<HostPasid, IoasidError> {
        let host = self
            .open_set(id, tenant)?
            .guests
            .remove(&guest)
            .ok_or(IoasidError::GuestNotFound { tenant, guest })?;
        if let Some(record) = self.records.get_mut(host) {
            record.set_guest(None);
        }
        Ok(host)
    }

    pub(crate) fn host_of(
        &mut self,
        id: SetId,
        tenant: TenantId,
        guest: GuestPasid,
    ) -> Result<HostPasid, IoasidError> {
        let set = self.open_set(id, tenant)?;
        let host = set.guests.get(&guest).copied();
        host.ok_or(IoasidError::GuestNotFound { tenant, guest })
    }

    pub(crate) fn guest_of(&self, id: SetId, host: HostPasid) -> Option<GuestPasid> {
        let record = self.records.get(host)?;
        if record.set == id {
            record.guest()
        } else {
            None
        }
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
    fn announce(&mut self, kind: Transition, pasid: HostPasid) {
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

    fn open_set(&mut self, id: SetId, tenant: TenantId) -> Result<&mut Set, IoasidError> {
        let set = self.sets.get_mut(&id).filter(|set| !set.is_closed);
        set.ok_or(IoasidError::Closed { tenant })
    }

    /// The record of a PASID, if it is this set's.
    fn owned(
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
    fn live(
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
    fn give_back(&mut self, pasid: HostPasid) {
        let Some(record) = self.records.slot(pasid).take() else {
            return;
        };
        self.free.insert(pasid.get());
        self.data.remove(&pasid);
        if let Some(allocator) = self.customs.gone(pasid) {
            self.outbox.post(Letter::Return { pasid, allocator });
        }
        if let Some(set) = self.sets.get_mut(&record.set) {
            set.outstanding -= 1;
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
        }
    }
}
