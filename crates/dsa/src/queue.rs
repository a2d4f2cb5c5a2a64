use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use palisade_iommu::PageResponse;

use crate::accelerator::Core;
use crate::lane::{InHand, LaneShared, LaneState, ParkId, Parking, SubmitError, Which};
use crate::lock::locked;
use crate::session::{PasidUse, Session};
use crate::spec::Descriptor;
use crate::tally::{Settled, Until};
use crate::task::{Blocked, LaneWork, Task};

/// A work queue of the accelerator: the lanes of its clients, one unless it is shared, served in turn.
#[derive(Default)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    lanes: Vec<Option<LaneState>>,
    /// The lane to look at first.
    next: usize,
}

impl Inner {
    fn lane(&mut self, lane: usize) -> Option<&mut LaneState> {
        self.lanes.get_mut(lane)?.as_mut()
    }

    fn is_runnable(&self) -> bool {
        self.lanes.iter().flatten().any(LaneState::is_runnable)
    }
}

/// Whether a queue has more than an engine took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    Something,
}

/// What an engine took: a turn's worth of one lane.
pub(crate) struct Turn {
    pub(crate) lane: usize,
    pub(crate) shared: InHand,
    /// The session of a dedicated queue.
    pub(crate) session: Option<Arc<Session>>,
    pub(crate) left: Left,
}

/// Where a descriptor belongs that is run without having been in its queue.
pub(crate) struct AtOnce {
    pub(crate) place: (usize, usize),
    pub(crate) shared: InHand,
    pub(crate) session: Arc<Session>,
}

impl Queue {
    /// Takes a turn's worth of the lane whose turn it is. `update` is told, under the lock, whether something is left.
    pub(crate) fn take(
        &self,
        into: &mut VecDeque<Task>,
        update: impl FnOnce(Left),
    ) -> Option<Turn> {
        let mut inner = locked(&self.inner);
        let count = inner.lanes.len();
        let order = (0..count).map(|i| (inner.next + i) % count);
        let runnable = |lane: &usize| {
            inner.lanes[*lane]
                .as_ref()
                .is_some_and(LaneState::is_runnable)
        };
        let found = { order }.find(runnable);
        let turn = found.and_then(|lane| {
            let state = inner.lane(lane)?;
            state.take(into);
            let shared = InHand::take(&state.shared);
            let session = state.session.clone();
            inner.next = lane + 1;
            Some((lane, shared, session))
        });
        let left = if inner.is_runnable() {
            Left::Something
        } else {
            Left::Nothing
        };
        update(left);
        let (lane, shared, session) = turn?;
        Some(Turn {
            lane,
            shared,
            session,
            left,
        })
    }
}

/// A client's place on a queue. It takes descriptors between [`Lane::open`] and [`Lane::close`]. Dropping it
/// drops what is left of its work and waits for what engines have in hand.
pub struct Lane {
    core: Arc<Core>,
    queue: usize,
    lane: usize,
    shared: Arc<LaneShared>,
}

impl Lane {
    pub(crate) fn add(core: Arc<Core>, queue: usize) -> Self {
        let state = LaneState::default();
        let shared = Arc::clone(&state.shared);
        let lane = core.with_queue(queue, |place| {
            let mut inner = locked(&place.inner);
            let free = inner.lanes.iter().position(Option::is_none);
            let lane = free.unwrap_or(inner.lanes.len());
            if free.is_none() {
                inner.lanes.push(None);
            }
            inner.lanes[lane] = Some(state);
            lane
        });
        Self {
            core,
            queue,
            lane,
            shared,
        }
    }

    /// The number of the accelerator's queue.
    #[must_use]
    pub fn queue(&self) -> usize {
        self.queue
    }

    /// Takes descriptors from now on: all with one session, or, without one, each with its own.
    pub fn open(&self, session: Option<Arc<Session>>) {
        self.with(|state| {
            state.session = session;
            state.accepts = true;
        });
    }

    /// Takes no descriptors from now on; what is there goes on.
    pub fn close(&self) {
        self.with(|state| state.accepts = false);
    }

    /// Forgets the session of a closed lane whose work is done.
    pub fn forget(&self) {
        let session = self.with(|state| state.session.take());
        drop(session);
    }

    /// Submits a descriptor: with a session of its own, or that of the lane. `limit` is how many
    /// descriptors may have a place, this one included: they wait for an engine or a page.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was taken.
    pub fn submit(
        &self,
        descriptor: Descriptor,
        session: Option<Arc<Session>>,
        limit: u16,
    ) -> Result<(), SubmitError> {
        self.core.submit(self.queue, |place, mark| {
            let mut inner = locked(&place.inner);
            let state = inner.lane(self.lane).ok_or(SubmitError::Disabled)?;
            state.submit(descriptor, session, limit)?;
            mark();
            Ok(())
        })
    }

    /// As [`LaneState::submit_at_once`], to an engine of this core; `None` for another.
    pub(crate) fn submit_at_once(
        &self,
        core: &Arc<Core>,
        descriptor: &Descriptor,
        limit: u16,
    ) -> Result<Option<AtOnce>, SubmitError> {
        if !Arc::ptr_eq(core, &self.core) || !core.is_idle() {
            return Ok(None);
        }
        let session = core.with_queue(self.queue, |place| {
            let mut inner = locked(&place.inner);
            let state = inner.lane(self.lane).ok_or(SubmitError::Disabled)?;
            state.submit_at_once(descriptor, limit)
        })?;
        Ok(session.map(|(session, shared)| AtOnce {
            place: (self.queue, self.lane),
            shared,
            session,
        }))
    }

    /// How many descriptors are not finished.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.shared.tally.pending()
    }

    /// How many descriptors have a place in the queue: those that no engine has in hand.
    pub(crate) fn occupied(&self) -> usize {
        self.with(|state| state.occupied())
    }

    /// Waits until nothing is left, or nothing but descriptors that wait for page responses; at most about
    /// `patience`.
    #[must_use]
    pub fn settle(&self, patience: Duration) -> Settled {
        self.shared.tally.settle(patience)
    }

    /// Calls back once when nothing is left.
    pub fn when_idle(&self, callback: impl FnOnce() + Send + 'static) {
        self.shared.tally.when_idle(Box::new(callback));
    }

    /// Has engines leave the lane alone from now on; what they have in hand they put back with the next step. Descriptors
    /// are taken as before. [`Lane::wait_until_left`] waits for the engines.
    pub(crate) fn pause(&self) {
        // Under the lock: who takes a turn does so before this or sees it.
        self.with(|state| state.shared.hands.take_off());
    }

    /// Waits until engines have left a lane that was paused. On return nothing of it touches memory.
    pub(crate) fn wait_until_left(&self) {
        self.shared.hands.wait();
    }

    /// Lets engines come back.
    pub(crate) fn go_on(&self) {
        self.shared.hands.put_on();
        self.core.look(self.queue);
    }

    /// What a paused lane has to do.
    pub(crate) fn work(&self) -> LaneWork {
        self.with(|state| state.work())
    }

    /// Gives a lane what another one had to do, begun tasks and new descriptors. `session` finds whose a
    /// descriptor is where the queue alone does not say.
    pub(crate) fn bring(
        &self,
        work: &LaneWork,
        session: impl FnMut(&Descriptor) -> Option<Arc<Session>>,
    ) {
        self.with(|state| state.bring(work, session));
    }

    /// Drops all work, whatever it waits for. On return no engine has any of it, and no page response brings any
    /// back. What is submitted meanwhile is refused.
    pub fn abort(&self) {
        let accepted = self.with(|state| {
            self.shared.aborted.store(true, Ordering::Release);
            std::mem::replace(&mut state.accepts, false)
        });
        self.drop_work(Which::All);
        self.shared.tally.wait(Until::Idle, None);
        self.with(|state| {
            self.shared.aborted.store(false, Ordering::Release);
            state.accepts = accepted;
        });
    }

    /// Drops the work of one PASID that no engine has in hand. It does not wait for the rest, some of which may
    /// be on another queue: [`PasidUse::wait_until_idle`] does, when all queues were told.
    pub(crate) fn drop_use(&self, used: &Arc<PasidUse>) {
        self.drop_work(Which::Of(used));
    }

    fn drop_work(&self, which: Which<'_>) {
        let dropped = self.with(|state| state.drop_work(which));
        dropped.finish(&self.shared);
    }

    fn with<T: Default>(&self, what: impl FnOnce(&mut LaneState) -> T) -> T {
        self.core.with_queue(self.queue, |place| {
            locked(&place.inner)
                .lane(self.lane)
                .map(what)
                .unwrap_or_default()
        })
    }
}

impl Queue {
    /// Puts a task aside until a page is there.
    pub(crate) fn park(
        &self,
        lane: usize,
        task: Task,
        on: Blocked,
        session: &Arc<Session>,
    ) -> Parking {
        let mut inner = locked(&self.inner);
        inner
            .lane(lane)
            .map_or(Parking::Dropped, |state| state.park(task, on, session))
    }

    /// The page request was sent.
    pub(crate) fn sent(&self, lane: usize, id: ParkId) {
        let mut inner = locked(&self.inner);
        let Some(state) = inner.lane(lane) else {
            return;
        };
        let (dropped, shared) = (state.sent(id), Arc::clone(&state.shared));
        drop(inner);
        dropped.finish(&shared);
    }

    /// Lets tasks go on that waited for a page. `update` is told, under the lock, that something may be left.
    pub(crate) fn answer(
        &self,
        lane: usize,
        id: ParkId,
        response: PageResponse,
        update: impl FnOnce(),
    ) {
        let mut inner = locked(&self.inner);
        if let Some(state) = inner.lane(lane) {
            state.answer(id, response);
        }
        update();
    }

    /// Takes back a task that was begun and can go on.
    pub(crate) fn resume(&self, lane: usize, task: Task, update: impl FnOnce()) {
        let mut inner = locked(&self.inner);
        if let Some(state) = inner.lane(lane) {
            state.resume(task);
        }
        update();
    }

    /// Looks again after a drain descriptor held the queue up.
    pub(crate) fn look_again(&self, update: impl FnOnce(Left)) {
        let inner = locked(&self.inner);
        update(if inner.is_runnable() {
            Left::Something
        } else {
            Left::Nothing
        });
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.close();
        self.abort();
        let state = self.core.with_queue(self.queue, |place| {
            let mut inner = locked(&place.inner);
            let state = inner.lanes.get_mut(self.lane).and_then(Option::take);
            while inner.lanes.last().is_some_and(Option::is_none) {
                inner.lanes.pop();
            }
            state
        });
        drop(state);
    }
}
