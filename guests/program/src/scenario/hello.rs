//! `hello`: the image boots, the program runs, the report reaches the host. No accelerator is needed.

use std::fs;

use anyhow::{Context, ensure};

use crate::buffer::{Buffer, Pattern};
use crate::report::Report;
use crate::scenario::pages;

const LEN_BYTES: usize = 1 << 20;

pub(super) fn run(report: &Report) -> anyhow::Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")
        .context("cannot read the kernel's release")?;
    report.note("release", release.trim());
    let uptime = fs::read_to_string("/proc/uptime").context("cannot read the uptime")?;
    report.note("uptime", uptime.split(' ').next().unwrap_or_default());
    report.outcome("memory", memory());
    report.pass("hello", "");
    Ok(())
}

/// The other scenarios need buffers that are known to be untouched, and see when pages come.
fn memory() -> anyhow::Result<String> {
    let buffer = Buffer::untouched(LEN_BYTES)?;
    let before = pages::present(&buffer, LEN_BYTES)?;
    ensure!(before == 0, "{before} pages of a fresh buffer are there");
    buffer.fill(Pattern(1));
    let after = pages::present(&buffer, LEN_BYTES)?;
    ensure!(
        after == LEN_BYTES / pages::PAGE_BYTES,
        "only {after} pages of a full buffer are there"
    );
    buffer.expect_pattern(0, Pattern(1), 0, LEN_BYTES)?;
    Ok(format!("{after} pages"))
}
