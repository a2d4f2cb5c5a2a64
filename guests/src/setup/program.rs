//! The guest program, built static: the image has no libraries.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::Layout;
use crate::command;

const TARGET: &str = "x86_64-unknown-linux-gnu";

pub(super) fn build(layout: &Layout) -> anyhow::Result<PathBuf> {
    let folder = layout.build().join("program");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    println!("building the guest program");
    command::run(
        Command::new(cargo)
            .current_dir(layout.workspace())
            .args(["build", "--quiet", "--release"])
            .args(["--package", "palisade-guest-program", "--target", TARGET])
            .arg("--target-dir")
            .arg(&folder)
            // It would win over the next line.
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env("RUSTFLAGS", "-C target-feature=+crt-static"),
    )
    .context("the guest program cannot be built")?;
    let program = folder.join(TARGET).join("release/palisade-guest-program");
    ensure!(
        program.exists(),
        "the guest program was built, but is not at {}",
        program.display()
    );
    Ok(program)
}
