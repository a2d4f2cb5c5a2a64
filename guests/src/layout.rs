//! Where things are.

use std::path::{Path, PathBuf};

/// The folders of this workspace that guests use.
#[derive(Debug, Clone)]
pub struct Layout {
    workspace: PathBuf,
}

impl Layout {
    /// That of the workspace which this crate was built in.
    #[must_use]
    pub fn of_this_workspace() -> Self {
        let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self {
            workspace: crate_folder.parent().unwrap_or(crate_folder).to_owned(),
        }
    }

    /// That of a workspace in `folder`.
    #[cfg(test)]
    pub(crate) fn at(folder: &Path) -> Self {
        Self {
            workspace: folder.to_owned(),
        }
    }

    /// The workspace itself.
    #[must_use]
    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// All that is downloaded or built for guests. May be deleted at any time.
    #[must_use]
    pub fn guest(&self) -> PathBuf {
        self.workspace.join("target/guest")
    }

    /// What the machines of the last run wrote.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.guest().join("logs")
    }

    /// The starter of the QEMU that set-up brought: the path to give to `--qemu`.
    #[must_use]
    pub fn qemu(&self) -> PathBuf {
        self.guest().join("bin/qemu-system-x86_64")
    }

    /// A part of set-up, by its name.
    #[must_use]
    pub(crate) fn part(&self, name: &str) -> PathBuf {
        self.guest().join(name)
    }

    /// Scratch for what is built.
    #[must_use]
    pub(crate) fn build(&self) -> PathBuf {
        self.guest().join("build")
    }
}
