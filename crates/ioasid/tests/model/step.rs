//! One operation on the model, and what either side answers.

use palisade_ioasid::{
    Data, EventKind, GroupId, GroupUsage, IoasidError, Notification, PasidRange, PasidState,
    Priority, Put, Request, Transition,
};
use palisade_units::{GuestPasid, HostPasid, TenantId};

use crate::book::{ALLOCATORS, Told};
use crate::model::{Ear, Handle, Model, count};
use crate::ops::{Habit, Op, place_of};

pub(crate) type Outcome = Result<Answer, IoasidError>;

#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    Done,
    Pasid(HostPasid),
    Pasids(Vec<HostPasid>),
    Count(u32),
    Held(HostPasid, TenantId),
    Put(Put),
    Usage(GroupUsage),
    Look {
        tenant: TenantId,
        quota: u32,
        outstanding: u32,
        guest: Option<GuestPasid>,
        state: Result<PasidState, IoasidError>,
        data: Result<Option<Data>, IoasidError>,
    },
}

impl Model {
    /// `name` is what the authority calls the group that was created last.
    pub(crate) fn apply(&mut self, op: &Op, name: Option<GroupId>) -> Outcome {
        let answer = self.apply_alone(op, name);
        self.let_listeners_act();
        answer
    }

    /// Listeners act when they are told, which is after all that the operation itself does. What that
    /// makes happen is told last.
    fn let_listeners_act(&mut self) {
        let mut read = 0;
        while let Some(&told) = self.told.get(read) {
            read += 1;
            if let Told::Listener(name, Notification { kind, pasid, .. }) = told {
                let lets_go = |ear: &Ear| ear.name == name && ear.habit == Habit::LetsGo;
                if kind == Transition::Free && self.ears.iter().any(lets_go) {
                    self.drop_holds_on(pasid);
                }
            }
        }
    }

    fn apply_alone(&mut self, op: &Op, name: Option<GroupId>) -> Outcome {
        match *op {
            Op::CreateSet(tenant, quota) => {
                let answer = self.create_set(GroupId::ROOT, tenant, quota);
                self.judge(tenant, Request::CreateSet, answer)?;
            }
            Op::CreateSetIn(pick, tenant, quota) => {
                let answer = self.create_set(self.picked(pick), tenant, quota);
                self.judge(tenant, Request::CreateSet, answer)?;
            }
            Op::DropSet(pick) => {
                if let Some(at) = place_of(pick, self.handles.len()) {
                    self.drop_handle(at);
                }
            }
            Op::ShareSet(pick)
            | Op::Close(pick)
            | Op::Adjust(pick, _)
            | Op::Alloc(pick, _)
            | Op::Free(pick, _)
            | Op::FreeRange(pick, _)
            | Op::SetData(pick, ..)
            | Op::Look(pick, _)
            | Op::Owned(pick, _)
            | Op::Hold(pick, _)
            | Op::Attach(pick, ..)
            | Op::Detach(pick, _)
            | Op::FindGuest(pick, _)
            | Op::ListenToSet(pick, ..) => {
                if let Some(at) = place_of(pick, self.handles.len()) {
                    return self.apply_to_set(self.handles[at], op);
                }
            }
            Op::CloneHold(pick) | Op::DropHold(pick) | Op::Put(pick) | Op::Bind(pick, _) => {
                if let Some(at) = place_of(pick, self.holds.len()) {
                    return self.apply_to_hold(at, op);
                }
            }
            Op::HoldOfMark(pick) => {
                if let Some(at) = place_of(pick, self.marks.len()) {
                    return Ok(self.keep(self.marks[at].0));
                }
            }
            Op::Unbind(pick) => {
                if let Some(at) = place_of(pick, self.marks.len()) {
                    self.unbind(at);
                }
            }
            Op::Fault(pasid, place, reason) => {
                let fault = EventKind::Faulted {
                    pasid,
                    place,
                    reason,
                };
                let tenant = self.ids.get(&pasid).map(|id| id.tenant);
                self.events.push((tenant, fault));
            }
            Op::FaultOf(tenant, pasid, place, reason) => {
                let fault = EventKind::Faulted {
                    pasid,
                    place,
                    reason,
                };
                self.note(tenant, fault);
            }
            Op::CreateGroup(parent, max) => {
                let parent = self.picked(parent);
                let answer = self.create_group(parent, max, name);
                let group = name.unwrap_or(GroupId::ROOT);
                let created = EventKind::GroupCreated { group, parent, max };
                self.done(Request::Group, answer, created)?;
            }
            Op::RemoveGroup(group) => {
                let group = self.picked(group);
                let answer = self.remove_group(group);
                self.done(Request::Group, answer, EventKind::GroupRemoved { group })?;
            }
            Op::SetGroupMax(group, max) => {
                let group = self.picked(group);
                let answer = self.set_group_max(group, max);
                let changed = EventKind::GroupLimitChanged { group, max };
                self.done(Request::Group, answer, changed)?;
            }
            Op::GroupUsage(group) => return self.usage(self.picked(group)).map(Answer::Usage),
            Op::Reserve(range) => {
                let answer = self.reserve(range);
                self.done(Request::Reserve, answer, EventKind::Reserved { range })?;
            }
            Op::Unreserve(at) => {
                let fresh = PasidRange::only(u32::try_from(at).unwrap());
                let range = self.reserved.get(at).copied().unwrap_or(fresh);
                let answer = self.unreserve(range);
                self.done(Request::Reserve, answer, EventKind::Unreserved { range })?;
            }
            Op::Register(allocator) => {
                let answer = self.register(allocator);
                let (_, instance) = ALLOCATORS[allocator];
                let registered = EventKind::AllocatorRegistered { instance };
                self.done(Request::Allocator, answer, registered)?;
            }
            Op::Unregister(allocator) => {
                let answer = self.unregister(allocator);
                let (_, instance) = ALLOCATORS[allocator];
                let unregistered = EventKind::AllocatorUnregistered { instance };
                self.done(Request::Allocator, answer, unregistered)?;
            }
            Op::Listen(priority, habit) => self.listen(priority, habit, None),
            Op::Unlisten(pick) => {
                if let Some(at) = place_of(pick, self.ears.len()) {
                    self.ears.remove(at);
                }
            }
            Op::Quiet => return Ok(Answer::Count(self.quiet())),
        }
        Ok(Answer::Done)
    }

    fn apply_to_set(&mut self, handle: Handle, op: &Op) -> Outcome {
        match *op {
            Op::ShareSet(_) => self.handles.push(handle),
            Op::Close(_) => self.close(handle),
            Op::Adjust(_, quota) => {
                let answer = self.adjust(handle, quota);
                self.judge(handle.tenant, Request::Adjust, answer)?;
            }
            Op::Alloc(_, range) => return self.alloc(handle, range).map(Answer::Pasid),
            Op::Free(_, pasid) => {
                let answer = self.free(handle, pasid);
                self.judge(handle.tenant, Request::Free, answer)?;
            }
            Op::FreeRange(_, range) => return Ok(Answer::Count(self.free_range(handle, range))),
            Op::SetData(_, pasid, data) => self.mine(handle, pasid)?.data = data,
            Op::Look(_, pasid) => return Ok(self.look(handle, pasid)),
            Op::Owned(_, range) => return Ok(Answer::Pasids(self.owned_within(handle, range))),
            Op::Hold(_, pasid) => {
                let answer = self.live(handle, pasid).map(|_| ());
                self.judge(handle.tenant, Request::Hold, answer)?;
                return Ok(self.keep(pasid));
            }
            Op::Attach(_, guest, pasid) => {
                let answer = self.attach(handle, guest, pasid);
                self.judge(handle.tenant, Request::Pair, answer)?;
            }
            Op::Detach(_, guest) => {
                let pasid = self.paired(handle, guest)?;
                self.live(handle, pasid)?.guest = None;
                return Ok(Answer::Pasid(pasid));
            }
            Op::FindGuest(_, guest) => {
                let pasid = self.paired(handle, guest)?;
                return Ok(self.keep(pasid));
            }
            Op::ListenToSet(_, priority, habit) => {
                self.listen(priority, habit, Some(handle.set));
            }
            _ => unreachable!("{op:?} is not of a set"),
        }
        Ok(Answer::Done)
    }

    fn apply_to_hold(&mut self, at: usize, op: &Op) -> Outcome {
        match *op {
            Op::CloneHold(_) => return Ok(self.keep(self.holds[at])),
            Op::Bind(_, place) => self.bind(self.holds[at], place)?,
            Op::Put(_) => return Ok(Answer::Put(self.put(at))),
            Op::DropHold(_) => {
                self.put(at);
            }
            _ => unreachable!("{op:?} is not of a hold"),
        }
        Ok(Answer::Done)
    }

    fn look(&mut self, handle: Handle, pasid: HostPasid) -> Answer {
        let mut sets = self.sets.iter().filter(|set| set.number == handle.set);
        let quota = sets.next().map_or(0, |set| set.quota);
        let outstanding = count(self.out_of(handle.set).iter());
        let mine = self.mine(handle, pasid);
        let guest = mine.as_ref().ok().and_then(|id| id.guest);
        let data = mine.map(|id| id.data);
        Answer::Look {
            tenant: handle.tenant,
            quota,
            outstanding,
            guest,
            state: data.map(|_| self.state_of(pasid)),
            data,
        }
    }

    fn keep(&mut self, pasid: HostPasid) -> Answer {
        self.holds.push(pasid);
        Answer::Held(pasid, self.ids[&pasid].tenant)
    }

    fn picked(&self, pick: usize) -> GroupId {
        place_of(pick, self.named.len()).map_or(GroupId::ROOT, |at| self.named[at])
    }

    fn listen(&mut self, priority: Priority, habit: Habit, set: Option<u32>) {
        self.listened += 1;
        self.ears.push(Ear {
            name: self.listened,
            priority,
            habit,
            set,
        });
    }

    fn quiet(&mut self) -> u32 {
        while !self.marks.is_empty() {
            self.unbind(self.marks.len() - 1);
        }
        while !self.holds.is_empty() {
            self.put(self.holds.len() - 1);
        }
        let handles = self.handles.clone();
        let freed = handles
            .into_iter()
            .map(|handle| self.free_range(handle, PasidRange::ALL));
        freed.sum()
    }
}
