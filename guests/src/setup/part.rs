//! Parts of set-up: a folder that is whole or absent, and knows what it was made from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::Layout;
use crate::apt::Package;

/// A part's name and the version of the code that makes it. Raise the version with every change of what the
/// part holds: parts of other versions are made anew.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) recipe: u32,
}

/// What a part was made from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Stamp {
    #[serde(default)]
    recipe: u32,
    /// The packages in it.
    pub(super) packages: Vec<Package>,
    /// A kernel's release.
    pub(super) release: String,
    /// A kernel's modules that are loaded at boot, each after those that it needs.
    pub(super) modules: Vec<String>,
    /// And those that give a function to a program.
    #[serde(default)]
    pub(super) vfio: Vec<String>,
}

impl Stamp {
    pub(super) fn new(packages: Vec<Package>) -> Self {
        Self {
            recipe: 0,
            packages,
            release: String::new(),
            modules: Vec::new(),
            vfio: Vec::new(),
        }
    }

    /// The version of one of the packages.
    pub(super) fn version_of(&self, name: &str) -> &str {
        self.packages
            .iter()
            .find(|package| package.name == name)
            .map_or("unknown", |package| &package.version)
    }
}

const STAMP: &str = "stamp.json";

/// The part's folder and stamp; `make` fills the folder that it is given if the part is not there yet.
pub(super) fn prepare(
    layout: &Layout,
    part: Part,
    make: impl FnOnce(&Path) -> anyhow::Result<Stamp>,
) -> anyhow::Result<(PathBuf, Stamp)> {
    let folder = layout.part(part.name);
    if let Some(stamp) = read_stamp(&folder).filter(|stamp| stamp.recipe == part.recipe) {
        return Ok((folder, stamp));
    }
    let staging = layout.part(&format!("{}.new", part.name));
    remove(&staging)?;
    fs::create_dir_all(&staging)?;
    let mut stamp = make(&staging).with_context(|| format!("set-up of {} failed", part.name))?;
    stamp.recipe = part.recipe;
    fs::write(staging.join(STAMP), serde_json::to_vec_pretty(&stamp)?)?;
    remove(&folder)?;
    fs::rename(&staging, &folder)
        .with_context(|| format!("cannot put {} into its place", part.name))?;
    Ok((folder, stamp))
}

/// Makes the part absent.
pub(super) fn forget(layout: &Layout, part: Part) -> anyhow::Result<()> {
    remove(&layout.part(part.name))
}

fn read_stamp(folder: &Path) -> Option<Stamp> {
    let bytes = fs::read(folder.join(STAMP)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}
