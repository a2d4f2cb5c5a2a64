//! The authority itself, with everything that it handed out.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use palisade_ioasid::{
    Audit, Authority, BindMark, Clock, CustomAllocator, GroupId, Hold, Instance, Listener,
    Notification, Operations, PasidRange, PasidSet, Subscription, Timestamp, Transition,
};
use palisade_units::HostPasid;

use crate::book::{ALLOCATORS, Book, Space, Told};
use crate::ops::{CAPACITY, Habit, Op, place_of};
use crate::step::{Answer, Outcome};

pub(crate) struct Real {
    pub(crate) authority: Authority,
    pub(crate) handles: Vec<PasidSet>,
    holds: Holds,
    marks: Vec<BindMark>,
    named: Vec<GroupId>,
    listened: u32,
    subscriptions: Vec<Subscription>,
    allocators: [CustomAllocator; 3],
    books: [Arc<Chooser>; 2],
    told: Arc<Mutex<Vec<Told>>>,
}

/// Counts how often it was asked.
#[derive(Default)]
struct Ticks(Mutex<u64>);

impl Clock for Ticks {
    fn now(&self) -> Timestamp {
        let mut ticks = self.0.lock().unwrap();
        *ticks += 1;
        Timestamp::from_nanos(*ticks)
    }
}

struct Chooser {
    space: Space,
    book: Mutex<Book>,
    told: Arc<Mutex<Vec<Told>>>,
}

impl Operations for Chooser {
    fn alloc(&self, instance: Instance, range: PasidRange) -> Option<HostPasid> {
        let asked = Told::Asked(self.space, instance, range);
        self.told.lock().unwrap().push(asked);
        self.book.lock().unwrap().choose(range)
    }

    fn free(&self, instance: Instance, pasid: HostPasid) {
        let returned = Told::Returned(self.space, instance, pasid);
        self.told.lock().unwrap().push(returned);
        self.book.lock().unwrap().take_back(pasid);
    }
}

/// Shared with the listeners that let go.
type Holds = Arc<Mutex<Vec<Hold>>>;

struct Ear {
    name: u32,
    habit: Habit,
    holds: Holds,
    told: Arc<Mutex<Vec<Told>>>,
}

impl Listener for Ear {
    fn notify(&self, notification: &Notification) {
        let heard = Told::Listener(self.name, *notification);
        self.told.lock().unwrap().push(heard);
        if notification.kind == Transition::Free && self.habit == Habit::LetsGo {
            let mut holds = self.holds.lock().unwrap();
            let all = std::mem::take(&mut *holds).into_iter();
            let (gone, kept) = all.partition(|hold| hold.pasid() == notification.pasid);
            *holds = kept;
            drop(holds);
            drop::<Vec<Hold>>(gone);
        }
    }
}

impl Real {
    pub(crate) fn new(kept_events: usize) -> Self {
        let beyond = PasidRange {
            min: CAPACITY + 1,
            max: u32::MAX,
        };
        let audit = Audit {
            clock: Arc::new(Ticks::default()),
            kept_events,
        };
        let told = Arc::new(Mutex::default());
        let books = [Space::Highest, Space::Stubborn].map(|space| {
            let (book, told) = (Mutex::new(Book::new(space)), Arc::clone(&told));
            Arc::new(Chooser { space, book, told })
        });
        let allocators = ALLOCATORS.map(|(space, instance)| CustomAllocator {
            operations: books[index_of(space)].clone(),
            instance,
        });
        Self {
            authority: Authority::with_audit(&[beyond], audit),
            handles: Vec::new(),
            holds: Holds::default(),
            marks: Vec::new(),
            named: vec![GroupId::ROOT],
            listened: 0,
            subscriptions: Vec::new(),
            allocators,
            books,
            told,
        }
    }

    /// The calls that the authority made since this was asked last.
    pub(crate) fn take_told(&self) -> Vec<Told> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }

    pub(crate) fn reserved(&self) -> Vec<PasidRange> {
        let mut reserved = self.authority.reserved();
        reserved.sort_by_key(|range| range.min);
        reserved
    }

    pub(crate) fn apply(&mut self, op: &Op) -> Outcome {
        match *op {
            Op::CreateSet(tenant, quota) => {
                let set = self.authority.create_set(tenant, quota)?;
                self.handles.push(set);
            }
            Op::CreateSetIn(group, tenant, quota) => {
                let group = self.group(group);
                let set = self.authority.create_set_in(group, tenant, quota)?;
                self.handles.push(set);
            }
            Op::DropSet(set) => {
                if let Some(at) = place_of(set, self.handles.len()) {
                    drop(self.handles.swap_remove(at));
                }
            }
            Op::ShareSet(set)
            | Op::Close(set)
            | Op::Adjust(set, _)
            | Op::Alloc(set, _)
            | Op::Free(set, _)
            | Op::FreeRange(set, _)
            | Op::SetData(set, ..)
            | Op::Look(set, _)
            | Op::Owned(set, _)
            | Op::Hold(set, _)
            | Op::Attach(set, ..)
            | Op::Detach(set, _)
            | Op::FindGuest(set, _)
            | Op::ListenToSet(set, ..) => {
                if let Some(at) = place_of(set, self.handles.len()) {
                    let set = self.handles[at].clone();
                    return self.apply_to_set(&set, op);
                }
            }
            Op::CloneHold(hold)
            | Op::DropHold(hold)
            | Op::Put(hold)
            | Op::Bind(hold, _)
            | Op::HoldOfMark(hold)
            | Op::Unbind(hold) => return self.apply_to_hold(hold, op),
            Op::Fault(pasid, place, reason) => {
                self.authority.record_fault(pasid, place, reason);
            }
            Op::FaultOf(tenant, pasid, place, reason) => {
                self.authority.record_fault_of(tenant, pasid, place, reason);
            }
            Op::CreateGroup(parent, max) => {
                let name = self.authority.create_group(self.group(parent), max)?;
                self.named.push(name);
            }
            Op::RemoveGroup(group) => self.authority.remove_group(self.group(group))?,
            Op::SetGroupMax(group, max) => {
                self.authority.set_group_max(self.group(group), max)?;
            }
            Op::GroupUsage(group) => {
                let usage = self.authority.group_usage(self.group(group))?;
                return Ok(Answer::Usage(usage));
            }
            Op::Reserve(range) => self.authority.reserve(range)?,
            Op::Unreserve(at) => {
                let fresh = PasidRange::only(u32::try_from(at).unwrap());
                let range = self.reserved().get(at).copied().unwrap_or(fresh);
                self.authority.unreserve(range)?;
            }
            Op::Register(at) => {
                self.authority.register_allocator(&self.allocators[at])?;
                let book = &self.books[index_of(ALLOCATORS[at].0)].book;
                book.lock().unwrap().clear();
            }
            Op::Unregister(at) => self.authority.unregister_allocator(&self.allocators[at])?,
            Op::Listen(priority, habit) => {
                let ear = self.ear(habit);
                let subscription = self.authority.listen(priority, ear);
                self.subscriptions.push(subscription);
            }
            Op::Unlisten(pick) => {
                if let Some(at) = place_of(pick, self.subscriptions.len()) {
                    drop(self.subscriptions.remove(at));
                }
            }
            Op::Quiet => {
                while let Some(mark) = self.marks.pop() {
                    drop(mark);
                }
                let holds = std::mem::take(&mut *self.holds());
                for hold in holds.into_iter().rev() {
                    drop(hold);
                }
                let freed = self.handles.iter().map(|s| s.free_range(PasidRange::ALL));
                return Ok(Answer::Count(freed.sum()));
            }
        }
        Ok(Answer::Done)
    }

    /// Lets go of everything one by one: where a comparison failed any of it may panic, and two panics
    /// at once would end the process before it could say what failed.
    pub(crate) fn let_go(mut self) {
        fn each<T>(list: &mut Vec<T>) {
            while let Some(one) = list.pop() {
                let dropped = catch_unwind(AssertUnwindSafe(|| drop(one)));
                drop(dropped);
            }
        }
        each(&mut self.marks);
        let mut holds = std::mem::take(&mut *self.holds());
        each(&mut holds);
        each(&mut self.handles);
        each(&mut self.subscriptions);
    }

    fn apply_to_set(&mut self, set: &PasidSet, op: &Op) -> Outcome {
        match *op {
            Op::ShareSet(_) => self.handles.push(set.clone()),
            Op::Close(_) => set.close(),
            Op::Adjust(_, quota) => set.adjust(quota)?,
            Op::Alloc(_, range) => return set.alloc(range).map(Answer::Pasid),
            Op::Free(_, pasid) => set.free(pasid)?,
            Op::FreeRange(_, range) => return Ok(Answer::Count(set.free_range(range))),
            Op::SetData(_, pasid, data) => set.set_data(pasid, data)?,
            Op::Look(_, pasid) => {
                return Ok(Answer::Look {
                    tenant: set.tenant(),
                    quota: set.quota(),
                    outstanding: set.outstanding(),
                    guest: set.guest_of(pasid),
                    state: set.state_of(pasid),
                    data: set.find(pasid),
                });
            }
            Op::Owned(_, range) => {
                assert_eq!(set.owned(), set.owned_within(PasidRange::ALL));
                return Ok(Answer::Pasids(set.owned_within(range)));
            }
            Op::Hold(_, pasid) => return set.hold(pasid).map(|hold| self.keep(hold)),
            Op::Attach(_, guest, pasid) => set.attach_guest(guest, pasid)?,
            Op::Detach(_, guest) => return set.detach_guest(guest).map(Answer::Pasid),
            Op::FindGuest(_, guest) => return set.find_guest(guest).map(|hold| self.keep(hold)),
            Op::ListenToSet(_, priority, habit) => {
                let ear = self.ear(habit);
                self.subscriptions.push(set.listen(priority, ear));
            }
            _ => unreachable!("{op:?} is not of a set"),
        }
        Ok(Answer::Done)
    }

    fn apply_to_hold(&mut self, pick: usize, op: &Op) -> Outcome {
        let list = match op {
            Op::HoldOfMark(_) | Op::Unbind(_) => self.marks.len(),
            _ => self.holds().len(),
        };
        let Some(at) = place_of(pick, list) else {
            return Ok(Answer::Done);
        };
        match *op {
            Op::CloneHold(_) => {
                let hold = self.holds()[at].clone();
                return Ok(self.keep(hold));
            }
            Op::DropHold(_) => {
                let hold = self.holds().swap_remove(at);
                drop(hold);
            }
            Op::Put(_) => {
                let hold = self.holds().swap_remove(at);
                return Ok(Answer::Put(hold.put()));
            }
            Op::Bind(_, place) => {
                let mark = self.holds()[at].bind(place)?;
                assert_eq!(mark.place(), place);
                self.marks.push(mark);
            }
            Op::HoldOfMark(_) => {
                let hold = self.marks[at].hold().clone();
                return Ok(self.keep(hold));
            }
            Op::Unbind(_) => drop(self.marks.swap_remove(at)),
            _ => unreachable!("{op:?} is not of a hold"),
        }
        Ok(Answer::Done)
    }

    fn keep(&mut self, hold: Hold) -> Answer {
        let answer = Answer::Held(hold.pasid(), hold.tenant());
        self.holds().push(hold);
        answer
    }

    fn holds(&self) -> MutexGuard<'_, Vec<Hold>> {
        let holds = self.holds.lock();
        holds.unwrap_or_else(PoisonError::into_inner)
    }

    fn group(&self, pick: usize) -> GroupId {
        place_of(pick, self.named.len()).map_or(GroupId::ROOT, |at| self.named[at])
    }

    /// The group that was created last.
    pub(crate) fn newest_group(&self) -> Option<GroupId> {
        self.named.last().copied()
    }

    fn ear(&mut self, habit: Habit) -> Arc<dyn Listener> {
        self.listened += 1;
        Arc::new(Ear {
            name: self.listened,
            habit,
            holds: Arc::clone(&self.holds),
            told: Arc::clone(&self.told),
        })
    }
}

fn index_of(space: Space) -> usize {
    match space {
        Space::Highest => 0,
        Space::Stubborn => 1,
    }
}
