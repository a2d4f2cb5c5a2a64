//! One client's descriptors on one queue. All of it is under the queue's lock but the counts.

mod hands;
mod paused;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use palisade_iommu::PageResponse;

use crate::session::{PasidUse, Session};
use crate::spec::{Descriptor, Opcode};
use crate::tally::Tally;
use crate::task::{Blocked, Task};
use hands::Hands;
pub(crate) use hands::InHand;

/// How much of one queue an engine does before it looks at the next, in bytes to be moved. A move of
/// a few hundred kilobytes takes some ten microseconds.
pub(crate) const TURN_BYTES: u64 = 256 << 10;
/// What a descriptor costs besides its bytes, in bytes.
pub(crate) const TASK_COST_BYTES: u64 = 4 << 10;
/// How many descriptors an engine takes at a time.
pub(crate) const TURN_TASKS: usize = 16;
/// How many page requests a lane has out at a time; what else needs a page waits for one of them. The platform
/// fails requests beyond 64 of one PASID, which eight queues may share.
const MAX_PAGE_REQUESTS: usize = 8;

/// What engines and waiters need of a lane without the lock.
#[derive(Default)]
pub(crate) struct LaneShared {
    pub(crate) tally: Tally,
    /// A drain descriptor waits for what is before it.
    pub(crate) barrier: AtomicBool,
    /// Engines drop what they have of the lane.
    pub(crate) aborted: AtomicBool,
    /// What engines have of the lane at the moment.
    pub(crate) hands: Hands,
}

impl LaneShared {
    /// Whether work of this session is to be dropped.
    pub(crate) fn is_aborted(&self, session: &Session) -> bool {
        let of_use = session.pasid_use.as_ref();
        self.aborted.load(Ordering::Acquire) || of_use.is_some_and(|used| used.is_aborted())
    }
}

/// Which page request; never used twice, whatever the lane. An answer may be so late that another client has the
/// lane's place, and must not be taken for one to him.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ParkId(u64);

static NEXT_PARK: AtomicU64 = AtomicU64::new(0);

/// Tasks that wait for one page.
struct Parked {
    id: ParkId,
    page: Blocked,
    session: Arc<Session>,
    tasks: Vec<Task>,
    asking: Asking,
}

/// How far a page request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asking {
    /// An engine is sending it.
    Sending,
    /// An engine is sending it, but the work was dropped, all but one count that is finished when the
    /// engine is done: what it sends carries a PASID that must not go before.
    SendingForNobody,
    /// It was sent.
    Sent,
}

/// Whether a task that was parked needs a page request of its own.
pub(crate) enum Parking {
    /// Send a request and answer to this id.
    Ask(ParkId),
    /// Another task's request serves this one too, or it waits for its turn.
    Wait,
    /// The work was aborted: drop the task.
    Dropped,
}

/// Why a descriptor was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// The queue takes no descriptors.
    Disabled,
    /// As many as allowed wait for an engine or a page.
    Full,
}

/// Which work an abort drops.
#[derive(Clone, Copy)]
pub(crate) enum Which<'a> {
    All,
    Of(&'a Arc<PasidUse>),
}

impl Which<'_> {
    fn has(self, session: Option<&Arc<Session>>) -> bool {
        match self {
            Self::All => true,
            Self::Of(used) => session
                .and_then(|session| session.pasid_use.as_ref())
                .is_some_and(|other| Arc::ptr_eq(other, used)),
        }
    }
}

/// What a task takes of a turn, at the most that can be told before it is begun.
fn cost_bytes(task: &Task) -> u64 {
    let descriptor = &task.work.descriptor;
    if task.batch.is_some() || descriptor.opcode() == Opcode::BATCH {
        // What its parts move stands in the client's memory; an engine goes on with it until a turn is over.
        return TURN_BYTES;
    }
    TASK_COST_BYTES + u64::from(descriptor.size)
}

#[derive(Default)]
pub(crate) struct LaneState {
    pub(crate) shared: Arc<LaneShared>,
    /// The session of a dedicated queue.
    pub(crate) session: Option<Arc<Session>>,
    pub(crate) accepts: bool,
    fresh: VecDeque<(Descriptor, Option<Arc<Session>>)>,
    /// Tasks that were begun and can go on.
    resumed: VecDeque<Task>,
    parked: Vec<Parked>,
    /// Tasks that need a page while the lane has all its page requests out.
    stalled: VecDeque<Task>,
    /// Whether the next task is one that was begun, where there are both.
    turn_of_resumed: bool,
}

impl LaneState {
    pub(crate) fn submit(
        &mut self,
        descriptor: Descriptor,
        session: Option<Arc<Session>>,
        limit: u16,
    ) -> Result<(), SubmitError> {
        self.make_room(limit)?;
        self.count(session.as_ref());
        self.fresh.push_back((descriptor, session));
        Ok(())
    }

    /// Submits a descriptor that an engine then runs at once, as the session that it gets. `None` where something is before it, or
    /// may be: it is to be queued.
    pub(crate) fn submit_at_once(
        &mut self,
        descriptor: &Descriptor,
        limit: u16,
    ) -> Result<Option<(Arc<Session>, InHand)>, SubmitError> {
        let is_next =
            self.fresh.is_empty() && self.resumed.is_empty() && !self.shared.hands.are_off();
        let session = self.session.clone().filter(|_| is_next);
        let Some(session) = session.filter(|_| descriptor.opcode() != Opcode::DRAIN) else {
            return Ok(None);
        };
        self.make_room(limit)?;
        self.count(None);
        Ok(Some((session, InHand::take(&self.shared))))
    }

    /// Whether there is room for one more.
    fn make_room(&self, limit: u16) -> Result<(), SubmitError> {
        if !self.accepts {
            return Err(SubmitError::Disabled);
        }
        if self.occupied() >= usize::from(limit) {
            return Err(SubmitError::Full);
        }
        Ok(())
    }

    /// How many descriptors have a place. What an engine has in hand has none any more: who knows by a completion that
    /// there is room must find it, however long the engine goes on with others. One that waits for a page has its place
    /// back.
    pub(crate) fn occupied(&self) -> usize {
        let parked: usize = self.parked.iter().map(|parked| parked.tasks.len()).sum();
        self.fresh.len() + self.resumed.len() + parked + self.stalled.len()
    }

    /// Counts a descriptor as submitted.
    fn count(&self, session: Option<&Arc<Session>>) {
        self.shared.tally.submit();
        if let Some(used) = session.and_then(|session| session.pasid_use.as_ref()) {
            used.tally.submit();
        }
    }

    /// Whether an engine finds something to do here.
    pub(crate) fn is_runnable(&self) -> bool {
        !self.shared.hands.are_off() && self.has_runnable()
    }

    fn has_runnable(&self) -> bool {
        !self.resumed.is_empty() || self.next_fresh_is_runnable()
    }

    fn next_fresh_is_runnable(&self) -> bool {
        match self.fresh.front() {
            None => false,
            Some((descriptor, _)) if descriptor.opcode() == Opcode::DRAIN => {
                // Announce first, then look: the finisher does it the other way round.
                self.shared.barrier.store(true, Ordering::SeqCst);
                let waits = self.shared.tally.pending() > self.fresh.len() as u64;
                self.shared.barrier.store(waits, Ordering::SeqCst);
                !waits
            }
            Some(_) => true,
        }
    }

    /// Moves a turn's worth of tasks to `into`; at least one where there is one.
    pub(crate) fn take(&mut self, into: &mut VecDeque<Task>) {
        let mut cost = 0;
        while into.len() < TURN_TASKS && cost < TURN_BYTES {
            let drain_next = self
                .fresh
                .front()
                .is_some_and(|(d, _)| d.opcode() == Opcode::DRAIN);
            let fresh = if drain_next {
                // Alone: what is taken with it would not be before it.
                into.is_empty() && self.next_fresh_is_runnable()
            } else {
                !self.fresh.is_empty()
            };
            let resumed = !self.resumed.is_empty() && (self.turn_of_resumed || !fresh);
            self.turn_of_resumed = !resumed;
            let task = if resumed {
                self.resumed.pop_front()
            } else if fresh {
                let next = self.fresh.pop_front();
                next.map(|(descriptor, session)| Task::fresh(descriptor, session))
            } else {
                None
            };
            let Some(task) = task else { return };
            cost += cost_bytes(&task);
            into.push_back(task);
            if drain_next {
                return;
            }
        }
    }

    /// Gives back a task that was begun and can go on.
    pub(crate) fn resume(&mut self, task: Task) {
        self.resumed.push_back(task);
    }

    /// Puts a task aside until a page is there. `session` is the task's.
    pub(crate) fn park(&mut self, mut task: Task, on: Blocked, session: &Arc<Session>) -> Parking {
        if self.shared.is_aborted(session) {
            return Parking::Dropped;
        }
        let page = Blocked {
            at: on.at.page_base(),
            access: on.access,
        };
        task.refused = Some(on);
        let same = |p: &&mut Parked| {
            p.page == page
                && p.asking != Asking::SendingForNobody
                && Arc::ptr_eq(&p.session, session)
        };
        let parking = if let Some(parked) = self.parked.iter_mut().find(same) {
            parked.tasks.push(task);
            Parking::Wait
        } else if self.parked.len() >= MAX_PAGE_REQUESTS {
            self.stalled.push_back(task);
            Parking::Wait
        } else {
            let id = ParkId(NEXT_PARK.fetch_add(1, Ordering::Relaxed));
            let (session, tasks) = (Arc::clone(session), vec![task]);
            let asking = Asking::Sending;
            self.parked.push(Parked {
                id,
                page,
                session,
                tasks,
                asking,
            });
            Parking::Ask(id)
        };
        self.shared.tally.park();
        if let Some(used) = &session.pasid_use {
            used.tally.park();
        }
        parking
    }

    /// Lets the tasks of a page request go on, to succeed or to fail. Of a request that is not
    /// outstanding, nothing happens.
    pub(crate) fn answer(&mut self, id: ParkId, response: PageResponse) {
        let asked = |p: &Parked| p.id == id && p.asking != Asking::SendingForNobody;
        let Some(index) = self.parked.iter().position(asked) else {
            return;
        };
        let Parked { session, tasks, .. } = self.parked.swap_remove(index);
        self.unpark(&session, tasks.len() as u64);
        for mut task in tasks {
            if response == PageResponse::Success {
                task.refused = None;
            }
            self.resumed.push_back(task);
        }
        if let Some(mut task) = self.stalled.pop_front() {
            task.refused = None;
            if let Some(session) = task.session.as_ref().or(self.session.as_ref()).cloned() {
                self.unpark(&session, 1);
            }
            self.resumed.push_back(task);
        }
    }

    /// The engine that was told to ask has done so. What it yields is to be finished without the lock.
    pub(crate) fn sent(&mut self, id: ParkId) -> Dropped {
        let mut dropped = Dropped::default();
        if let Some(index) = self.parked.iter().position(|parked| parked.id == id) {
            if self.parked[index].asking == Asking::SendingForNobody {
                let Parked { session, .. } = self.parked.swap_remove(index);
                dropped.count(Some(session), 1);
            } else {
                self.parked[index].asking = Asking::Sent;
            }
        }
        dropped
    }

    fn unpark(&self, session: &Session, count: u64) {
        self.shared.tally.unpark(count);
        if let Some(used) = &session.pasid_use {
            used.tally.unpark(count);
        }
    }

    /// Drops work that no engine has, whatever it waits for. Engines drop theirs themselves.
    pub(crate) fn drop_work(&mut self, which: Which<'_>) -> Dropped {
        let mut dropped = Dropped::default();
        let keep_fresh = |(_, session): &mut (Descriptor, Option<Arc<Session>>)| {
            !which.has(session.as_ref()) || dropped.count(session.take(), 0)
        };
        self.fresh.retain_mut(keep_fresh);
        let mut sweep = |tasks: &mut VecDeque<Task>, parked: u64| {
            tasks.retain_mut(|task| {
                !which.has(task.session.as_ref()) || dropped.count(task.session.take(), parked)
            });
        };
        sweep(&mut self.resumed, 0);
        sweep(&mut self.stalled, 1);
        self.parked.retain_mut(|parked| {
            if !which.has(Some(&parked.session)) {
                return true;
            }
            let kept = usize::from(parked.asking == Asking::Sending);
            for _ in parked.tasks.drain(..).skip(kept) {
                dropped.count(Some(Arc::clone(&parked.session)), 1);
            }
            if kept == 0 {
                return parked.asking != Asking::Sent;
            }
            parked.asking = Asking::SendingForNobody;
            true
        });
        dropped
    }
}

/// What an abort dropped, to be counted and released without the lock.
#[derive(Default)]
pub(crate) struct Dropped {
    tasks: u64,
    parked: u64,
    sessions: Vec<(Arc<Session>, u64)>,
}

impl Dropped {
    /// Always false: the task is not kept.
    fn count(&mut self, session: Option<Arc<Session>>, parked: u64) -> bool {
        self.tasks += 1;
        self.parked += parked;
        if let Some(session) = session {
            self.sessions.push((session, parked));
        }
        false
    }

    /// Counts it as finished.
    pub(crate) fn finish(self, shared: &LaneShared) {
        for (session, parked) in &self.sessions {
            if let Some(used) = &session.pasid_use {
                used.tally.unpark(*parked);
                used.tally.finish(1);
            }
        }
        // The sessions' holds go before anybody who waits for the work is told.
        drop(self.sessions);
        shared.tally.unpark(self.parked);
        if self.tasks > 0 {
            shared.tally.finish(self.tasks);
        }
    }
}
