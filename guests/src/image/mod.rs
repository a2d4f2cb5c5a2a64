//! Initramfs images: busybox, the guest program, the modules that the scenario needs, and a script.

mod cpio;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Context;

pub use cpio::{Archive, Mode};

use crate::setup::{AccelConfig, Kernel, KernelModule, Load};

/// What a guest is made of, beside its kernel.
#[derive(Debug, Clone)]
pub struct Contents<'a> {
    /// The static shell and its tools.
    pub busybox: &'a Path,
    /// The static guest program.
    pub program: &'a Path,
    /// The kernel, for its modules.
    pub kernel: &'a Kernel,
    /// What only some scenarios need.
    pub extra: Extra<'a>,
}

/// What an image has for the scenarios that ask for it. It makes the image half as large again.
#[derive(Debug, Clone, Copy)]
pub enum Extra<'a> {
    /// Nothing.
    None,
    /// The distribution's tool for accelerators, and the libraries that it runs by.
    AccelConfig(&'a AccelConfig),
}

/// Where the loader stands in each dynamically linked program of this architecture.
const LOADER_FOLDER: &str = "lib64";

/// Where the distribution's loader looks for libraries.
const LIBRARIES_FOLDER: &str = "lib/x86_64-linux-gnu";

/// Everything that is not a test is done here; the program does the rest and says how it came out. Whatever
/// happens, the machine is switched off.
const INIT: &str = "#!/bin/busybox sh
export PATH=/bin
busybox mount -t devtmpfs devtmpfs /dev
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t tmpfs tmpfs /tmp
while read module; do
    busybox insmod /lib/modules/$module || echo \"cannot load $module\"
done < /lib/modules/order
palisade-guest-program init
busybox poweroff -f
";

/// Writes the image to `path`.
///
/// # Errors
/// A part cannot be read, or the image not written.
pub fn write(path: &Path, contents: &Contents<'_>) -> anyhow::Result<()> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "proc", "sys", "tmp", "lib", "lib/modules"] {
        archive.folder(folder);
    }
    // So that the kernel has a console to give to the script.
    archive.character_device("dev/console", 5, 1);
    archive.file("init", Mode::Program, INIT.as_bytes());
    archive.file("bin/busybox", Mode::Program, &read(contents.busybox)?);
    archive.file(
        "bin/palisade-guest-program",
        Mode::Program,
        &read(contents.program)?,
    );
    let (mut order, mut vfio) = (String::new(), String::new());
    let mut packed = BTreeSet::new();
    for KernelModule { name, file, load } in &contents.kernel.modules {
        // Two sets may need the same one.
        if packed.insert(name) {
            archive.file(&format!("lib/modules/{name}.ko"), Mode::Data, &read(file)?);
        }
        match load {
            Load::AtBoot => order.push_str(&format!("{name}.ko\n")),
            Load::WithVfio => vfio.push_str(&format!("{name}.ko\n")),
            Load::ByScenario => {}
        }
    }
    archive.file("lib/modules/order", Mode::Data, order.as_bytes());
    archive.file("lib/modules/vfio", Mode::Data, vfio.as_bytes());
    match contents.extra {
        Extra::None => {}
        Extra::AccelConfig(tool) => add_accel_config(&mut archive, tool)?,
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, archive.finish()).with_context(|| format!("cannot write {}", path.display()))
}

fn add_accel_config(archive: &mut Archive, tool: &AccelConfig) -> anyhow::Result<()> {
    archive.file("bin/accel-config", Mode::Program, &read(&tool.program)?);
    archive.folder(LOADER_FOLDER);
    add_library(archive, LOADER_FOLDER, &tool.loader)?;
    archive.folder(LIBRARIES_FOLDER);
    for library in &tool.libraries {
        add_library(archive, LIBRARIES_FOLDER, library)?;
    }
    Ok(())
}

fn add_library(archive: &mut Archive, folder: &str, file: &Path) -> anyhow::Result<()> {
    let name = file
        .file_name()
        .with_context(|| format!("{} is no library", file.display()))?;
    let path = format!("{folder}/{}", name.display());
    archive.file(&path, Mode::Program, &read(file)?);
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
