use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Limits, MapError};

/// What several spaces may hold together. Clones are handles of the same one.
///
/// Who lets a client make spaces as it likes gives all of them one budget, since each brings mappings and addresses of
/// the process to be taken. A region is charged while it is in its space.
#[derive(Clone)]
pub struct Budget {
    limits: Limits,
    held: Arc<Mutex<Held>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Held {
    regions: usize,
    bytes: u64,
}

impl Budget {
    /// So much, of which nothing is held yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            held: Arc::default(),
        }
    }

    /// Charges a region of this length, until what is returned is dropped.
    pub(crate) fn charge(&self, len_bytes: u64) -> Result<Charge, MapError> {
        let Limits { regions, bytes } = self.limits;
        let mut held = self.held();
        if held.regions >= regions || len_bytes > bytes.saturating_sub(held.bytes) {
            return Err(MapError::BudgetSpent { regions, bytes });
        }
        held.regions += 1;
        held.bytes += len_bytes;
        drop(held);
        Ok(Charge {
            budget: self.clone(),
            len_bytes,
        })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // What it guards is consistent between statements, also after a panic of another holder.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = *self.held();
        write!(f, "Budget({held:?} of {:?})", self.limits)
    }
}

/// A region's part of a budget, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Budget,
    len_bytes: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut held = self.budget.held();
        held.regions -= 1;
        held.bytes -= self.len_bytes;
    }
}
