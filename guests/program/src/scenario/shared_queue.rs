//! `shared-queue`: a process copies by a queue in shared mode, where each descriptor carries a PASID.
//!
//! The processor's instruction for that puts the PASID of the process there, and no emulated processor has it. The
//! device takes a descriptor in pieces too, so that root can do by hand what the instruction does: the PASID is
//! read from the registers of another function whose dedicated queue this same process has open.

use anyhow::{Context, bail};

use crate::bring_up::{QueueKind, find_accelerators};
use crate::buffer::{Buffer, Pattern};
use crate::dsa::{Copy, OnFault, WorkQueue};
use crate::kernel_log::KernelLog;
use crate::report::Report;
use crate::scenario::copying::copy;
use crate::scenario::sweep::Registers;

/// A PASID that is nobody's: the kernel gives out the lowest.
const NOBODYS_PASID: u32 = 0xF_FFFE;

pub(super) fn run(report: &Report) -> anyhow::Result<()> {
    let accelerators = find_accelerators(2)?;
    let [dedicated, shared] = accelerators.as_slice() else {
        bail!("there are {} accelerators", accelerators.len());
    };
    dedicated.enable(QueueKind::User)?;
    let own = WorkQueue::open(&dedicated.queue_path())?;
    let pasid = Registers::map(dedicated)?.own_pasid()?;
    report.outcome("copy-dedicated", copy(&own));

    shared.enable(QueueKind::Shared)?;
    let mut queue = WorkQueue::open(&shared.queue_path())?;
    report.pass("open-shared", &shared.name);
    queue.set_pasid(pasid);
    report.outcome(
        "copy-shared",
        copy(&queue).map(|bytes| format!("{bytes} with PASID {pasid}")),
    );
    queue.set_pasid(NOBODYS_PASID);
    report.outcome("nobodys-pasid", refused(&queue));
    queue.set_pasid(pasid);
    report.outcome("copy-again", copy(&queue));
    drop(queue);
    report.outcome("disable", shared.disable(QueueKind::Shared).map(|()| ""));
    Ok(())
}

/// A descriptor with a PASID that is not this guest's does nothing: no byte, no completion record. The error register
/// has it, with the PASID from its bit 40 on, and the driver tells that.
fn refused(queue: &WorkQueue) -> anyhow::Result<String> {
    let mut log = KernelLog::open()?;
    log.new_messages()?;
    let source = Buffer::filled(64, Pattern(1))?;
    let destination = Buffer::filled(64, Pattern(2))?;
    let finished = queue.copy(Copy {
        from: source.address(0),
        to: destination.address(0),
        len_bytes: 64,
        on_fault: OnFault::Complete,
    });
    destination
        .expect_pattern(0, Pattern(2), 0, 64)
        .context("memory has changed")?;
    if let Ok(finished) = finished {
        bail!("the device answers: {}", finished.outcome);
    }
    log.wait_for(&["err[0]".to_owned(), format!("0x0{NOBODYS_PASID:x}")])
}
