//! `reboot`: each boot brings everything up and copies. With the queue still open the host says how this boot ends.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::bring_up::bring_up;
use crate::dsa::WorkQueue;
use crate::protocol::Answer;
use crate::report::Report;
use crate::scenario::copying::copy;

/// How long a boot may take to end.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn run(report: &Report) -> anyhow::Result<()> {
    let accelerators = bring_up(1)?;
    let accelerator = accelerators.first().context("no accelerator")?;
    let queue = WorkQueue::open(&accelerator.queue_path())?;
    report.outcome("boot", copy(&queue));
    match report.wait_for_answer()? {
        Answer::GoOn => return Ok(()),
        Answer::Reboot => {
            let status = Command::new("/bin/busybox")
                .args(["reboot", "-f"])
                .status()
                .context("cannot start busybox")?;
            ensure!(status.success(), "the kernel does not reboot: {status}");
        }
        Answer::Reset => {
            fs::write("/proc/sysrq-trigger", "b").context("cannot reset the machine")?;
        }
    }
    std::thread::sleep(PATIENCE);
    bail!("this boot does not end")
}
