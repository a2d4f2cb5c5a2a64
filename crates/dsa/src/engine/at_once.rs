use super::{Advance, Engine, Parked};
use crate::lane::SubmitError;
use crate::queue::{AtOnce, Lane};
use crate::spec::Descriptor;
use crate::task::Task;

impl Engine {
    /// Submits a descriptor to a lane, and runs it at once where nothing is before it and no queue has anything to do. For
    /// who looks for descriptors on the thread of an engine, as in a [`SharedPortal`](crate::SharedPortal): to queue
    /// one only to take it out again costs as much as to run it. As with [`Lane::submit`](crate::Lane::submit), there may be
    /// something to [run](Engine::run) afterwards.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was taken.
    pub fn submit(
        &mut self,
        lane: &Lane,
        descriptor: Descriptor,
        limit: u16,
    ) -> Result<(), SubmitError> {
        let Some(at_once) = lane.submit_at_once(&self.core, &descriptor, limit)? else {
            return lane.submit(descriptor, None, limit);
        };
        let AtOnce {
            place,
            shared,
            session,
        } = at_once;
        let mut task = Task::fresh(descriptor, None);
        let (queue, lane) = place;
        let ended = self.advance(&mut task, &session, &shared);
        let completed = u64::from(matches!(ended, Advance::Finished));
        let finished = match ended {
            // Its hold goes before anybody who waits for the work is told, here and when another engine goes on.
            Advance::Finished | Advance::Dropped => {
                drop(session);
                1
            }
            Advance::TurnOver => {
                drop(session);
                self.core.resume(queue, lane, task);
                0
            }
            Advance::Blocked(on) => match self.park(place, task, on, session) {
                Parked::Yes => 0,
                Parked::No => 1,
            },
        };
        self.told(queue, &shared, finished, completed);
        Ok(())
    }
}
