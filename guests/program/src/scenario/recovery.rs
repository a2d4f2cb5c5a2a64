//! `recovery`: the function is reset through sysfs, and its queue taken away and its driver unbound and bound again,
//! each under a process that copies without a pause. That process loses its queue and ends; the next one works. A
//! process on another function goes on all the while.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail, ensure};

use crate::bring_up::{Accelerator, QueueKind, bring_up, find_accelerators};
use crate::dsa::WorkQueue;
use crate::report::Report;
use crate::scenario::copying::copy;
use crate::scenario::worker::{Ending, Worker};

/// The kernel's folder of the driver.
const DRIVER: &str = "/sys/bus/pci/drivers/idxd";

/// The process on the other function works until this is there.
const STOP: &str = "/tmp/stop";

/// Nobody makes it: what ends the others is that their queue is gone.
const NEVER: &str = "/tmp/never";

pub(super) fn run(report: &Report) -> anyhow::Result<()> {
    let accelerators = bring_up(2)?;
    let [accelerator, other] = accelerators.as_slice() else {
        bail!("there are {} accelerators", accelerators.len());
    };
    report.pass("bring-up", format!("{}, {}", accelerator.name, other.name));
    let mut bystander = worker(other, "bystander", STOP, Ending::Stopped).start()?;

    let function = accelerator.pci_folder()?;
    under_load(accelerator, ("reset-worker", "reset"), report, || {
        write(&function.join("reset"), "1")
    })?;
    // The driver brings everything back as it was configured.
    report.outcome("copy-after-reset", copy_once(accelerator));

    // The queue goes first, and the process that has it open ends. A driver that is unbound before that uses what it
    // has just freed, and the kernel ends (Linux 7.3): with the accelerator enabled at once, and with the queue's
    // file open when the file is closed.
    under_load(accelerator, ("disable-worker", "disable"), report, || {
        accelerator.disable(QueueKind::User)
    })?;
    report.outcome("rebind", rebind(accelerator, &function));
    let again = find_accelerators(2)?.into_iter().find(|accelerator| {
        let folder = accelerator.pci_folder();
        folder.is_ok_and(|folder| folder == function)
    });
    let again = again.context("the function has no accelerator any more")?;
    report.outcome(
        "enable-after-bind",
        again.enable(QueueKind::User).map(|()| ""),
    );
    report.outcome("copy-after-bind", copy_once(&again));
    report.outcome(
        "disable-after-bind",
        again.disable(QueueKind::User).map(|()| ""),
    );

    fs::write(STOP, "").context("cannot end the process on the other function")?;
    let status = bystander.wait().context("cannot wait for a process")?;
    ensure!(status.success(), "a process ended with {status}");
    Ok(())
}

fn worker(accelerator: &Accelerator, name: &str, stop: &str, ending: Ending) -> Worker {
    Worker {
        name: name.to_owned(),
        queue: accelerator.queue_path(),
        stop: PathBuf::from(stop),
        seed: 0x9E37_79B9,
        ending,
    }
}

/// Starts a process that copies, and does `what` when the host has seen it do so. Both are told of, by their names.
fn under_load(
    accelerator: &Accelerator,
    (process_name, name): (&str, &str),
    report: &Report,
    what: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut process = worker(accelerator, process_name, NEVER, Ending::Cut).start()?;
    report.wait_for_host()?;
    let started = Instant::now();
    let outcome = what().map(|()| format!("{} ms", started.elapsed().as_millis()));
    report.outcome(name, outcome);
    let status = process.wait().context("cannot wait for the process")?;
    ensure!(status.success(), "{process_name} ended with {status}");
    Ok(())
}

/// Takes the function from its driver and gives it back.
fn rebind(accelerator: &Accelerator, function: &Path) -> anyhow::Result<&'static str> {
    let name = function.file_name().context("the function has no name")?;
    let name = name.to_string_lossy();
    write(&Path::new(DRIVER).join("unbind"), &name)?;
    ensure!(
        accelerator.pci_folder().is_err(),
        "without its driver there is still {}",
        accelerator.name
    );
    write(&Path::new(DRIVER).join("bind"), &name)?;
    Ok("")
}

fn copy_once(accelerator: &Accelerator) -> anyhow::Result<String> {
    accelerator.wait_for_queue()?;
    copy(&WorkQueue::open(&accelerator.queue_path())?)
}

fn write(path: &Path, value: &str) -> anyhow::Result<()> {
    fs::write(path, value).with_context(|| format!("cannot write {value:?} to {}", path.display()))
}
