use std::sync::Arc;

use palisade_units::{Access, Iova};

use crate::op::SoFar;
use crate::session::Session;
use crate::spec::{CompletionRecord, Descriptor, Status};

/// A descriptor and how far it has come. Whoever has the task may go on with it: it moves between
/// engines and waits for pages without losing what was done.
pub(crate) struct Task {
    pub(crate) work: Work,
    /// The batch that the work is a part of.
    pub(crate) batch: Option<Box<Batch>>,
    /// Whose it is, where the queue alone does not say.
    pub(crate) session: Option<Arc<Session>>,
    /// The page that it waits for; whoever brings the page clears it, and with it set the task goes on to
    /// fail.
    pub(crate) refused: Option<Blocked>,
}

/// One descriptor, from a portal or from a batch's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) descriptor: Descriptor,
    pub(crate) stage: Stage,
}

/// How far a descriptor has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing was looked at.
    Fresh,
    /// It was checked, and so much is done.
    Running(SoFar),
    /// The next descriptor of its list is to be read.
    Fetching,
    /// All is done but the completion record.
    Recording(CompletionRecord),
}

/// A batch whose descriptors are being run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) work: Work,
    /// How many descriptors of the list were taken.
    pub(crate) taken: u32,
    /// How many have completed, with whatever status.
    pub(crate) completed: u32,
    /// How many of those did not succeed.
    pub(crate) failed: u32,
}

/// Where a task cannot go on without a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocked {
    pub(crate) at: Iova,
    pub(crate) access: Access,
}

/// What of a task that was begun outlives the accelerator: all but whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BegunTask {
    pub(crate) work: Work,
    pub(crate) batch: Option<Batch>,
    /// The page that it asked for and does not get.
    pub(crate) refused: Option<Blocked>,
}

/// What a lane has to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LaneWork {
    pub(crate) begun: Vec<BegunTask>,
    /// Descriptors that no engine had, in the order in which they came.
    pub(crate) fresh: Vec<Descriptor>,
}

impl LaneWork {
    /// How many descriptors that came through the portal.
    pub(crate) const fn len(&self) -> usize {
        self.begun.len() + self.fresh.len()
    }
}

impl BegunTask {
    /// The descriptor that came through the portal.
    pub(crate) fn submitted(&self) -> &Descriptor {
        let work = self.batch.as_ref().map_or(&self.work, |batch| &batch.work);
        &work.descriptor
    }
}

impl Batch {
    /// One of its descriptors has completed.
    pub(crate) fn count(&mut self, status: Status) {
        self.completed += 1;
        self.failed += u32::from(status != Status::SUCCESS);
    }
}

impl Work {
    pub(crate) const fn fresh(descriptor: Descriptor) -> Self {
        Self {
            descriptor,
            stage: Stage::Fresh,
        }
    }
}

impl Task {
    pub(crate) fn begun(task: &BegunTask, session: Option<Arc<Session>>) -> Self {
        Self {
            work: task.work,
            batch: task.batch.map(Box::new),
            session,
            refused: task.refused,
        }
    }

    pub(crate) const fn fresh(descriptor: Descriptor, session: Option<Arc<Session>>) -> Self {
        Self {
            work: Work::fresh(descriptor),
            batch: None,
            session,
            refused: None,
        }
    }
}
