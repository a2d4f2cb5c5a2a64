use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

/// How large BAR 0 is.
pub(crate) const BAR_BYTES: u64 = 0x1000;
/// A register that tells how much processor time the thread has used that reads it, in nanoseconds. So a client learns
/// what its server has used.
pub(crate) const CPU_TIME_AT: u64 = 0x800;

const WORDS: usize = 512;

/// Registers of eight bytes that do nothing, behind both servers.
#[derive(Debug)]
pub(crate) struct Registers([AtomicU64; WORDS]);

impl Registers {
    pub(crate) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    fn word(&self, at: u64) -> Option<&AtomicU64> {
        self.0.get(usize::try_from(at / 8).ok()?)
    }

    /// Reads the eight bytes at an offset; `None` for what is no register.
    pub(crate) fn read(&self, at: u64, into: &mut [u8]) -> Option<()> {
        let value = if at == CPU_TIME_AT {
            thread_time_ns()
        } else {
            self.word(at)?.load(Ordering::Relaxed)
        };
        let bytes: &mut [u8; 8] = into.try_into().ok()?;
        *bytes = value.to_ne_bytes();
        Some(())
    }

    /// Writes the eight bytes at an offset; `None` for what is no register.
    pub(crate) fn write(&self, at: u64, from: &[u8]) -> Option<()> {
        let bytes: [u8; 8] = from.try_into().ok()?;
        let value = u64::from_ne_bytes(bytes);
        self.word(at)?.store(value, Ordering::Relaxed);
        Some(())
    }
}

/// The processor time that the calling thread has used.
pub(crate) fn thread_time_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, rest) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    seconds.unwrap_or(0) * 1_000_000_000 + rest.unwrap_or(0)
}
