//! What a paused lane has to do, to be done by another one.

use std::sync::Arc;

use super::LaneState;
use crate::session::Session;
use crate::spec::Descriptor;
use crate::task::{BegunTask, LaneWork, Task};

impl LaneState {
    /// What there is to do. A task that waits for a page asks again wherever it goes on.
    pub(crate) fn work(&self) -> LaneWork {
        let begun = |task: &Task| BegunTask {
            work: task.work,
            batch: task.batch.as_deref().copied(),
            refused: task.refused,
        };
        let waiting = self
            .parked
            .iter()
            .flat_map(|parked| &parked.tasks)
            .chain(&self.stalled)
            .map(|task| BegunTask {
                refused: None,
                ..begun(task)
            });
        LaneWork {
            begun: self.resumed.iter().map(begun).chain(waiting).collect(),
            fresh: self.fresh.iter().map(|(fresh, _)| *fresh).collect(),
        }
    }

    /// Takes over what another lane had to do.
    pub(crate) fn bring(
        &mut self,
        work: &LaneWork,
        mut session: impl FnMut(&Descriptor) -> Option<Arc<Session>>,
    ) {
        for task in &work.begun {
            let session = session(task.submitted());
            self.count(session.as_ref());
            self.resumed.push_back(Task::begun(task, session));
        }
        for descriptor in &work.fresh {
            let session = session(descriptor);
            self.count(session.as_ref());
            self.fresh.push_back((*descriptor, session));
        }
    }
}
