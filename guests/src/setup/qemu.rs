//! QEMU with its firmware, and the static tools of the images.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::Downloads;
use super::part::{self, Part, Stamp};
use crate::Layout;
use crate::apt::{Closure, unpack};
use crate::command;

pub(super) const PART: Part = Part {
    name: "qemu",
    recipe: 1,
};

/// The first QEMU with a vfio-user client.
const OLDEST: (u32, u32) = (10, 1);

/// Runs QEMU by the C library and the files that came with it. It replaces itself with QEMU, so that the
/// process started is the one that is seen by the other end of a socket.
const STARTER: &str = "#!/bin/sh
root=$(dirname \"$(readlink -f \"$0\")\")/../qemu
export QEMU_MODULE_DIR=\"$root/usr/lib/x86_64-linux-gnu/qemu\"
exec \"$root/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2\" \\
    --library-path \"$root/usr/lib/x86_64-linux-gnu\" \\
    \"$root/usr/bin/qemu-system-x86_64\" \\
    -L \"$root/usr/share/seabios\" -L \"$root/usr/share/qemu\" \"$@\"
";

/// QEMU and the tools beside it.
#[derive(Debug)]
pub(super) struct Qemu {
    pub(super) starter: PathBuf,
    pub(super) version: String,
    pub(super) busybox: PathBuf,
    root: PathBuf,
}

pub(super) fn prepare(layout: &Layout, downloads: &Downloads) -> anyhow::Result<Qemu> {
    let (root, stamp) = part::prepare(layout, PART, |staging| {
        let packages = downloads.newest()?.download(
            &["qemu-system-x86", "seabios", "busybox-static", "xz-utils"],
            Closure::Whole,
        )?;
        println!("unpacking QEMU");
        for package in &packages {
            unpack(package, staging)?;
        }
        Ok(Stamp::new(packages))
    })?;
    let starter = layout.qemu();
    write_program(&starter, STARTER)?;
    let qemu = Qemu {
        version: stamp.version_of("qemu-system-x86").to_owned(),
        busybox: root.join("usr/bin/busybox"),
        starter,
        root,
    };
    qemu.check()?;
    Ok(qemu)
}

impl Qemu {
    /// Decompresses an `.xz` file.
    pub(super) fn decompress_xz(&self, file: &Path) -> anyhow::Result<Vec<u8>> {
        let libraries = self.root.join("usr/lib/x86_64-linux-gnu");
        command::run_for_bytes(
            Command::new(libraries.join("ld-linux-x86-64.so.2"))
                .arg("--library-path")
                .arg(&libraries)
                .arg(self.root.join("usr/bin/xz"))
                .args(["--decompress", "--stdout"])
                .arg(file),
        )
    }

    fn check(&self) -> anyhow::Result<()> {
        let said = command::run(Command::new(&self.starter).arg("--version"))
            .context("the downloaded QEMU does not run here")?;
        let version = parse_version(&said)
            .with_context(|| format!("QEMU's version is not understood: {said}"))?;
        ensure!(
            version >= OLDEST,
            "QEMU is {}.{}, but its vfio-user client came with {}.{}; \
             try again with --renew when the distribution has a newer one",
            version.0,
            version.1,
            OLDEST.0,
            OLDEST.1
        );
        Ok(())
    }
}

/// From `QEMU emulator version MAJOR.MINOR.…`.
fn parse_version(said: &str) -> Option<(u32, u32)> {
    let (_, version) = said.lines().next()?.split_once("version ")?;
    let mut numbers = version.split(['.', ' ']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn write_program(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} a program", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemus_version_is_read() {
        let said = "QEMU emulator version 11.1.3 (Debian 1:11.1.3+ds-1)\nCopyright";
        assert_eq!(parse_version(said), Some((11, 1)));
        assert_eq!(parse_version("QEMU emulator version 10.0"), Some((10, 0)));
        assert_eq!(parse_version("something else"), None);
    }
}
