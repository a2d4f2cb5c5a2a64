use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Nested, Session, Unit};
use crate::{Abi, Container};

/// One tenant, as all connections of its VMM share it. A handle; clones are of the same tenant.
///
/// When the last [`Session`] goes, everything that they took goes back: every PASID is unbound, drained and freed
/// before that returns.
#[derive(Clone)]
pub struct Vmm {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) container: Container,
    pub(super) nested: Nested,
    /// How many sessions there are. Held while the last one cleans up, so that the next begins with nothing.
    sessions: Mutex<usize>,
}

impl Vmm {
    /// A tenant whose functions are behind these units.
    #[must_use]
    pub fn new(container: Container, units: &[Unit]) -> Self {
        Self {
            inner: Arc::new(Inner {
                container,
                nested: Nested::of(units),
                sessions: Mutex::default(),
            }),
        }
    }

    /// A connection of this tenant, whose client speaks one of the proposals. It has chosen neither nesting nor
    /// anything else yet.
    #[must_use]
    pub fn connect(&self, abi: Abi) -> Session {
        *self.inner.sessions() += 1;
        Session::new(self.clone(), abi)
    }
}

impl Inner {
    fn sessions(&self) -> MutexGuard<'_, usize> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session has gone.
    pub(super) fn leave(&self) {
        let mut sessions = self.sessions();
        *sessions = sessions.saturating_sub(1);
        if *sessions == 0 {
            self.container.close();
        }
    }
}

impl std::fmt::Debug for Vmm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vmm({:?})", self.inner.container)
    }
}
