//! One copy that needs everything: pages that are there, and pages that are not yet.

use anyhow::ensure;

use crate::buffer::{Buffer, Pattern};
use crate::dsa::{Copy, OnFault, Outcome, WorkQueue};

const LEN_BYTES: usize = 128 << 10;

/// Does it on `queue`, and checks every byte.
pub(super) fn copy(queue: &WorkQueue) -> anyhow::Result<String> {
    let source = Buffer::filled(LEN_BYTES, Pattern(1))?;
    let destination = Buffer::untouched(LEN_BYTES)?;
    let finished = queue.copy(Copy {
        from: source.address(0),
        to: destination.address(0),
        len_bytes: u32::try_from(LEN_BYTES)?,
        on_fault: OnFault::Block,
    })?;
    ensure!(finished.outcome == Outcome::Success, "{}", finished.outcome);
    destination.expect_pattern(0, Pattern(1), 0, LEN_BYTES)?;
    Ok(format!("{LEN_BYTES} bytes"))
}
