//! `pair`: two processes work at the same time, each on a queue of its own. With `palisade.sweep=…` the
//! system's root meanwhile tries the PASIDs of others.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::bring_up::{QueuePlan, QueueState, bring_up};
use crate::parameters::Parameters;
use crate::report::Report;
use crate::scenario::sweep::{self, Extent};
use crate::scenario::worker::Worker;

const QUEUE_ENTRIES: u32 = 8;

/// The queue that is configured for nobody, for the sweep.
const SPARE_QUEUE: usize = 2;

pub(super) fn run(asked: &Parameters, report: &Report) -> anyhow::Result<()> {
    let duration = Duration::from_secs(asked.get_or("seconds", 10)?);
    let seed: u64 = asked.get_or("seed", 1)?;
    let extent: Option<Extent> = asked.get("sweep").map(str::parse).transpose()?;
    let plan = |index, state| QueuePlan {
        index,
        entries: QUEUE_ENTRIES,
        state,
    };
    let mut plans = vec![plan(0, QueueState::Enabled), plan(1, QueueState::Enabled)];
    if extent.is_some() {
        plans.push(plan(SPARE_QUEUE, QueueState::Configured));
    }
    let accelerator = bring_up(&plans)?;
    report.pass("bring-up", &accelerator.name);

    let mut children = Vec::new();
    for (index, name) in [(0, "first"), (1, "second")] {
        children.push(start(&Worker {
            name: name.to_owned(),
            queue: accelerator.queue_path(index),
            duration,
            seed: seed.wrapping_add(index as u64).wrapping_mul(0x9E37_79B9),
        })?);
    }
    if let Some(extent) = extent {
        report.outcome(
            "sweep",
            sweep::run(&accelerator, SPARE_QUEUE, extent, report),
        );
    }
    for mut child in children {
        let status = child.wait().context("cannot wait for a worker")?;
        ensure!(status.success(), "a worker ended with {status}");
    }
    Ok(())
}

fn start(worker: &Worker) -> anyhow::Result<Child> {
    Command::new("/proc/self/exe")
        .args(worker.arguments())
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start the worker {}", worker.name))
}
