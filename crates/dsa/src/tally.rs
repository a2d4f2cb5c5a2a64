//! How much of a queue is still to be done, and waiting until it is.
//!
//! Whoever submits and whoever finishes write different cache lines. A waiter announces itself, then
//! looks at the counts; a finisher advances its count, then looks for waiters. All four are
//! sequentially consistent, so one of the two sees the other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::lock::locked;

/// How often a waiter looks before it sleeps: about 20 µs.
const SPINS: u32 = 1000;

#[repr(align(128))]
#[derive(Default)]
struct Line(AtomicU64);

/// What a waiter waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Nothing is left.
    Idle,
    /// Nothing is left but what waits for page responses.
    IdleOrParked,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Nothing is left.
    Idle,
    /// Descriptors are left that wait for page responses.
    Parked,
    /// Engines are not done yet.
    Busy,
}

type Callback = Box<dyn FnOnce() + Send>;

/// Counts of descriptors: submitted, finished and, of those not finished, parked.
#[derive(Default)]
pub(crate) struct Tally {
    submitted: Line,
    finished: Line,
    parked: AtomicU64,
    watched: AtomicBool,
    watchers: Mutex<Watchers>,
    changed: Condvar,
}

#[derive(Default)]
struct Watchers {
    sleeping: u32,
    callbacks: Vec<Callback>,
}

impl Tally {
    /// One descriptor more. Callers hold the lock of the queue.
    pub(crate) fn submit(&self) {
        self.submitted.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Descriptors are done, or were dropped.
    pub(crate) fn finish(&self, count: u64) {
        self.finished.0.fetch_add(count, Ordering::SeqCst);
        self.tell();
    }

    /// A descriptor waits for a page response.
    pub(crate) fn park(&self) {
        self.parked.fetch_add(1, Ordering::SeqCst);
        self.tell();
    }

    /// Descriptors wait no more; those that were dropped are finished as well.
    pub(crate) fn unpark(&self, count: u64) {
        self.parked.fetch_sub(count, Ordering::SeqCst);
    }

    /// How many were submitted in all.
    pub(crate) fn submitted(&self) -> u64 {
        self.submitted.0.load(Ordering::Relaxed)
    }

    /// How many were finished in all.
    pub(crate) fn finished(&self) -> u64 {
        self.finished.0.load(Ordering::SeqCst)
    }

    /// How many are not finished.
    pub(crate) fn pending(&self) -> u64 {
        // Finished first: what is submitted in between only makes the answer greater.
        let finished = self.finished();
        self.submitted().wrapping_sub(finished)
    }

    fn reached(&self, until: Until) -> bool {
        match until {
            Until::Idle => self.pending() == 0,
            Until::IdleOrParked => {
                let parked = self.parked.load(Ordering::SeqCst);
                self.pending() <= parked
            }
        }
    }

    /// Waits, first without sleeping, for at most about `patience`. Says whether it came to that.
    pub(crate) fn wait(&self, until: Until, patience: Option<Duration>) -> bool {
        // Each descriptor that is finished wakes the waiter, so patience is measured from here. Longer than the
        // clock goes is for ever.
        let deadline = patience.and_then(|patience| Instant::now().checked_add(patience));
        for _ in 0..SPINS {
            if self.reached(until) {
                return true;
            }
            std::hint::spin_loop();
        }
        let mut watchers = locked(&self.watchers);
        watchers.sleeping += 1;
        self.watched.store(true, Ordering::SeqCst);
        let mut reached = self.reached(until);
        while !reached {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            watchers = match left {
                None => self.sleep(watchers),
                Some(Duration::ZERO) => break,
                Some(left) => {
                    let slept = self.changed.wait_timeout(watchers, left);
                    slept.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            reached = self.reached(until);
        }
        watchers.sleeping -= 1;
        self.update_watched(&watchers);
        reached
    }

    /// Waits until nothing is left but what is parked, for at most about `patience`.
    pub(crate) fn settle(&self, patience: Duration) -> Settled {
        let settled = self.wait(Until::IdleOrParked, Some(patience));
        if self.reached(Until::Idle) {
            Settled::Idle
        } else if settled {
            Settled::Parked
        } else {
            Settled::Busy
        }
    }

    fn sleep<'a>(
        &self,
        watchers: std::sync::MutexGuard<'a, Watchers>,
    ) -> std::sync::MutexGuard<'a, Watchers> {
        let slept = self.changed.wait(watchers);
        slept.unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `callback` once, when nothing is left: at once if that is so already, else from the
    /// thread that finishes the last one.
    pub(crate) fn when_idle(&self, callback: Callback) {
        let mut watchers = locked(&self.watchers);
        self.watched.store(true, Ordering::SeqCst);
        if !self.reached(Until::Idle) {
            watchers.callbacks.push(callback);
            return;
        }
        self.update_watched(&watchers);
        drop(watchers);
        callback();
    }

    fn update_watched(&self, watchers: &Watchers) {
        if watchers.sleeping == 0 && watchers.callbacks.is_empty() {
            self.watched.store(false, Ordering::SeqCst);
        }
    }

    fn tell(&self) {
        if !self.watched.load(Ordering::SeqCst) {
            return;
        }
        let mut watchers = locked(&self.watchers);
        let callbacks = if self.reached(Until::Idle) {
            std::mem::take(&mut watchers.callbacks)
        } else {
            Vec::new()
        };
        self.update_watched(&watchers);
        drop(watchers);
        self.changed.notify_all();
        for callback in callbacks {
            callback();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_waiter_sleeps_until_the_last_is_finished() {
        let tally = Arc::new(Tally::default());
        tally.submit();
        tally.submit();
        let other = Arc::clone(&tally);
        let waiter = std::thread::spawn(move || other.wait(Until::Idle, None));
        tally.finish(1);
        assert!(!tally.wait(Until::Idle, Some(Duration::from_millis(1))));
        tally.finish(1);
        assert!(waiter.join().unwrap());
    }

    #[test]
    fn what_is_parked_is_not_waited_for_but_is_not_idle() {
        let tally = Tally::default();
        tally.submit();
        tally.park();
        assert!(tally.wait(Until::IdleOrParked, None));
        assert!(!tally.wait(Until::Idle, Some(Duration::ZERO)));
        tally.unpark(1);
        tally.finish(1);
        assert!(tally.wait(Until::Idle, None));
    }

    #[test]
    fn patience_is_for_the_whole_wait_however_often_something_is_finished() {
        let tally = Arc::new(Tally::default());
        for _ in 0..200 {
            tally.submit();
        }
        let other = Arc::clone(&tally);
        let engine = std::thread::spawn(move || {
            for _ in 0..200 {
                std::thread::sleep(Duration::from_millis(5));
                other.finish(1);
            }
        });
        assert_eq!(tally.settle(Duration::from_millis(50)), Settled::Busy);
        engine.join().unwrap();
    }

    #[test]
    fn a_callback_comes_once_when_all_is_done() {
        let calls = Arc::new(AtomicU64::new(0));
        let count = || {
            let calls = Arc::clone(&calls);
            Box::new(move || {
                calls.fetch_add(1, Ordering::SeqCst);
            })
        };
        let tally = Tally::default();
        tally.when_idle(count());
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        tally.submit();
        tally.submit();
        tally.when_idle(count());
        tally.finish(1);
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        tally.finish(1);
        tally.submit();
        tally.finish(1);
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }
}
