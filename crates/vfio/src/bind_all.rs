//! A bind on every function of a container, or on none.

use std::collections::BTreeSet;
use std::sync::Arc;

use palisade_ioasid::Errno;
use palisade_iommu::IommuError;

use crate::binding::Bound;
use crate::container::{Endpoint, Inner};
use crate::{Container, SpaceKey, Terms, VfioError};

/// A function that is to be bound, and what it has under the key.
type Task = (Arc<Endpoint>, Option<Bound>);

/// What was done on one function, with what it takes to undo it.
enum Step {
    /// It had nothing under the key.
    Bound(Arc<Endpoint>),
    /// It had this, whose mark and so whose PASID stay until the end.
    Replaced(Arc<Endpoint>, Bound),
}

impl Container {
    /// Binds requests of every function that is attached, and free of a lease, to one address space, or of none. Where
    /// something was bound under the key, the new space replaces it, as in [`Container::bind`]. A
    /// function that is attached later is not bound by this.
    ///
    /// What the platform would refuse on any function is refused before the first is touched. Where it
    /// refuses one in the middle, as when the guest turns its PASIDs off at that moment, those before
    /// get back what they had; until then their requests met the new space. A function that does not even
    /// take its own back, for the same reason, is left with nothing under the key.
    ///
    /// # Errors
    /// [`VfioError::NoFunction`] (ENODEV) in an empty container, and those of [`Container::bind`].
    pub fn bind_all(&self, key: SpaceKey, terms: Terms) -> Result<(), VfioError> {
        self.bind_all_while(key, terms, |_| ())
    }

    /// [`Container::bind_all`]; `meanwhile` happens each time before a function is touched.
    pub(crate) fn bind_all_while(
        &self,
        key: SpaceKey,
        terms: Terms,
        meanwhile: impl FnMut(&Endpoint),
    ) -> Result<(), VfioError> {
        key.check()?;
        let _operation = self.inner.operation();
        let wanted = Wanted { key, terms };
        self.inner.bind_all(wanted, meanwhile)
    }
}

/// What is to be bound on all functions.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) key: SpaceKey,
    pub(crate) terms: Terms,
}

/// The caller is in an operation.
impl Inner {
    pub(crate) fn bind_all(
        &self,
        wanted: Wanted,
        meanwhile: impl FnMut(&Endpoint),
    ) -> Result<(), VfioError> {
        let endpoints = self.free_endpoints();
        if endpoints.is_empty() {
            return Err(VfioError::NoFunction);
        }
        let tasks = endpoints.into_iter().map(|endpoint| {
            let before = self.bound(endpoint.guest_bdf, wanted.key);
            (endpoint, before)
        });
        let is_done = |(endpoint, before): &Task| {
            let before = before.as_ref();
            before.is_some_and(|bound| bound.is_to(&wanted.terms, &endpoint.memory))
        };
        let mut tasks: Vec<Task> = tasks.filter(|task| !is_done(task)).collect();
        // Slices of one parent share an entry: who is in it changes it before others join.
        tasks.sort_by_key(|(_, before)| before.is_none());
        let mut steps = Vec::new();
        let outcome = self
            .would_bind_all(&tasks, wanted)
            .and_then(|()| self.try_bind_all(tasks, wanted, meanwhile, &mut steps));
        if outcome.is_err() {
            for step in steps.into_iter().rev() {
                self.undo(step, wanted.key);
            }
            self.end_pair_if_unused(wanted.key);
        }
        outcome
    }

    fn would_bind_all(&self, tasks: &[Task], wanted: Wanted) -> Result<(), VfioError> {
        for (endpoint, _) in tasks {
            let hold = self.hold_for(endpoint, wanted.key)?;
            let tag = endpoint.tag(wanted.key, &hold);
            let binding = self.binding(endpoint, wanted.key, wanted.terms, &endpoint.memory);
            match endpoint.function.would_bind(tag, &hold, &binding) {
                // Perhaps only with what this is about to replace: the bind itself will tell.
                Ok(()) | Err(IommuError::EntryBusy { .. }) => {}
                Err(error) => {
                    hold.bind_refused(endpoint.function.bdf(), Errno::new(error.errno()));
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    fn try_bind_all(
        &self,
        tasks: Vec<Task>,
        wanted: Wanted,
        mut meanwhile: impl FnMut(&Endpoint),
        steps: &mut Vec<Step>,
    ) -> Result<(), VfioError> {
        let tasks = self.leave_shared_entries(tasks, wanted, steps);
        for (endpoint, before) in tasks {
            meanwhile(&endpoint);
            self.bind(&endpoint, wanted.key, wanted.terms)?;
            steps.push(match before {
                None => Step::Bound(endpoint),
                Some(before) => Step::Replaced(endpoint, before),
            });
        }
        Ok(())
    }

    /// An entry of several users cannot change its space. All but the first of each leave it here, and
    /// join again in their turn; the entry stands all the while.
    fn leave_shared_entries(
        &self,
        tasks: Vec<Task>,
        wanted: Wanted,
        steps: &mut Vec<Step>,
    ) -> Vec<Task> {
        let mut seen = BTreeSet::new();
        let leave = |(endpoint, before): Task| {
            let Some(before) = before else {
                return (endpoint, None);
            };
            let tag = endpoint.tag(wanted.key, before.hold());
            if before.terms.space == wanted.terms.space
                || seen.insert((endpoint.function.bdf(), tag))
            {
                return (endpoint, Some(before));
            }
            self.release(&endpoint, wanted.key);
            steps.push(Step::Replaced(Arc::clone(&endpoint), before));
            (endpoint, None)
        };
        tasks.into_iter().map(leave).collect()
    }

    fn undo(&self, step: Step, key: SpaceKey) {
        let (endpoint, before) = match step {
            Step::Bound(endpoint) => {
                self.release(&endpoint, key);
                return;
            }
            Step::Replaced(endpoint, before) => (endpoint, before),
        };
        let tag = endpoint.tag(key, before.hold());
        let binding = self.binding(&endpoint, key, before.terms, &before.memory);
        let restored = endpoint.function.bind(tag, before.hold().clone(), binding);
        if let Err(error) = restored {
            let guest_bdf = endpoint.guest_bdf;
            tracing::warn!(%guest_bdf, %key, %error, "what was bound could not be restored");
            self.release(&endpoint, key);
            return;
        }
        let replaced = {
            let mut state = self.state();
            let attached = state.functions.get_mut(&endpoint.guest_bdf);
            attached.and_then(|attached| attached.bound.insert(key, before))
        };
        drop(replaced);
    }
}
