//! What wakes an engine's thread.

use std::{
    hint,
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How long an engine looks for new work before its thread sleeps: a wake-up across cores costs about
/// as much, so work that comes in a stream never pays for one.
const LOOK_BEFORE_SLEEPING: Duration = Duration::from_micros(50);
/// A sleeping thread looks around this often even if nobody rings, so that a stop is never missed.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// A doorbell that engines of one parent wait at.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rings: AtomicU64,
    sleeping: AtomicU32,
    stopped: AtomicBool,
    removals: AtomicU64,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Bell {
    /// The number of rings so far; pass it to [`Bell::wait`] after looking for work in vain.
    pub(crate) fn rings(&self) -> u64 {
        self.rings.load(Ordering::SeqCst)
    }

    /// There is work. Cheap unless somebody sleeps.
    pub(crate) fn ring(&self) {
        self.rings.fetch_add(1, Ordering::SeqCst);
        if self.sleeping.load(Ordering::SeqCst) > 0 {
            let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.wake.notify_all();
        }
    }

    /// Waits until somebody rang after `seen` was read, or a tenth of a second.
    pub(crate) fn wait(&self, seen: u64) {
        let start = Instant::now();
        while start.elapsed() < LOOK_BEFORE_SLEEPING {
            for _ in 0..64 {
                if self.rings() != seen {
                    return;
                }
                hint::spin_loop();
            }
        }
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        if self.rings() == seen && !self.stopped() {
            let _guard = self.wake.wait_timeout(guard, LONGEST_SLEEP);
        }
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
    }

    /// Memory of a tenant was removed: what engines remember of it has to go too.
    pub(crate) fn memory_removed(&self) {
        self.removals.fetch_add(1, Ordering::SeqCst);
        self.ring();
    }

    /// How often memory was removed.
    pub(crate) fn removals(&self) -> u64 {
        self.removals.load(Ordering::SeqCst)
    }

    /// Ends the engines.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.ring();
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    #[test]
    fn a_ring_before_the_wait_is_not_lost() {
        let bell = Bell::default();
        let seen = bell.rings();
        bell.ring();
        bell.wait(seen);
        assert_eq!(bell.rings(), seen + 1);
    }

    #[test]
    fn a_ring_wakes_a_sleeper() {
        let bell = Arc::new(Bell::default());
        let (woken, wait) = mpsc::channel();
        let sleeper = std::thread::spawn({
            let bell = Arc::clone(&bell);
            move || {
                let mut seen = 0;
                while seen == bell.rings() {
                    bell.wait(seen);
                }
                seen = bell.rings();
                woken.send(seen).unwrap();
            }
        });
        bell.ring();
        assert_eq!(wait.recv_timeout(Duration::from_secs(5)), Ok(1));
        sleeper.join().unwrap();
    }
}
