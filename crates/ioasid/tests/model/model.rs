//! The naive model: plain maps and lists, every question answered by looking at all of it.

use std::collections::BTreeMap;

use palisade_ioasid::{
    Binding, Data, EventKind, GroupId, IoasidError, Limit, Notification, PasidRange, PasidState,
    Priority, Request, Timestamp, Transition,
};
use palisade_units::{Bdf, GuestPasid, HostPasid, TenantId};

use crate::book::{Book, Space, Told};
use crate::ops::Habit;

/// One PASID that is out. How often it is held and bound is to be counted.
pub(crate) struct Id {
    pub(crate) set: u32,
    pub(crate) tenant: TenantId,
    pub(crate) is_pending: bool,
    pub(crate) guest: Option<GuestPasid>,
    pub(crate) data: Option<Data>,
    /// The time of the event of its allocation.
    pub(crate) since: Timestamp,
    /// Who chose the number, if not the default.
    pub(crate) chosen_by: Option<Space>,
}

/// One set, until its last PASID is gone after it was closed. Numbers count the sets that ever were.
pub(crate) struct Set {
    pub(crate) number: u32,
    pub(crate) tenant: TenantId,
    pub(crate) group: GroupId,
    pub(crate) quota: u32,
    pub(crate) is_closed: bool,
}

/// A handle of a set, which may be gone.
#[derive(Clone, Copy)]
pub(crate) struct Handle {
    pub(crate) set: u32,
    pub(crate) tenant: TenantId,
}

pub(crate) struct Group {
    pub(crate) id: GroupId,
    pub(crate) parent: Option<GroupId>,
    pub(crate) max: Limit,
    pub(crate) events: u64,
}

/// Who listens, in the order of subscription.
pub(crate) struct Ear {
    pub(crate) name: u32,
    pub(crate) priority: Priority,
    pub(crate) habit: Habit,
    /// The set listened to, or all of them.
    pub(crate) set: Option<u32>,
}

pub(crate) struct Model {
    pub(crate) ids: BTreeMap<HostPasid, Id>,
    pub(crate) sets: Vec<Set>,
    pub(crate) created: u32,
    pub(crate) handles: Vec<Handle>,
    pub(crate) holds: Vec<HostPasid>,
    pub(crate) marks: Vec<(HostPasid, Bdf)>,
    pub(crate) groups: Vec<Group>,
    /// Every group that ever was.
    pub(crate) named: Vec<GroupId>,
    pub(crate) reserved: Vec<PasidRange>,
    /// Places in [`ALLOCATORS`](crate::book::ALLOCATORS), the active one first.
    pub(crate) registered: Vec<usize>,
    pub(crate) books: [Book; 2],
    pub(crate) ears: Vec<Ear>,
    pub(crate) listened: u32,
    /// Everything that ever happened; an event's number is its place.
    pub(crate) events: Vec<(Option<TenantId>, EventKind)>,
    /// The calls that the operation in hand makes.
    pub(crate) told: Vec<Told>,
}

impl Model {
    pub(crate) fn new() -> Self {
        let root = Group {
            id: GroupId::ROOT,
            parent: None,
            max: Limit::Unlimited,
            events: 0,
        };
        Self {
            ids: BTreeMap::new(),
            sets: Vec::new(),
            created: 0,
            handles: Vec::new(),
            holds: Vec::new(),
            marks: Vec::new(),
            groups: vec![root],
            named: vec![GroupId::ROOT],
            reserved: Vec::new(),
            registered: Vec::new(),
            books: [Book::new(Space::Highest), Book::new(Space::Stubborn)],
            ears: Vec::new(),
            listened: 0,
            events: Vec::new(),
            told: Vec::new(),
        }
    }

    /// The set that a handle speaks of, if it takes requests still.
    pub(crate) fn open(&mut self, handle: Handle) -> Result<&mut Set, IoasidError> {
        let mut sets = self.sets.iter_mut();
        let found = sets.find(|set| set.number == handle.set && !set.is_closed);
        found.ok_or(IoasidError::Closed {
            tenant: handle.tenant,
        })
    }

    /// A PASID of a handle's set, freed or not.
    pub(crate) fn mine(
        &mut self,
        handle: Handle,
        pasid: HostPasid,
    ) -> Result<&mut Id, IoasidError> {
        let tenant = handle.tenant;
        match self.ids.get_mut(&pasid) {
            None => Err(IoasidError::NotFound { pasid }),
            Some(id) if id.set != handle.set => Err(IoasidError::NotOwner { pasid, tenant }),
            Some(id) => Ok(id),
        }
    }

    /// A PASID of a handle's set that was not freed.
    pub(crate) fn live(
        &mut self,
        handle: Handle,
        pasid: HostPasid,
    ) -> Result<&mut Id, IoasidError> {
        let id = self.mine(handle, pasid)?;
        if id.is_pending {
            return Err(IoasidError::FreePending { pasid });
        }
        Ok(id)
    }

    pub(crate) fn out_of(&self, set: u32) -> Vec<HostPasid> {
        let ids = self.ids.iter().filter(|(_, id)| id.set == set);
        ids.map(|(pasid, _)| *pasid).collect()
    }

    pub(crate) fn entries(&self, pasid: HostPasid) -> u32 {
        count(self.marks.iter().filter(|mark| mark.0 == pasid))
    }

    /// Where a PASID is in a table, by function, and how often.
    pub(crate) fn bindings(&self, pasid: HostPasid) -> Vec<Binding> {
        let marks = self.marks.iter().filter(|mark| mark.0 == pasid);
        let mut places: Vec<Bdf> = marks.map(|mark| mark.1).collect();
        places.sort_by_key(|place| place.requester_id());
        let same = places.chunk_by(|one, next| one == next);
        same.map(|same| Binding {
            place: same[0],
            entries: count(same.iter()),
        })
        .collect()
    }

    /// Every hold is a reference, and each mark has one too.
    pub(crate) fn references(&self, pasid: HostPasid) -> u32 {
        count(self.holds.iter().filter(|held| **held == pasid)) + self.entries(pasid)
    }

    pub(crate) fn state_of(&self, pasid: HostPasid) -> PasidState {
        match (self.ids[&pasid].is_pending, self.references(pasid)) {
            (true, _) => PasidState::FreePending,
            (false, 0) => PasidState::Idle,
            (false, _) => PasidState::Active,
        }
    }

    pub(crate) fn is_reserved(&self, number: u32) -> bool {
        let mut ranges = self.reserved.iter();
        ranges.any(|range| (range.min..=range.max).contains(&number))
    }

    pub(crate) fn note(&mut self, tenant: impl Into<Option<TenantId>>, kind: EventKind) {
        self.events.push((tenant.into(), kind));
    }

    /// Notes a request that was refused.
    pub(crate) fn judge<T>(
        &mut self,
        tenant: impl Into<Option<TenantId>>,
        request: Request,
        answer: Result<T, IoasidError>,
    ) -> Result<T, IoasidError> {
        if let Err(error) = answer {
            self.note(tenant, EventKind::Refused { request, error });
        }
        answer
    }

    /// The time of the event that is noted next. The clock ticks once for each, and first to 1.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_nanos(u64::try_from(self.events.len()).unwrap() + 1)
    }

    /// Notes what the operator asked for, done or refused.
    pub(crate) fn done(
        &mut self,
        request: Request,
        answer: Result<(), IoasidError>,
        event: EventKind,
    ) -> Result<(), IoasidError> {
        self.judge(None, request, answer)?;
        self.note(None, event);
        Ok(())
    }

    /// Tells those who listen, by priority and then by age, of a PASID that is out.
    pub(crate) fn announce(&mut self, kind: Transition, pasid: HostPasid) {
        let id = &self.ids[&pasid];
        let notification = Notification {
            kind,
            pasid,
            guest: id.guest,
            tenant: id.tenant,
            data: id.data,
        };
        for priority in [
            Priority::Cpu,
            Priority::Iommu,
            Priority::Device,
            Priority::Last,
        ] {
            for ear in &self.ears {
                if ear.priority == priority && ear.set.is_none_or(|set| set == id.set) {
                    self.told.push(Told::Listener(ear.name, notification));
                }
            }
        }
    }
}

pub(crate) fn count<T>(these: impl Iterator<Item = T>) -> u32 {
    u32::try_from(these.count()).unwrap()
}
