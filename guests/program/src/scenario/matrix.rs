//! `matrix`: whatever the kernel's version and its IOMMU driver's setting, the unit is there, the accelerator is found,
//! and it works as far as this kernel goes. Which setting it is the host knows; here it is told what came of it.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};

use crate::bring_up::{Accelerator, QueueKind, find_accelerators};
use crate::buffer::{Buffer, Pattern};
use crate::dsa::{Copy, OnFault, Outcome, WorkQueue};
use crate::kernel_log::KernelLog;
use crate::parameters::Parameters;
use crate::report::Report;
use crate::scenario::{pages, vfio};

/// What the driver says when all units are set up.
const UP: &str = "Intel(R) Virtualization Technology for Directed I/O";

const LEN_BYTES: usize = 256 << 10;

pub(super) fn run(asked: &Parameters, report: &Report) -> anyhow::Result<()> {
    report.outcome("unit-up", unit_up());
    let accelerators = find_accelerators(1)?;
    let accelerator = accelerators.first().context("no accelerator")?;
    report.pass("idxd", &accelerator.name);
    let folder = accelerator.pci_folder()?;
    note_setting(&folder, report)?;

    vfio::run(&folder, report)?;
    // The driver has it again, by the next number.
    let accelerators = find_accelerators(1)?;
    let accelerator = accelerators.first().context("no accelerator any more")?;
    if asked.get("sva") == Some("yes") {
        report.outcome("sva", shared(accelerator));
    }
    let mut queue = accelerator.enable(QueueKind::Kernel);
    if asked.get("disable") != Some("no") {
        queue = queue.and_then(|()| accelerator.disable(QueueKind::Kernel));
    }
    report.outcome("kernel-queue", queue.map(|()| ""));
    Ok(())
}

fn unit_up() -> anyhow::Result<&'static str> {
    let messages = KernelLog::open()?.new_messages()?;
    ensure!(
        messages.iter().any(|message| message.contains(UP)),
        "the kernel does not say that its IOMMU driver is up"
    );
    Ok("")
}

fn note_setting(folder: &Path, report: &Report) -> anyhow::Result<()> {
    let read = |file: &Path| {
        fs::read_to_string(file)
            .map(|text| text.trim().to_owned())
            .with_context(|| format!("cannot read {}", file.display()))
    };
    report.note("group-type", read(&folder.join("iommu_group/type"))?);
    let processor = read(Path::new("/proc/cpuinfo"))?;
    let five = processor.split_whitespace().any(|flag| flag == "la57");
    report.note("five-levels", if five { "yes" } else { "no" });
    Ok(())
}

/// A process's own addresses, of pages that are there and of some that are not yet.
fn shared(accelerator: &Accelerator) -> anyhow::Result<String> {
    accelerator.enable(QueueKind::User)?;
    let queue = WorkQueue::open(&accelerator.queue_path())?;
    let source = Buffer::filled(LEN_BYTES, Pattern(1))?;
    let destination = Buffer::untouched(LEN_BYTES)?;
    let before = pages::present(&destination, LEN_BYTES)?;
    let finished = queue.copy(Copy {
        from: source.address(0),
        to: destination.address(0),
        len_bytes: u32::try_from(LEN_BYTES)?,
        on_fault: OnFault::Block,
    })?;
    ensure!(finished.outcome == Outcome::Success, "{}", finished.outcome);
    destination.expect_pattern(0, Pattern(1), 0, LEN_BYTES)?;
    let came = pages::present(&destination, LEN_BYTES)? - before;
    drop(queue);
    accelerator.disable(QueueKind::User)?;
    Ok(format!("{LEN_BYTES} bytes, {came} pages came"))
}
