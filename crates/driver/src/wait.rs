//! Waiting for a device without taking the processor from it.

use crate::error::DriverError;
use std::time::{Duration, Instant};

/// How long anything may take before the driver gives up.
pub const LIMIT: Duration = Duration::from_secs(10);

/// How often to look again at once, before the first sleep.
const SPINS: u32 = 60;
/// How often to let others run after that.
const YIELDS: u32 = 20;
const FIRST_NAP: Duration = Duration::from_micros(5);
const LONGEST_NAP: Duration = Duration::from_micros(80);

/// The pace of a wait: a few looks in a row, then others run, then sleeps that grow to some 80 µs.
#[derive(Debug)]
pub struct Patience {
    since: Instant,
    limit: Duration,
    looks: u32,
    nap: Duration,
}

impl Patience {
    /// A wait of at most `limit` without progress.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self {
            since: Instant::now(),
            limit,
            looks: 0,
            nap: FIRST_NAP,
        }
    }

    /// There was progress: look often again, and count the time from here.
    pub fn progressed(&mut self) {
        *self = Self::new(self.limit);
    }

    /// Passes a little time.
    ///
    /// # Errors
    /// [`DriverError::TimedOut`] once the limit has passed; `what` says what was outstanding.
    pub fn pause(&mut self, what: impl FnOnce() -> String) -> Result<(), DriverError> {
        self.looks = self.looks.saturating_add(1);
        if self.looks <= SPINS {
            (0..20).for_each(|_| std::hint::spin_loop());
            return Ok(());
        }
        let waited = self.since.elapsed();
        if waited > self.limit {
            return Err(DriverError::TimedOut {
                what: what(),
                waited,
            });
        }
        if self.looks <= SPINS + YIELDS {
            std::thread::yield_now();
        } else {
            std::thread::sleep(self.nap);
            self.nap = (self.nap * 2).min(LONGEST_NAP);
        }
        Ok(())
    }

    /// Whether the next pause is a sleep, so that it pays to look at what costs a system call.
    #[must_use]
    pub fn is_resting(&self) -> bool {
        self.looks >= SPINS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_and_says_what_was_outstanding() {
        let mut patience = Patience::new(Duration::from_millis(2));
        let ended = loop {
            if let Err(error) = patience.pause(|| "the moon".to_owned()) {
                break error;
            }
        };
        assert!(ended.to_string().contains("the moon"), "{ended}");
    }
}
