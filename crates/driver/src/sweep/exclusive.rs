//! The sweep of a function of one's own: every PASID is taken, every access by a wrong one faults.

use super::{Loot, NO_PASID_ENTRY, SweepMode, SweepOutcome, SweepPlan, pasid};
use crate::{
    accelerator::{Accelerator, Devices, OnFault},
    error::DriverError,
    kernel::Kernel,
    unit::{FaultReport, Overflow},
    wait::LIMIT,
};
use palisade_dsa::spec::{Command, CommandError};
use palisade_units::{Access, GuestPasid, Iova};
use std::{collections::HashMap, ops::Range};

/// The queues that one disable command can name.
const BANK: u8 = 16;
const DISABLE: &str = "disable queues";
/// How often a batch is tried whose work took longer than the device holds a command up for.
const TRIES: u32 = 4;

pub(super) fn sweep(
    accelerator: &mut Devices<'_>,
    kernel: &mut Kernel,
    plan: &SweepPlan,
    loot: &Loot,
    progress: &mut dyn FnMut(u64),
) -> Result<SweepOutcome, DriverError> {
    let mut outcome = SweepOutcome::new(SweepMode::Exclusive);
    // Each attempt leaves a record, and a batch has no more attempts than there are records.
    let most = u32::try_from(kernel.unit.fault_capacity()).unwrap_or(1);
    let mut next = plan.pasids.start;
    while next < plan.pasids.end {
        let batch = next..plan.pasids.end.min(next.saturating_add(most));
        next = batch.end;
        let attempts = run_undisturbed(accelerator, kernel, loot, &batch)?;
        accelerator.take_all_events(kernel)?;
        let faults = kernel.take_faults()?;
        if faults.overflow == Overflow::Lost {
            tracing::warn!("faults were lost during a sweep: attempts cannot be accounted for");
        }
        outcome.keep_faults(&faults.reports);
        let stolen = loot.holds_secret(kernel)?;
        account(accelerator, loot, &attempts, &faults.reports, &mut outcome);
        outcome.reached_other += u64::from(stolen);
        progress(outcome.tried);
    }
    Ok(outcome)
}

/// Runs a batch. Where the device could not end its work before the next command came, that command and those after it
/// were dropped, and nothing is shown: then the batch is run again.
fn run_undisturbed(
    accelerator: &mut Accelerator,
    kernel: &mut Kernel,
    loot: &Loot,
    batch: &Range<u32>,
) -> Result<Vec<(GuestPasid, Iova)>, DriverError> {
    for _ in 0..TRIES {
        if let Some(attempts) = run(accelerator, loot, batch)? {
            return Ok(attempts);
        }
        accelerator.await_command(DISABLE, kernel)?;
        let all = operand(accelerator.queues().min(BANK));
        accelerator.command(
            Command::of(Command::DISABLE_QUEUES).with_operand(all),
            kernel,
        )?;
        kernel.take_faults()?;
    }
    Err(DriverError::TimedOut {
        what: format!("{DISABLE} of {}, {TRIES} times", accelerator.bdf()),
        waited: LIMIT,
    })
}

/// Programs a batch of PASIDs, as many at a time as there are queues, and reads by each. All work has ended on return;
/// `None` where the device still had some when the next command came.
fn run(
    accelerator: &mut Accelerator,
    loot: &Loot,
    batch: &Range<u32>,
) -> Result<Option<Vec<(GuestPasid, Iova)>>, DriverError> {
    let queues = accelerator.queues().min(BANK);
    let mut attempts = Vec::with_capacity(batch.len());
    let mut tickets = Vec::new();
    for first in batch.clone().step_by(queues.into()) {
        let pasids: Vec<(u8, GuestPasid)> = (0..queues)
            .zip(first..batch.end)
            .map(|(queue, raw)| Ok((queue, pasid(raw)?)))
            .collect::<Result<_, DriverError>>()?;
        for (queue, pasid) in &pasids {
            // A request for a translation that there is not is no fault; a request that is not translated is.
            let mode = accelerator.mode(Some(*pasid), OnFault::Fail);
            accelerator.post_mode(*queue, mode.with_ats_disable(true))?;
            accelerator.post_command(Command::for_queue(Command::ENABLE_QUEUE, *queue))?;
        }
        for (queue, pasid) in &pasids {
            let attempt = loot.attempt(*pasid);
            accelerator.submit(*queue, &attempt.descriptor)?;
            attempts.push((*pasid, attempt.from));
        }
        let used = pasids.last().map_or(0, |(queue, _)| queue + 1);
        accelerator
            .post_command(Command::of(Command::DISABLE_QUEUES).with_operand(operand(used)))?;
        tickets.push(accelerator.queue_status()?);
    }
    let mut undisturbed = true;
    for ticket in tickets {
        let status = accelerator.take_status(ticket)?;
        undisturbed &= !status.active();
        if undisturbed && status.error() != CommandError::SUCCESS {
            return Err(DriverError::Command {
                bdf: accelerator.bdf(),
                command: DISABLE.to_owned(),
                code: status.error().0,
                reason: status.error().words().to_owned(),
            });
        }
    }
    Ok(undisturbed.then_some(attempts))
}

/// The operand that names the first `queues` queues, at most [`BANK`].
fn operand(queues: u8) -> u32 {
    (0..queues).fold(0, |bits, queue| bits | 1 << queue)
}

/// Counts each attempt by its fault.
fn account(
    accelerator: &Accelerator,
    loot: &Loot,
    attempts: &[(GuestPasid, Iova)],
    faults: &[FaultReport],
    outcome: &mut SweepOutcome,
) {
    let of_pasid: HashMap<GuestPasid, &FaultReport> = faults
        .iter()
        .filter(|fault| fault.bdf == accelerator.bdf())
        .filter_map(|fault| Some((fault.pasid?, fault)))
        .collect();
    for (pasid, from) in attempts {
        outcome.tried += 1;
        let refused = of_pasid.get(pasid).is_some_and(|fault| {
            fault.at == from.page_base()
                && fault.access.contains(Access::READ)
                && NO_PASID_ENTRY.contains(&fault.reason)
        });
        if refused {
            outcome.faulted += 1;
        } else if loot.is_own(*pasid) {
            outcome.own += 1;
        } else {
            tracing::warn!(%pasid, %from, fault = ?of_pasid.get(pasid), "an attempt without its fault");
            outcome.reached_other += 1;
        }
    }
}
