//! Whether engines have something of a lane in hand, and keeping their hands off it.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::LaneShared;
use crate::lock::locked;

/// Counts the turns that engines have of a lane.
///
/// Engines count a turn under the queue's lock, where they see that they may not, and end it without; then they look
/// whether somebody waits. Who waits says so first and then looks at the count. All of it is sequentially
/// consistent, so one of the two sees the other.
#[derive(Default)]
pub(crate) struct Hands {
    turns: AtomicU64,
    off: AtomicBool,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Hands {
    /// Whether engines may not have anything of the lane.
    pub(crate) fn are_off(&self) -> bool {
        self.off.load(Ordering::SeqCst)
    }

    pub(crate) fn take_off(&self) {
        self.off.store(true, Ordering::SeqCst);
    }

    pub(crate) fn put_on(&self) {
        self.off.store(false, Ordering::SeqCst);
    }

    /// Waits, with the hands taken off, until the last turn has ended.
    pub(crate) fn wait(&self) {
        let mut guard = locked(&self.lock);
        while self.turns.load(Ordering::SeqCst) != 0 {
            let slept = self.changed.wait(guard);
            guard = slept.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn end_turn(&self) {
        let before = self.turns.fetch_sub(1, Ordering::SeqCst);
        if before == 1 && self.are_off() {
            drop(locked(&self.lock));
            self.changed.notify_all();
        }
    }
}

/// What an engine holds of a lane during a turn.
pub(crate) struct InHand(Arc<LaneShared>);

impl InHand {
    /// To be called under the queue's lock, which orders it with [`Hands::take_off`].
    pub(crate) fn take(shared: &Arc<LaneShared>) -> Self {
        shared.hands.turns.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(shared))
    }
}

impl Deref for InHand {
    type Target = LaneShared;

    fn deref(&self) -> &LaneShared {
        &self.0
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.hands.end_turn();
    }
}
