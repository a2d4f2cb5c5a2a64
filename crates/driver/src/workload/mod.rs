//! Work that can be verified: bytes that travel through the buffers of three processes, and pages that are not
//! there before they are asked for.

mod chain;
mod chunks;
mod demand;

use crate::{error::DriverError, tenant::Tenant};
use palisade_units::{Bdf, GuestPasid};
use std::time::Duration;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkloadPlan {
    /// How much to copy at least, in bytes.
    pub copy_bytes: u64,
    /// The length of each of the four buffers in bytes, rounded up to whole pages.
    pub buffer_bytes: u64,
    /// How many descriptors may be under way on a queue.
    pub outstanding: usize,
    /// How many pages each process copies from and to that are not there before.
    pub lazy_pages: u64,
    /// What the bytes are made from.
    pub seed: u64,
}

impl Default for WorkloadPlan {
    fn default() -> Self {
        Self {
            copy_bytes: 256 << 20,
            buffer_bytes: 32 << 20,
            outstanding: 16,
            lazy_pages: 64,
            seed: 1,
        }
    }
}

/// What was done. Every byte was verified, or there is no outcome but an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkloadOutcome {
    /// How much the accelerator copied in bytes, without a first round that is verified but not counted.
    pub copied_bytes: u64,
    /// How long it took, from each first submission to each last completion.
    pub copying: Duration,
    /// In how many descriptors.
    pub descriptors: u64,
    /// How much the processor copied in bytes, in pieces of the same sizes.
    pub memcpy_bytes: u64,
    /// How long it took.
    pub memcpy: Duration,
    /// How many page requests were answered with a page.
    pub page_requests: u64,
    /// How much was copied from and to pages that were not there before, in bytes; not part of `copied_bytes`.
    pub lazy_bytes: u64,
}

impl WorkloadOutcome {
    /// The accelerator's speed in GiB/s.
    #[must_use]
    pub fn copy_gib_per_s(&self) -> f64 {
        gib_per_s(self.copied_bytes, self.copying)
    }

    /// The processor's speed in GiB/s.
    #[must_use]
    pub fn memcpy_gib_per_s(&self) -> f64 {
        gib_per_s(self.memcpy_bytes, self.memcpy)
    }
}

impl Tenant {
    /// Runs the whole of a plan on one accelerator: the copies through the three processes' buffers, then those
    /// through pages that appear on demand. `progress` is told how many bytes of `plan.copy_bytes` are done.
    ///
    /// # Errors
    /// [`DriverError::Mismatch`] at the first byte that is not what it should be, [`DriverError::Copy`] at the first
    /// descriptor that failed, and those of devices and memory.
    pub fn run_workload(
        &mut self,
        bdf: Bdf,
        processes: [GuestPasid; 3],
        plan: &WorkloadPlan,
        progress: &mut dyn FnMut(u64),
    ) -> Result<WorkloadOutcome, DriverError> {
        let mut outcome = WorkloadOutcome::default();
        self.copy_through(bdf, processes, plan, &mut outcome, progress)?;
        self.copy_on_demand(bdf, processes, plan, &mut outcome)?;
        Ok(outcome)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a speed for people")]
fn gib_per_s(bytes: u64, time: Duration) -> f64 {
    let gib = bytes as f64 / f64::from(1 << 30);
    if time.is_zero() {
        0.0
    } else {
        gib / time.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_bytes_by_time() {
        let speed = gib_per_s(3 << 30, Duration::from_millis(1500));
        assert!((speed - 2.0).abs() < 1e-9);
        assert!(gib_per_s(1, Duration::ZERO).abs() < f64::EPSILON);
    }
}
