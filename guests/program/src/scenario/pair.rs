//! `pair`: two processes work at the same time, each on a queue of its own, until the host says that it is
//! enough. With `palisade.sweep=…` the system's root meanwhile tries the PASIDs of others, when the host says so.

use anyhow::{Context, ensure};

use crate::bring_up::bring_up;
use crate::parameters::Parameters;
use crate::report::Report;
use crate::scenario::sweep::{self, Extent};
use crate::scenario::worker::{Ending, Worker};

/// The processes, each on the queue of an accelerator of its own.
const WORKERS: [&str; 2] = ["first", "second"];

/// The workers work until this is there.
const STOP: &str = "/tmp/stop";

pub(super) fn run(asked: &Parameters, report: &Report) -> anyhow::Result<()> {
    let seed: u64 = asked.get_or("seed", 1)?;
    let extent: Option<Extent> = asked.get("sweep").map(str::parse).transpose()?;
    let count = WORKERS.len() + usize::from(extent.is_some());
    let mut accelerators = bring_up(count)?.into_iter();
    report.pass("bring-up", format!("{count} accelerators"));

    let mut children = Vec::new();
    for (index, (name, accelerator)) in WORKERS.into_iter().zip(&mut accelerators).enumerate() {
        let worker = Worker {
            name: name.to_owned(),
            queue: accelerator.queue_path(),
            stop: STOP.into(),
            seed: seed.wrapping_add(index as u64).wrapping_mul(0x9E37_79B9),
            ending: Ending::Stopped,
        };
        children.push(worker.start()?);
    }
    if let Some((extent, accelerator)) = extent.zip(accelerators.next()) {
        report.outcome("sweep", sweep::run(&accelerator, extent, report));
    }
    report.note("waiting", "for the end");
    report.wait_for_host()?;
    std::fs::write(STOP, "").context("cannot end the workers")?;
    for mut child in children {
        let status = child.wait().context("cannot wait for a worker")?;
        ensure!(status.success(), "a worker ended with {status}");
    }
    Ok(())
}
