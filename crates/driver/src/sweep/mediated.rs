//! The sweep of a device that mediates: each PASID is written to a queue, and the queue's enabling is refused.

use super::{Loot, SweepMode, SweepOutcome, SweepPlan, pasid};
use crate::{
    accelerator::{Accelerator, Devices, OnFault},
    error::DriverError,
    kernel::Kernel,
};
use palisade_dsa::spec::{Command, CommandError, CommandStatus};
use palisade_units::GuestPasid;
use std::ops::Range;

/// How many PASIDs are under way at a time, three messages each.
const BATCH: u32 = 1024;
const QUEUE: u8 = 0;

pub(super) fn sweep(
    accelerator: &mut Devices<'_>,
    kernel: &mut Kernel,
    plan: &SweepPlan,
    loot: &Loot,
    progress: &mut dyn FnMut(u64),
) -> Result<SweepOutcome, DriverError> {
    let mut outcome = SweepOutcome::new(SweepMode::Mediated);
    let mut next = plan.pasids.start;
    while next < plan.pasids.end {
        let batch = next..plan.pasids.end.min(next.saturating_add(BATCH));
        next = match program(accelerator, batch.clone(), &mut outcome)? {
            Some(enabled) => {
                outcome.tried += 1;
                let own = try_to_read(accelerator, kernel, loot, enabled)?;
                *(if own {
                    &mut outcome.own
                } else {
                    &mut outcome.reached_other
                }) += 1;
                // What came after it in the batch met an enabled queue, so it shows nothing.
                enabled.get() + 1
            }
            None => batch.end,
        };
        accelerator.take_all_events(kernel)?;
        progress(outcome.tried);
    }
    outcome.keep_faults(&kernel.take_faults()?.reports);
    Ok(outcome)
}

/// Programs a batch; returns the first PASID that the device took, which leaves the queue enabled.
fn program(
    accelerator: &mut Accelerator,
    batch: Range<u32>,
    outcome: &mut SweepOutcome,
) -> Result<Option<GuestPasid>, DriverError> {
    let mut tickets = Vec::with_capacity(batch.len());
    for raw in batch {
        let pasid = pasid(raw)?;
        accelerator.post_mode(QUEUE, accelerator.mode(Some(pasid), OnFault::Fail))?;
        accelerator.post_command(Command::for_queue(Command::ENABLE_QUEUE, QUEUE))?;
        tickets.push((pasid, accelerator.queue_status()?));
    }
    let mut enabled = None;
    for (pasid, ticket) in tickets {
        let status = accelerator.take_status(ticket)?;
        if enabled.is_some() {
            continue;
        }
        match status.error() {
            CommandError::SUCCESS => enabled = Some(pasid),
            CommandError::PASID_INVALID => {
                outcome.tried += 1;
                outcome.refused += 1;
            }
            _ => return Err(refused_otherwise(accelerator, pasid, status)),
        }
    }
    Ok(enabled)
}

/// Uses the queue that the device enabled, and disables it; says whether it led to what is the tenant's own.
fn try_to_read(
    accelerator: &mut Accelerator,
    kernel: &mut Kernel,
    loot: &Loot,
    pasid: GuestPasid,
) -> Result<bool, DriverError> {
    accelerator.submit(QUEUE, &loot.attempt(pasid).descriptor)?;
    accelerator.flush()?;
    // Disabling waits for the copy.
    accelerator.disable_queue(QUEUE, kernel)?;
    Ok(!loot.holds_secret(kernel)? && loot.is_own(pasid))
}

fn refused_otherwise(
    accelerator: &Accelerator,
    pasid: GuestPasid,
    status: CommandStatus,
) -> DriverError {
    DriverError::Command {
        bdf: accelerator.bdf(),
        command: format!("enable queue {QUEUE} for PASID {pasid}"),
        code: status.error().0,
        reason: status.error().words().to_owned(),
    }
}
