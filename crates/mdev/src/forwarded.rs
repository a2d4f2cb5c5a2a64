use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use palisade_dsa::EntryPoint;
use palisade_units::{GuestPasid, HostPasid, TenantId};

/// How many of the last PASIDs a parent remembers.
const REMEMBERED: usize = 1024;

/// A PASID that was forwarded to a parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// For whom.
    pub tenant: TenantId,
    /// As the guest wrote it; `None`: a queue on which the guest has PASIDs off.
    pub guest: Option<GuestPasid>,
    /// As the parent got it.
    pub host: HostPasid,
    /// Where it entered.
    pub at: EntryPoint,
}

/// What was forwarded to a parent, and how often something was refused: the last of the former, and counts
/// of both.
#[derive(Debug, Default)]
pub struct ForwardedLog {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: VecDeque<Forwarded>,
    forwarded: u64,
    refused: u64,
}

impl ForwardedLog {
    fn with<T>(&self, what: impl FnOnce(&mut State) -> T) -> T {
        what(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn forward(&self, entry: Forwarded) {
        self.with(|state| {
            if state.last.len() == REMEMBERED {
                state.last.pop_front();
            }
            state.last.push_back(entry);
            state.forwarded += 1;
        });
    }

    pub(crate) fn refuse(&self) {
        self.with(|state| state.refused += 1);
    }

    /// The last PASIDs that were forwarded, the oldest first.
    #[must_use]
    pub fn last(&self) -> Vec<Forwarded> {
        self.with(|state| state.last.iter().copied().collect())
    }

    /// How many were forwarded.
    #[must_use]
    pub fn forwarded(&self) -> u64 {
        self.with(|state| state.forwarded)
    }

    /// How many were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.with(|state| state.refused)
    }
}
