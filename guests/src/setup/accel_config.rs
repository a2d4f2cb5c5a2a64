//! The distribution's `accel-config`, with the libraries that it runs by.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::Downloads;
use super::part::{self, Part, Stamp};
use crate::Layout;
use crate::apt::{Closure, unpack};
use crate::command;

pub(super) const PART: Part = Part {
    name: "accel-config",
    recipe: 1,
};

const PROGRAM: &str = "accel-config";

/// Where the package has its program.
const PACKAGED: &str = "usr/bin/accel-config";

/// Where packages have their libraries, the dynamic loader among them.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

const LOADER: &str = "ld-linux-x86-64.so.2";

/// A tool of the distribution for images that want it.
#[derive(Debug, Clone)]
pub struct AccelConfig {
    /// Its package's version.
    pub version: String,
    /// The program, linked dynamically.
    pub program: PathBuf,
    /// What loads it.
    pub loader: PathBuf,
    /// All libraries that it needs, each by the name that it is asked for.
    pub libraries: Vec<PathBuf>,
}

pub(super) fn prepare(layout: &Layout, downloads: &Downloads) -> anyhow::Result<AccelConfig> {
    let (folder, stamp) = part::prepare(layout, PART, |staging| {
        let packages = downloads.newest()?.download(&[PROGRAM], Closure::Whole)?;
        println!("unpacking {PROGRAM}");
        let unpacked = staging.join("unpacked");
        for package in &packages {
            unpack(package, &unpacked)?;
        }
        keep(&unpacked, staging)?;
        fs::remove_dir_all(&unpacked)?;
        Ok(Stamp::new(packages))
    })?;
    Ok(AccelConfig {
        version: stamp.version_of(PROGRAM).to_owned(),
        program: folder.join(PROGRAM),
        loader: folder.join(LOADER),
        libraries: files(&folder.join("libraries"))?,
    })
}

/// Of what was unpacked, the program and what it needs goes to `folder`: the rest is twenty times that.
fn keep(unpacked: &Path, folder: &Path) -> anyhow::Result<()> {
    let packaged = unpacked.join(LIBRARIES);
    let program = unpacked.join(PACKAGED);
    // The loader itself says what it would load.
    let listing = command::run(
        Command::new(packaged.join(LOADER))
            .arg("--library-path")
            .arg(&packaged)
            .arg("--list")
            .arg(&program),
    )
    .with_context(|| format!("the downloaded {PROGRAM} cannot be loaded here"))?;
    let needed = parse_listing(&listing);
    ensure!(
        !needed.is_empty(),
        "no libraries of {PROGRAM} are listed: {listing}"
    );
    fs::copy(&program, folder.join(PROGRAM))?;
    fs::copy(packaged.join(LOADER), folder.join(LOADER))?;
    let kept = folder.join("libraries");
    fs::create_dir(&kept)?;
    for name in needed {
        // The name is that of a link to the file; the copy is a file of that name.
        fs::copy(packaged.join(&name), kept.join(&name))
            .with_context(|| format!("{PROGRAM} needs {name}, which its packages do not have"))?;
    }
    Ok(())
}

/// From the lines `NAME => PATH (ADDRESS)`. The loader, and what the kernel itself brings, have no path.
fn parse_listing(listing: &str) -> Vec<String> {
    let names = listing.lines().filter_map(|line| {
        let (name, _path) = line.split_once(" => ")?;
        Some(name.trim().to_owned())
    });
    names.filter(|name| !name.ends_with(LOADER)).collect()
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        files.push(entry?.path());
    }
    // So that images of the same files are the same.
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_the_loaders_list() {
        let listing = "\
\tlinux-vdso.so.1 (0x00007ffd2b5f2000)
\tlibaccel-config.so.1 => /x/usr/lib/x86_64-linux-gnu/libaccel-config.so.1 (0x00007f3c3a8c0000)
\tlibc.so.6 => /x/usr/lib/x86_64-linux-gnu/libc.so.6 (0x00007f3c3a6df000)
\t/lib64/ld-linux-x86-64.so.2 => /x/ld-linux-x86-64.so.2 (0x00007f3c3a8fb000)
";
        assert_eq!(
            parse_listing(listing),
            ["libaccel-config.so.1", "libc.so.6"]
        );
    }
}
