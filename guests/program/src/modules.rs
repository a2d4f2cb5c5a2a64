//! Loading the kernel modules that came with the image.

use std::fs;
use std::process::Command;

use anyhow::{Context, ensure};

const FOLDER: &str = "/lib/modules";

/// Modules that belong together, listed in the image in the order in which they load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// Those that give a function to a program.
    Vfio,
}

impl Set {
    fn list(self) -> &'static str {
        match self {
            Self::Vfio => "vfio",
        }
    }

    /// What one of its modules is told.
    fn parameters(self, file: &str) -> &'static [&'static str] {
        match (self, file) {
            // The kernel's list of functions that programs cannot be trusted with has this one.
            (Self::Vfio, "vfio_pci.ko") => &["disable_denylist=1"],
            _ => &[],
        }
    }
}

/// Loads all of a set.
///
/// # Errors
/// The kernel refuses one; its log says why.
pub fn load(set: Set) -> anyhow::Result<()> {
    let list = format!("{FOLDER}/{}", set.list());
    let modules = fs::read_to_string(&list).with_context(|| format!("cannot read {list}"))?;
    for file in modules.lines() {
        let status = Command::new("/bin/busybox")
            .args(["insmod", &format!("{FOLDER}/{file}")])
            .args(set.parameters(file))
            .status()
            .context("cannot start busybox")?;
        ensure!(status.success(), "{file} cannot be loaded: {status}");
    }
    Ok(())
}
