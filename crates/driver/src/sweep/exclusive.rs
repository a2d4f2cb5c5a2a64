//! The sweep of a function of one's own: every PASID is taken, every access by a wrong one faults.

use super::{Loot, NO_PASID_ENTRY, SweepMode, SweepOutcome, SweepPlan, pasid};
use crate::{
    accelerator::{Accelerator, Devices, OnFault},
    error::DriverError,
    kernel::Kernel,
    unit::{FaultReport, Overflow},
};
use palisade_dsa::spec::{Command, CommandError};
use palisade_units::{Access, GuestPasid, Iova};
use std::{collections::HashMap, ops::Range};

/// The queues that one disable command can name.
const BANK: u8 = 16;

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
        let attempts = run(accelerator, loot, batch)?;
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

/// Programs a batch of PASIDs, as many at a time as there are queues, and reads by each. All work has ended on return.
fn run(
    accelerator: &mut Accelerator,
    loot: &Loot,
    batch: Range<u32>,
) -> Result<Vec<(GuestPasid, Iova)>, DriverError> {
    let queues = accelerator.queues().min(BANK);
    let mut attempts = Vec::with_capacity(batch.len());
    let mut tickets = Vec::new();
    for first in batch.clone().step_by(queues.into()) {
        let pasids: Vec<(u8, GuestPasid)> = (0..queues)
            .zip(first..batch.end)
            .map(|(queue, raw)| Ok((queue, pasid(raw)?)))
            .collect::<Result<_, DriverError>>()?;
        for (queue, pasid) in &pasids {
            accelerator.post_mode(*queue, accelerator.mode(Some(*pasid), OnFault::Fail))?;
            accelerator.post_command(Command::for_queue(Command::ENABLE_QUEUE, *queue))?;
        }
        for (queue, pasid) in &pasids {
            let attempt = loot.attempt(*pasid);
            accelerator.submit(*queue, &attempt.descriptor)?;
            attempts.push((*pasid, attempt.from));
        }
        let operand = (0..pasids.len()).fold(0, |bits, queue| bits | 1 << queue);
        accelerator.post_command(Command::of(Command::DISABLE_QUEUES).with_operand(operand))?;
        tickets.push(accelerator.queue_status()?);
    }
    for ticket in tickets {
        let status = accelerator.take_status(ticket)?;
        if status.error() != CommandError::SUCCESS || status.active() {
            return Err(DriverError::Command {
                bdf: accelerator.bdf(),
                command: "disable queues of a sweep".to_owned(),
                code: status.error().0,
                reason: status.error().words().to_owned(),
            });
        }
    }
    Ok(attempts)
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
