use std::process::{Command, ExitCode};

use anyhow::Context;

/// Runs the interleavings of `palisade-ioasid` in a build of its own: the types that threads share are
/// others there, so nothing of it is of use to another build.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    flags.push_str(" --cfg loom");
    let status = Command::new(cargo)
        .args(["test", "--release", "--package", "palisade-ioasid"])
        .args(["--test", "interleavings", "--target-dir", "target/loom"])
        .env("RUSTFLAGS", flags)
        .status()
        .context("cargo does not start")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
