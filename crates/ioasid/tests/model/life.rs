//! The life of a PASID in the model: who chooses it, who refers to it, what it is called, how it ends.

use palisade_ioasid::{EventKind, FreeOutcome, IoasidError, PasidRange, Put, Request, Transition};
use palisade_units::{Bdf, GuestPasid, HostPasid};

use crate::book::{ALLOCATORS, Book, Space, Told};
use crate::model::{Handle, Id, Model, count};
use crate::ops::CAPACITY;

impl Model {
    pub(crate) fn alloc(
        &mut self,
        handle: Handle,
        range: PasidRange,
    ) -> Result<HostPasid, IoasidError> {
        let Some(&active) = self.registered.first() else {
            let answer = self.take(handle, range, None);
            return self.judge(handle.tenant, Request::Allocate, answer);
        };
        let may = self.may_alloc(handle, range);
        self.judge(handle.tenant, Request::Allocate, may)?;
        let (space, instance) = ALLOCATORS[active];
        self.told.push(Told::Asked(space, instance, range));
        let chosen = self.book(space).choose(range);
        let no_space = IoasidError::NoSpace { range };
        let in_range = chosen.filter(|pasid| (range.min..=range.max).contains(&pasid.get()));
        let answer = match in_range {
            None => Err(no_space),
            Some(pasid) => match self.take(handle, PasidRange::only(pasid.get()), Some(space)) {
                Err(IoasidError::NoSpace { .. }) => Err(no_space),
                answer => answer,
            },
        };
        let answer = self.judge(handle.tenant, Request::Allocate, answer);
        if let (Err(_), Some(pasid)) = (answer, chosen) {
            self.return_to(active, pasid);
        }
        answer
    }

    fn may_alloc(&mut self, handle: Handle, range: PasidRange) -> Result<(), IoasidError> {
        if range.min > range.max {
            return Err(IoasidError::InvalidRange { range });
        }
        let quota = self.open(handle)?.quota;
        let tenant = handle.tenant;
        if count(self.out_of(handle.set).iter()) >= quota {
            return Err(IoasidError::QuotaExceeded { tenant, quota });
        }
        Ok(())
    }

    /// The lowest number of a range that is neither out nor reserved.
    fn take(
        &mut self,
        handle: Handle,
        range: PasidRange,
        chosen_by: Option<Space>,
    ) -> Result<HostPasid, IoasidError> {
        self.may_alloc(handle, range)?;
        let mut numbers = (1..=CAPACITY)
            .filter(|number| (range.min..=range.max).contains(number) && !self.is_reserved(*number))
            .map(|number| HostPasid::new(number).unwrap());
        let found = numbers.find(|pasid| !self.ids.contains_key(pasid));
        let pasid = found.ok_or(IoasidError::NoSpace { range })?;
        drop(numbers);
        let group = self.open(handle)?.group;
        self.check_groups(group)?;
        let id = Id {
            set: handle.set,
            tenant: handle.tenant,
            is_pending: false,
            guest: None,
            data: None,
            since: self.now(),
            chosen_by,
        };
        self.ids.insert(pasid, id);
        self.note(handle.tenant, EventKind::Allocated { pasid });
        self.announce(Transition::Alloc, pasid);
        Ok(pasid)
    }

    pub(crate) fn free(&mut self, handle: Handle, pasid: HostPasid) -> Result<(), IoasidError> {
        let id = self.mine(handle, pasid)?;
        if std::mem::replace(&mut id.is_pending, true) {
            return Ok(());
        }
        let outcome = match self.references(pasid) {
            0 => FreeOutcome::Reclaimed,
            _ => FreeOutcome::Pending,
        };
        self.note(handle.tenant, EventKind::Freed { pasid, outcome });
        self.announce(Transition::Free, pasid);
        if outcome == FreeOutcome::Reclaimed {
            self.end(pasid);
        }
        Ok(())
    }

    pub(crate) fn free_range(&mut self, handle: Handle, range: PasidRange) -> u32 {
        let mut freed = 0;
        for pasid in self.owned_within(handle, range) {
            if !self.ids[&pasid].is_pending {
                self.free(handle, pasid).unwrap();
                freed += 1;
            }
        }
        freed
    }

    pub(crate) fn owned_within(&self, handle: Handle, range: PasidRange) -> Vec<HostPasid> {
        let mut owned = self.out_of(handle.set);
        owned.retain(|pasid| range.min <= pasid.get() && pasid.get() <= range.max);
        owned
    }

    /// The number may be given out again, and goes back to who chose it.
    fn end(&mut self, pasid: HostPasid) {
        let id = self.ids.remove(&pasid).unwrap();
        let mut registered = self.registered.iter();
        let taker = registered.find(|at| Some(ALLOCATORS[**at].0) == id.chosen_by);
        if let Some(&taker) = taker {
            self.return_to(taker, pasid);
        }
        self.forget_empty_sets();
    }

    fn book(&mut self, space: Space) -> &mut Book {
        match space {
            Space::Highest => &mut self.books[0],
            Space::Stubborn => &mut self.books[1],
        }
    }

    fn return_to(&mut self, allocator: usize, pasid: HostPasid) {
        let (space, instance) = ALLOCATORS[allocator];
        self.told.push(Told::Returned(space, instance, pasid));
        self.book(space).take_back(pasid);
    }

    pub(crate) fn register(&mut self, allocator: usize) -> Result<(), IoasidError> {
        if self.registered.contains(&allocator) {
            return Err(IoasidError::AllocatorExists);
        }
        let by_default = self.ids.values().filter(|id| id.chosen_by.is_none());
        let outstanding = count(by_default);
        if outstanding > 0 {
            return Err(IoasidError::DefaultAllocatorBusy { outstanding });
        }
        self.registered.push(allocator);
        self.book(ALLOCATORS[allocator].0).clear();
        Ok(())
    }

    pub(crate) fn unregister(&mut self, allocator: usize) -> Result<(), IoasidError> {
        let at = self.registered.iter().position(|other| *other == allocator);
        self.registered
            .remove(at.ok_or(IoasidError::AllocatorNotFound)?);
        Ok(())
    }

    /// A hold that was given back.
    pub(crate) fn put(&mut self, at: usize) -> Put {
        let pasid = self.holds.swap_remove(at);
        self.after_put(pasid)
    }

    pub(crate) fn drop_holds_on(&mut self, pasid: HostPasid) {
        while let Some(at) = self.holds.iter().position(|held| *held == pasid) {
            self.holds.remove(at);
            self.after_put(pasid);
        }
    }

    fn after_put(&mut self, pasid: HostPasid) -> Put {
        if self.references(pasid) > 0 {
            return Put::OthersRemain;
        }
        if self.ids[&pasid].is_pending {
            self.note(self.ids[&pasid].tenant, EventKind::Reclaimed { pasid });
            self.end(pasid);
        }
        Put::Last
    }

    pub(crate) fn bind(&mut self, pasid: HostPasid, place: Bdf) -> Result<(), IoasidError> {
        let id = &self.ids[&pasid];
        let tenant = id.tenant;
        if id.is_pending {
            let refused = Err(IoasidError::FreePending { pasid });
            return self.judge(tenant, Request::Bind, refused);
        }
        self.note(tenant, EventKind::Bound { pasid, place });
        self.marks.push((pasid, place));
        if self.entries(pasid) == 1 {
            self.announce(Transition::Bind, pasid);
        }
        Ok(())
    }

    pub(crate) fn unbind(&mut self, at: usize) {
        let (pasid, place) = self.marks.swap_remove(at);
        self.note(self.ids[&pasid].tenant, EventKind::Unbound { pasid, place });
        if self.entries(pasid) == 0 {
            self.announce(Transition::Unbind, pasid);
        }
        self.after_put(pasid);
    }

    pub(crate) fn attach(
        &mut self,
        handle: Handle,
        guest: GuestPasid,
        host: HostPasid,
    ) -> Result<(), IoasidError> {
        let is_named = self.live(handle, host)?.guest.is_some();
        if is_named || self.paired(handle, guest).is_ok() {
            return Err(IoasidError::AlreadyPaired { guest, host });
        }
        self.live(handle, host)?.guest = Some(guest);
        Ok(())
    }

    /// The PASID that a guest's number means in a set. A pair ends when its PASID is freed, though
    /// the PASID is still called so.
    pub(crate) fn paired(
        &mut self,
        handle: Handle,
        guest: GuestPasid,
    ) -> Result<HostPasid, IoasidError> {
        self.open(handle)?;
        let mut ids = self.ids.iter();
        let pair =
            ids.find(|(_, id)| id.set == handle.set && !id.is_pending && id.guest == Some(guest));
        pair.map(|(pasid, _)| *pasid)
            .ok_or(IoasidError::GuestNotFound {
                tenant: handle.tenant,
                guest,
            })
    }
}
