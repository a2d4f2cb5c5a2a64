//! The sets that there are, found by their handles, by their tenants and from a PASID's owner word.

use std::collections::HashMap;

use palisade_units::{GuestPasid, HostPasid, TenantId};

use crate::IoasidError;
use crate::group::Place;
use crate::numbers::index;
use crate::records::{MAX_SETS, Records};

/// Names a set for ever: a slot is used again under another generation, so a stale handle finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SetId {
    pub(crate) slot: u32,
    generation: u64,
}

pub(crate) struct Set {
    pub(crate) tenant: TenantId,
    pub(crate) group: Place,
    pub(crate) quota: u32,
    /// What it has out, in no order. Each one's record says where it stands here.
    owned: Vec<HostPasid>,
    pub(crate) guests: HashMap<GuestPasid, HostPasid>,
    pub(crate) is_closed: bool,
}

impl Set {
    pub(crate) fn new(tenant: TenantId, group: Place, quota: u32) -> Self {
        Self {
            tenant,
            group,
            quota,
            owned: Vec::new(),
            guests: HashMap::new(),
            is_closed: false,
        }
    }

    pub(crate) fn outstanding(&self) -> u32 {
        u32::try_from(self.owned.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn owned(&self) -> &[HostPasid] {
        &self.owned
    }

    /// Lists a PASID and says where.
    pub(crate) fn list(&mut self, pasid: HostPasid) -> u32 {
        let at = self.outstanding();
        self.owned.push(pasid);
        at
    }

    /// Takes the PASID that stands at a place off the list. The last one takes its place.
    pub(crate) fn unlist(&mut self, at: u32, records: &Records) {
        self.owned.swap_remove(index(at));
        if let Some(moved) = self.owned.get(index(at)) {
            records.set_listed_at(*moved, at);
        }
    }
}

struct Slot {
    generation: u64,
    set: Option<Set>,
}

#[derive(Default)]
pub(crate) struct Sets {
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    by_tenant: HashMap<TenantId, u32>,
}

impl Sets {
    pub(crate) fn has_one_of(&self, tenant: TenantId) -> bool {
        self.by_tenant.contains_key(&tenant)
    }

    /// Adds a set, of a tenant that has none.
    ///
    /// # Errors
    /// [`IoasidError::NoCapacity`] when there are as many as there can be.
    pub(crate) fn insert(&mut self, set: Set) -> Result<SetId, IoasidError> {
        let tenant = set.tenant;
        let full = IoasidError::NoCapacity {
            wanted: set.quota,
            available: 0,
        };
        let slot = match self.vacant.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.slots.len()).map_err(|_| full)?;
                if slot == MAX_SETS {
                    return Err(full);
                }
                self.slots.push(Slot {
                    generation: 0,
                    set: None,
                });
                slot
            }
        };
        let place = &mut self.slots[index(slot)];
        place.set = Some(set);
        self.by_tenant.insert(tenant, slot);
        Ok(SetId {
            slot,
            generation: place.generation,
        })
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<Set> {
        let place = self.slots.get_mut(index(slot))?;
        let set = place.set.take()?;
        place.generation += 1;
        self.vacant.push(slot);
        self.by_tenant.remove(&set.tenant);
        Some(set)
    }

    pub(crate) fn get(&self, id: SetId) -> Option<&Set> {
        let slot = self.slots.get(index(id.slot))?;
        slot.set
            .as_ref()
            .filter(|_| slot.generation == id.generation)
    }

    /// A set that was not closed.
    ///
    /// # Errors
    /// [`IoasidError::Closed`].
    pub(crate) fn open(&mut self, id: SetId, tenant: TenantId) -> Result<&mut Set, IoasidError> {
        let set = self.slots.get_mut(index(id.slot)).and_then(|slot| {
            let is_same = slot.generation == id.generation;
            slot.set.as_mut().filter(|set| is_same && !set.is_closed)
        });
        set.ok_or(IoasidError::Closed { tenant })
    }

    /// The set in a slot, as the owner word of a PASID that is out names it.
    pub(crate) fn in_slot(&mut self, slot: u32) -> Option<&mut Set> {
        self.slots.get_mut(index(slot))?.set.as_mut()
    }

    /// The name of the set in a slot.
    pub(crate) fn id_in_slot(&self, slot: u32) -> Option<SetId> {
        let generation = self.slots.get(index(slot))?.generation;
        Some(SetId { slot, generation })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Set> {
        self.slots.iter().filter_map(|slot| slot.set.as_ref())
    }
}
