//! The module that empties the PASID allocator of Linux 6.1.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use super::linux::Headers;
use super::{KernelModule, Load};
use crate::Layout;
use crate::command;

const NAME: &str = "palisade_vcmd";

pub(super) fn build(layout: &Layout, headers: &Headers) -> anyhow::Result<KernelModule> {
    let sources = layout.workspace().join("guests/vcmd-module");
    let folder = layout.build().join("vcmd-module");
    fs::create_dir_all(&folder)?;
    for file in ["Kbuild", "palisade_vcmd.c"] {
        copy_if_changed(&sources.join(file), &folder.join(file))?;
    }
    println!("building the allocator module");
    command::run(
        Command::new("make")
            .arg("-C")
            .arg(&headers.folder)
            .arg(format!("M={}", folder.display()))
            .arg(format!("CC={}", compiler()))
            .arg("modules")
            // Of an outer make, which is not part of this build.
            .env_remove("MAKEFLAGS")
            .env_remove("MAKELEVEL")
            .env("LD_LIBRARY_PATH", &headers.libraries),
    )
    .context("the allocator module for Linux 6.1 cannot be built")?;
    Ok(KernelModule {
        name: NAME.to_owned(),
        file: folder.join(format!("{NAME}.ko")),
        load: Load::ByScenario,
    })
}

/// The compiler that the kernel was built with, or the machine's own.
fn compiler() -> &'static str {
    const KERNELS: &str = "gcc-12";
    match command::run(Command::new(KERNELS).arg("--version")) {
        Ok(_) => KERNELS,
        Err(_) => "gcc",
    }
}

/// Keeps the file's time where nothing changed, so that nothing is built again.
fn copy_if_changed(from: &Path, to: &Path) -> anyhow::Result<()> {
    let contents = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == contents) {
        return Ok(());
    }
    fs::write(to, contents).with_context(|| format!("cannot write {}", to.display()))
}
