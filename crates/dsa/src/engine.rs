use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use palisade_iommu::{DmaPort, OnMiss, PageResponse, Requester};
use palisade_units::Iova;
use zerocopy::IntoBytes;

use crate::accelerator::Core;
use crate::check::{Origin, Wrong, check};
use crate::lane::{LaneShared, Parking, TASK_COST_BYTES, TURN_BYTES};
use crate::op::{self, Means, Scratch, SoFar, Stop};
use crate::queue::Turn;
use crate::record;
use crate::session::Session;
use crate::spec::{CompletionRecord, Descriptor, Flags, Opcode, SoftwareError, Status};
use crate::task::{Batch, Blocked, Stage, Task, Work};

mod at_once;
mod list;

use list::{List, LongWay, Run};

/// What came of running an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many descriptors were worked on; there may be more.
    Worked(u32),
    /// There was nothing to do. The doorbell rings when there is.
    Idle,
}

/// Runs descriptors, on whatever thread calls it. It owns its port, and with it its own translation cache.
pub struct Engine {
    core: Arc<Core>,
    port: DmaPort,
    cursor: u32,
    tasks: VecDeque<Task>,
    scratch: Box<Scratch>,
    list: Box<List>,
}

/// How a task left its turn.
enum Advance {
    Finished,
    Dropped,
    TurnOver,
    Blocked(Blocked),
}

impl From<Stop> for Advance {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::TurnOver => Self::TurnOver,
            Stop::Blocked(on) | Stop::Faulted(on) => Self::Blocked(on),
        }
    }
}

/// What one step of a task comes to.
enum Step {
    Next,
    Finished,
    Stopped(Stop),
}

impl Engine {
    pub(crate) fn new(core: Arc<Core>, port: DmaPort, number: usize) -> Self {
        Self {
            core,
            port,
            // Engines start at different queues.
            cursor: u32::try_from(number % 64).unwrap_or(0),
            tasks: VecDeque::new(),
            scratch: Scratch::new(),
            list: Box::default(),
        }
    }

    /// Works until about `budget` descriptors were worked on or nothing is left to do. Never waits.
    pub fn run(&mut self, budget: u32) -> Progress {
        let mut worked = 0;
        while worked < budget {
            let Some((queue, turn)) = self.core.take(&mut self.cursor, &mut self.tasks) else {
                break;
            };
            worked += self.turn(queue, turn);
        }
        if worked == 0 {
            Progress::Idle
        } else {
            Progress::Worked(worked)
        }
    }

    /// Lets go of memory that was taken away since it was last used. Whoever runs the engine calls this after memory
    /// was removed or a tenant went: until then what is gone may stay mapped in this process.
    pub fn forget_stale(&mut self) {
        self.port.forget_stale();
    }

    /// Works on what was taken. Says on how many tasks.
    fn turn(&mut self, queue: usize, turn: Turn) -> u32 {
        let Turn {
            lane,
            shared,
            session: of_lane,
            ..
        } = turn;
        let (mut worked, mut finished, mut completed) = (0, 0, 0);
        while let Some(mut task) = self.tasks.pop_front() {
            worked += 1;
            let own = task.session.take();
            let Some(session) = own.as_ref().or(of_lane.as_ref()) else {
                finished += 1;
                continue;
            };
            match self.advance(&mut task, session, &shared) {
                ended @ (Advance::Finished | Advance::Dropped) => {
                    finished += 1;
                    completed += u64::from(matches!(ended, Advance::Finished));
                    let used = session.pasid_use.clone();
                    // Its hold goes before anybody who waits for the work is told.
                    drop(own);
                    if let Some(used) = used {
                        used.tally.finish(1);
                    }
                }
                Advance::TurnOver => {
                    task.session = own;
                    self.core.resume(queue, lane, task);
                }
                Advance::Blocked(on) => {
                    let session = Arc::clone(session);
                    let used = session.pasid_use.clone();
                    task.session = own;
                    if self.park((queue, lane), task, on, session) == Parked::No {
                        finished += 1;
                        if let Some(used) = used {
                            used.tally.finish(1);
                        }
                    }
                }
            }
        }
        drop(of_lane);
        self.told(queue, &shared, finished, completed);
        worked
    }

    /// Counts what has ended, and tells who waits for it. No hold of it is left.
    fn told(&self, queue: usize, shared: &LaneShared, finished: u64, completed: u64) {
        self.core
            .counters
            .descriptors
            .fetch_add(completed, Ordering::Relaxed);
        if finished > 0 {
            self.core.finish(queue, shared, finished);
        }
    }

    /// Goes on with a task until its turn is over.
    fn advance(&mut self, task: &mut Task, session: &Arc<Session>, shared: &LaneShared) -> Advance {
        let mut left_bytes = TURN_BYTES;
        let is_new = matches!(task.work.stage, Stage::Fresh) && task.batch.is_none();
        if is_new && !shared.is_aborted(session) {
            match self.run_single(&mut task.work, session, &mut left_bytes) {
                Ok(()) => return Advance::Finished,
                Err(LongWay::Tells) => {}
                Err(LongWay::Unrecorded(on)) => task.refused = Some(on),
                Err(LongWay::Stopped(stop)) => return stop.into(),
            }
        }
        loop {
            if shared.is_aborted(session) {
                return Advance::Dropped;
            }
            if shared.hands.are_off() {
                return Advance::TurnOver;
            }
            match self.step(task, session, shared, &mut left_bytes) {
                Step::Next => {}
                Step::Finished => return Advance::Finished,
                Step::Stopped(stop) => return stop.into(),
            }
        }
    }

    fn step(
        &mut self,
        task: &mut Task,
        session: &Arc<Session>,
        shared: &LaneShared,
        left_bytes: &mut u64,
    ) -> Step {
        let refused = task.refused.take();
        match task.work.stage {
            Stage::Fresh => self.begin(task, session, left_bytes),
            Stage::Fetching => self.fetch(task, session, refused, shared, left_bytes),
            Stage::Running(mut so_far) => {
                let step = self.operate(task, session, refused, left_bytes, &mut so_far);
                if let Stage::Running(place) = &mut task.work.stage {
                    *place = so_far;
                }
                step
            }
            Stage::Recording(record) => self.record(task, session, refused, record),
        }
    }

    fn begin(&self, task: &mut Task, session: &Session, left_bytes: &mut u64) -> Step {
        let descriptor = task.work.descriptor;
        let origin = if task.batch.is_some() {
            Origin::Batch
        } else {
            Origin::Portal
        };
        *left_bytes = left_bytes.saturating_sub(TASK_COST_BYTES);
        match check(&descriptor, origin, session) {
            Err(Wrong::Record(record)) => task.work.stage = Stage::Recording(record),
            Err(Wrong::NoRecord(status)) => {
                self.report(task, session, session.error(status));
                return end(task, status);
            }
            Ok(()) if descriptor.opcode() == Opcode::BATCH => {
                let work = Work {
                    descriptor,
                    stage: Stage::Fetching,
                };
                task.batch = Some(Box::new(Batch {
                    work,
                    taken: 0,
                    completed: 0,
                    failed: 0,
                }));
                task.work = work;
            }
            Ok(()) => task.work.stage = Stage::Running(SoFar::default()),
        }
        Step::Next
    }

    /// Goes on with the list of a batch, or ends the batch.
    fn fetch(
        &mut self,
        task: &mut Task,
        session: &Session,
        refused: Option<Blocked>,
        shared: &LaneShared,
        left_bytes: &mut u64,
    ) -> Step {
        let Some(batch) = &mut task.batch else {
            return Step::Finished;
        };
        let list = batch.work.descriptor;
        if *left_bytes == 0 {
            return Step::Stopped(Stop::TurnOver);
        }
        let mut fault = refused;
        if fault.is_none() {
            match self.run_list((batch, &mut task.work), session, shared, left_bytes) {
                Run::Over => {}
                Run::Interrupted | Run::AtWork(LongWay::Tells) => return Step::Next,
                Run::Untaken(Stop::Faulted(on)) => fault = Some(on),
                Run::Untaken(stop) | Run::AtWork(LongWay::Stopped(stop)) => {
                    return Step::Stopped(stop);
                }
                Run::AtWork(LongWay::Unrecorded(on)) => {
                    task.refused = Some(on);
                    return Step::Next;
                }
            }
        }
        let status = match fault {
            Some(_) => Status::BATCH_PAGE_FAULT,
            None if batch.failed > 0 => Status::BATCH_FAILED,
            None => Status::SUCCESS,
        };
        let record = CompletionRecord {
            status: status.0,
            bytes_completed: batch.completed,
            fault_address: fault.map_or(0, |on| on.at.get()),
            ..CompletionRecord::default()
        };
        task.work = Work {
            descriptor: list,
            stage: Stage::Recording(record),
        };
        task.batch = None;
        Step::Next
    }

    fn operate(
        &mut self,
        task: &mut Task,
        session: &Session,
        refused: Option<Blocked>,
        left_bytes: &mut u64,
        so_far: &mut SoFar,
    ) -> Step {
        let descriptor = task.work.descriptor;
        let on_miss = on_miss(session, &descriptor);
        let record = match refused {
            Some(on) => record::partial(&descriptor, Status::PAGE_REQUEST_REFUSED, on, so_far),
            None => {
                let mut means = Means {
                    port: &mut self.port,
                    by: requester(session, on_miss),
                    scratch: &mut self.scratch,
                    left_bytes,
                };
                match work(&mut means, &descriptor, so_far) {
                    Ok(record) => record,
                    Err(stop) => return Step::Stopped(stop),
                }
            }
        };
        task.work.stage = Stage::Recording(record);
        Step::Next
    }

    /// Writes the completion record, where there is one to write, and completes.
    fn record(
        &mut self,
        task: &mut Task,
        session: &Session,
        refused: Option<Blocked>,
        record: CompletionRecord,
    ) -> Step {
        let descriptor = task.work.descriptor;
        let (flags, status) = (descriptor.flags(), record.status());
        if record::is_wanted(flags, status) {
            let stop = match refused {
                Some(on) => Some(Stop::Faulted(on)),
                None => self.write_record(session, &descriptor, &record).err(),
            };
            match stop {
                None => {}
                Some(Stop::Faulted(_)) => {
                    let error = session.error(Status::RECORD_FAULT.with_write());
                    let fault_address = descriptor.completion_address;
                    let error = SoftwareError {
                        fault_address,
                        ..error
                    };
                    self.report(task, session, error);
                    return end(task, status);
                }
                Some(stop) => return Step::Stopped(stop),
            }
        } else if !status.is_success() {
            let error = session.error(status);
            let error = SoftwareError {
                fault_address: record.fault_address,
                invalid_flags: if status == Status::INVALID_FLAGS {
                    record.invalid_flags()
                } else {
                    0
                },
                ..error
            };
            self.report(task, session, error);
        }
        if flags.contains(Flags::REQUEST_INTERRUPT)
            && session
                .client
                .may_interrupt(descriptor.interrupt_handle, session)
        {
            session.client.interrupt(descriptor.interrupt_handle);
        }
        end(task, status)
    }

    fn write_record(
        &mut self,
        session: &Session,
        descriptor: &Descriptor,
        record: &CompletionRecord,
    ) -> Result<(), Stop> {
        let by = recorder(session);
        let at = Iova::new(descriptor.completion_address);
        // The status goes last: who sees it sees everything.
        Ok(self.port.publish(by, at, record.as_bytes())?)
    }

    fn report(&self, task: &Task, session: &Session, error: SoftwareError) {
        let index =
            |batch: &Batch| u16::try_from(batch.taken.saturating_sub(1)).unwrap_or(u16::MAX);
        self.core
            .counters
            .software_errors
            .fetch_add(1, Ordering::Relaxed);
        session.client.software_error(SoftwareError {
            operation: Some(task.work.descriptor.opcode()),
            batch_index: task.batch.as_deref().map(index),
            ..error
        });
    }

    /// Puts a task aside and asks for the page it needs.
    fn park(
        &mut self,
        (queue, lane): (usize, usize),
        task: Task,
        on: Blocked,
        session: Arc<Session>,
    ) -> Parked {
        let parking = self
            .core
            .with_queue(queue, |place| place.park(lane, task, on, &session));
        let id = match parking {
            Parking::Ask(id) => id,
            Parking::Wait => return Parked::Yes,
            Parking::Dropped => return Parked::No,
        };
        let core = Arc::downgrade(&self.core);
        let waiter = Box::new(move |response| {
            if let Some(core) = core.upgrade() {
                core.answer(queue, lane, id, response);
            }
        });
        let by = requester(&session, OnMiss::Ask);
        drop(session);
        self.core
            .counters
            .page_requests
            .fetch_add(1, Ordering::Relaxed);
        if self
            .port
            .request_page(by, on.at, on.access, waiter)
            .is_err()
        {
            self.core.answer(queue, lane, id, PageResponse::Invalid);
        }
        self.core.with_queue(queue, |place| place.sent(lane, id));
        Parked::Yes
    }
}

/// Whether a task was put aside; otherwise it was dropped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parked {
    Yes,
    No,
}

fn requester(session: &Session, on_miss: OnMiss) -> Requester {
    Requester {
        tag: session.identity.tag,
        privilege: session.privilege,
        on_miss,
        ats: session.ats(),
    }
}

/// Who writes completion records.
fn recorder(session: &Session) -> Requester {
    let on_miss = if session.may_ask() {
        OnMiss::Ask
    } else {
        OnMiss::Fault
    };
    requester(session, on_miss)
}

fn on_miss(session: &Session, descriptor: &Descriptor) -> OnMiss {
    let blocks = descriptor.flags().contains(Flags::BLOCK_ON_FAULT);
    if blocks && session.may_ask() {
        OnMiss::Ask
    } else {
        OnMiss::Fault
    }
}

/// Goes on with an operation, and says what its record has to say when it is done.
#[inline]
fn work(
    means: &mut Means<'_>,
    descriptor: &Descriptor,
    so_far: &mut SoFar,
) -> Result<CompletionRecord, Stop> {
    match op::run(means, descriptor, so_far) {
        Ok(done) => Ok(record::completed(descriptor, done, so_far)),
        Err(Stop::Faulted(on)) => Ok(record::partial(
            descriptor,
            fault_status(descriptor),
            on,
            so_far,
        )),
        Err(stop) => Err(stop),
    }
}

/// A fault that no page request can mend, or that the descriptor does not wait for.
fn fault_status(descriptor: &Descriptor) -> Status {
    if descriptor.flags().contains(Flags::BLOCK_ON_FAULT) {
        Status::TRANSLATION
    } else {
        Status::PAGE_FAULT
    }
}

/// A descriptor has completed: the task with it, or one of a batch.
fn end(task: &mut Task, status: Status) -> Step {
    let Some(batch) = &mut task.batch else {
        return Step::Finished;
    };
    batch.count(status);
    task.work = Work {
        descriptor: batch.work.descriptor,
        stage: Stage::Fetching,
    };
    Step::Next
}
