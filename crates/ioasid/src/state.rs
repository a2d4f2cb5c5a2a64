//! The life of a PASID from allocation to the end, under the authority's lock.

use std::collections::HashMap;
use std::sync::Arc;

use palisade_units::{HostPasid, TenantId};

use crate::bindings::Bindings;
use crate::bitmap::FreeMap;
use crate::custom::Customs;
use crate::group::Groups;
use crate::labels::Label;
use crate::log::Log;
use crate::notify::{Letter, Notification, Outbox, Transition};
use crate::numbers::ByPasid;
use crate::records::{Owner, Records};
use crate::sets::{Set, SetId, Sets};
use crate::{
    CustomAllocator, Data, EventKind, FreeOutcome, IoasidError, PasidRange, PasidState, Request,
};

/// All that the authority knows, behind one lock.
pub(crate) struct State {
    pub(crate) free: FreeMap,
    pub(crate) records: Arc<Records>,
    pub(crate) labels: ByPasid<Label>,
    pub(crate) bindings: Bindings,
    pub(crate) data: HashMap<HostPasid, Data>,
    pub(crate) sets: Sets,
    /// Ids that are in no set's quota.
    pub(crate) unreserved: u32,
    /// What was reserved at run time.
    pub(crate) reserved: Vec<PasidRange>,
    pub(crate) customs: Customs,
    pub(crate) groups: Groups,
    pub(crate) log: Log,
    pub(crate) outbox: Outbox,
}

impl State {
    /// With every PASID free but 0 and those of `reserved`.
    pub(crate) fn new(reserved: &[PasidRange], log: Log) -> Self {
        let mut state = Self {
            free: FreeMap::full(),
            records: Arc::new(Records::new()),
            labels: ByPasid::zeroed(),
            bindings: Bindings::default(),
            data: HashMap::new(),
            sets: Sets::default(),
            unreserved: PasidRange::ALL.max,
            reserved: Vec::new(),
            customs: Customs::default(),
            groups: Groups::new(),
            log,
            outbox: Outbox::default(),
        };
        state.free.remove(0);
        for range in reserved {
            for number in range.min.max(PasidRange::ALL.min)..=range.last_pasid() {
                if state.free.contains(number) {
                    state.free.remove(number);
                    state.unreserved -= 1;
                }
            }
        }
        state
    }

    pub(crate) fn alloc(
        &mut self,
        id: SetId,
        tenant: TenantId,
        range: PasidRange,
    ) -> Result<HostPasid, IoasidError> {
        let set = may_alloc(&mut self.sets, id, tenant, range)?;
        let lowest = self.free.lowest_from(range.min);
        let pasid = lowest
            .filter(|lowest| *lowest <= range.last_pasid())
            .and_then(|lowest| HostPasid::new(lowest).ok())
            .ok_or(IoasidError::NoSpace { range })?;
        self.groups.charge(set.group)?;
        self.free.remove(pasid.get());
        let listed_at = set.list(pasid);
        let since = self.log.push(Some(tenant), EventKind::Allocated { pasid });
        let owner = Owner::new(tenant, id.slot);
        self.records.begin(pasid, owner, since, listed_at);
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
        may_alloc(&mut self.sets, id, tenant, range).map(|_| ())
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
        &self,
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
        let owner = self.owned(id, tenant, pasid)?;
        if !owner.is_free_pending() {
            self.free_live(owner, pasid);
        }
        Ok(())
    }

    /// Frees a PASID that is out and was not freed.
    fn free_live(&mut self, owner: Owner, pasid: HostPasid) {
        let outcome = match self.records.references(pasid) {
            0 => FreeOutcome::Reclaimed,
            _ => FreeOutcome::Pending,
        };
        let freed = EventKind::Freed { pasid, outcome };
        self.log.push(owner.tenant(), freed);
        self.announce(Transition::Free, pasid);
        if owner.is_labelled() {
            let guest = self.labels.at(pasid).guest();
            let set = self.sets.in_slot(owner.slot());
            guest.and_then(|guest| set?.guests.remove(&guest));
        }
        match outcome {
            FreeOutcome::Reclaimed => self.give_back(owner, pasid),
            FreeOutcome::Pending => self.records.set_owner(pasid, owner.free_pending()),
        }
    }

    pub(crate) fn free_range(&mut self, id: SetId, range: PasidRange) -> u32 {
        let mut freed = 0;
        for pasid in self.owned_within(id, range) {
            let owner = self.records.owner(pasid);
            if !owner.is_free_pending() {
                self.free_live(owner, pasid);
                freed += 1;
            }
        }
        freed
    }

    /// What a set has out in a range, ascending. The cost is that of what it has out or of the range,
    /// whichever is less.
    pub(crate) fn owned_within(&self, id: SetId, range: PasidRange) -> Vec<HostPasid> {
        let Some(set) = self.sets.get(id) else {
            return Vec::new();
        };
        let numbers = range.min..=range.last_pasid();
        if numbers.clone().count() < set.owned().len() {
            let pasids = numbers.filter_map(|number| HostPasid::new(number).ok());
            return pasids.filter(|pasid| self.is_in(id, *pasid)).collect();
        }
        let owned = set.owned().iter().copied();
        let mut owned: Vec<HostPasid> = owned.filter(|p| numbers.contains(&p.get())).collect();
        owned.sort_unstable();
        owned
    }

    pub(crate) fn state_of(
        &self,
        id: SetId,
        tenant: TenantId,
        pasid: HostPasid,
    ) -> Result<PasidState, IoasidError> {
        let owner = self.owned(id, tenant, pasid)?;
        Ok(self.life(owner, pasid))
    }

    /// Where a PASID that is out is in its life.
    pub(crate) fn life(&self, owner: Owner, pasid: HostPasid) -> PasidState {
        match (owner.is_free_pending(), self.records.references(pasid)) {
            (true, _) => PasidState::FreePending,
            (false, 0) => PasidState::Idle,
            (false, _) => PasidState::Active,
        }
    }

    /// Writes to the listeners of a PASID that is out.
    #[inline]
    pub(crate) fn announce(&mut self, kind: Transition, pasid: HostPasid) {
        if self.outbox.has_listeners() {
            self.write_to_listeners(kind, pasid);
        }
    }

    fn write_to_listeners(&mut self, kind: Transition, pasid: HostPasid) {
        let owner = self.records.owner(pasid);
        let (Some(tenant), Some(set)) = (owner.tenant(), self.sets.id_in_slot(owner.slot())) else {
            return;
        };
        let notification = Notification {
            kind,
            pasid,
            guest: self.labels.at(pasid).guest(),
            tenant,
            data: self.data.get(&pasid).copied(),
        };
        self.outbox.write(set, notification);
    }

    /// Whose a PASID is, if it is this set's.
    pub(crate) fn owned(
        &self,
        id: SetId,
        tenant: TenantId,
        pasid: HostPasid,
    ) -> Result<Owner, IoasidError> {
        let owner = self.records.owner(pasid);
        if !owner.is_out() {
            return Err(IoasidError::NotFound { pasid });
        }
        if !self.is_of(id, owner) {
            return Err(IoasidError::NotOwner { pasid, tenant });
        }
        Ok(owner)
    }

    /// Whose a PASID is, if it is this set's and was not freed.
    pub(crate) fn live(
        &self,
        id: SetId,
        tenant: TenantId,
        pasid: HostPasid,
    ) -> Result<Owner, IoasidError> {
        let owner = self.owned(id, tenant, pasid)?;
        if owner.is_free_pending() {
            return Err(IoasidError::FreePending { pasid });
        }
        Ok(owner)
    }

    /// Whether a PASID is out and in a set.
    pub(crate) fn is_in(&self, id: SetId, pasid: HostPasid) -> bool {
        let owner = self.records.owner(pasid);
        owner.is_out() && self.is_of(id, owner)
    }

    /// Whether a set is the one that the owner of a PASID that is out names.
    fn is_of(&self, id: SetId, owner: Owner) -> bool {
        owner.slot() == id.slot && self.sets.get(id).is_some()
    }

    /// The end of a PASID's life: the number may be given out again.
    pub(crate) fn give_back(&mut self, owner: Owner, pasid: HostPasid) {
        self.records.end(pasid);
        if owner.is_labelled() {
            self.labels.at_mut(pasid).set_guest(None);
        }
        self.free.insert(pasid.get());
        if !self.data.is_empty() {
            self.data.remove(&pasid);
        }
        if let Some(back) = self.customs.gone(pasid) {
            self.outbox.post(Letter::Return(back));
        }
        let listed_at = self.records.listed_at(pasid);
        if let Some(set) = self.sets.in_slot(owner.slot()) {
            set.unlist(listed_at, &self.records);
            self.groups.uncharge(set.group);
            if set.is_closed {
                self.remove_if_done(owner.slot());
            }
        }
    }

    /// Notes a request that was refused.
    #[cold]
    pub(crate) fn refused(
        &mut self,
        tenant: Option<TenantId>,
        request: Request,
        error: IoasidError,
    ) {
        let refused = EventKind::Refused { request, error };
        self.log.push(tenant, refused);
    }

    /// Notes what the operator asked for, done or refused.
    pub(crate) fn done<T>(
        &mut self,
        request: Request,
        answer: Result<T, IoasidError>,
        event: impl FnOnce(&T) -> EventKind,
    ) -> Result<T, IoasidError> {
        match &answer {
            Ok(done) => {
                self.log.push(None, event(done));
            }
            Err(error) => self.refused(None, request, *error),
        }
        answer
    }
}

/// The set, if it may have one more PASID.
fn may_alloc(
    sets: &mut Sets,
    id: SetId,
    tenant: TenantId,
    range: PasidRange,
) -> Result<&mut Set, IoasidError> {
    if range.is_inverted() {
        return Err(IoasidError::InvalidRange { range });
    }
    let set = sets.open(id, tenant)?;
    if set.outstanding() >= set.quota {
        let quota = set.quota;
        return Err(IoasidError::QuotaExceeded { tenant, quota });
    }
    Ok(set)
}
