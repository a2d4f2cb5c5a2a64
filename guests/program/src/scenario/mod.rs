//! The scenarios' guest sides. Each says what it saw through the [`Report`]; none decides what it means.

mod accel_config;
mod copying;
mod edu;
mod hello;
mod matrix;
mod pages;
mod pair;
mod reboot;
mod recovery;
mod shared_queue;
mod sva;
mod sweep;
mod vcmd;
mod vfio;
mod worker;

pub use worker::{Worker, run as run_worker};

use anyhow::bail;

use crate::parameters::Parameters;
use crate::report::Report;

/// Runs the scenario that the kernel's command line names, and says that it is over.
///
/// # Errors
/// The report port cannot be opened; everything else is reported through it.
pub fn run_this_boot() -> anyhow::Result<()> {
    let report = Report::open()?;
    if let Err(error) = Parameters::of_this_boot().and_then(|asked| run(&asked, &report)) {
        report.fail("scenario", format!("{error:#}"));
    }
    report.done();
    Ok(())
}

fn run(asked: &Parameters, report: &Report) -> anyhow::Result<()> {
    match asked.get("scenario") {
        Some("hello") => hello::run(report),
        Some("edu") => edu::run(report),
        Some("sva") => sva::run(report),
        Some("accel-config") => accel_config::run(report),
        Some("pair") => pair::run(asked, report),
        Some("matrix") => matrix::run(asked, report),
        Some("reboot") => reboot::run(report),
        Some("recovery") => recovery::run(report),
        Some("shared-queue") => shared_queue::run(report),
        Some("vcmd") => vcmd::run(report),
        Some(other) => bail!("there is no scenario {other:?}"),
        None => bail!("palisade.scenario is not on the kernel's command line"),
    }
}
