//! What an operator set at run time, kept over restarts of the daemon in a folder of its own.
//!
//! Only what differs from the configuration by the operator's word is kept, so that the configuration stays in
//! force for all else. Allocations are not: their owners died with their connections. A file that is not exactly
//! what this daemon wrote is refused and left alone.

mod codec;
mod store;
#[cfg(test)]
mod tests;
mod version_1;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use codec::Unreadable;
pub(crate) use store::Store;

use crate::config::FunctionKind;

/// How many changes of one kind are kept at most.
pub(crate) const KEPT_MAX: usize = 4096;
/// How many functions made at run time there are at most: each has a socket and a thread.
pub(crate) const MDEVS_MAX: usize = 256;

/// What was set at run time, by name. Its names and numbers make sense; whether they fit the configuration is
/// not known here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunTime {
    /// Quotas of tenants.
    pub(crate) quotas: BTreeMap<String, u32>,
    /// Groups that the configuration has not, with their parents.
    pub(crate) groups: BTreeMap<String, Option<String>>,
    /// Limits of groups, those of the configuration among them; none is none.
    pub(crate) limits: BTreeMap<String, Option<u32>>,
    /// Ranges for the host's own users, by their ends.
    pub(crate) reserved: BTreeSet<(u32, u32)>,
    /// Functions that the configuration has not, by UUID.
    pub(crate) mdevs: BTreeMap<String, KeptMdev>,
}

/// A function that was made at run time, with nothing left to be chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeptMdev {
    /// The parent's name.
    pub(crate) parent: String,
    /// What it is made of.
    #[serde(rename = "type")]
    pub(crate) kind: FunctionKind,
    /// The tenant's name.
    pub(crate) tenant: String,
    /// The path of its socket, an absolute one.
    pub(crate) socket: String,
    /// Where the guest finds it.
    pub(crate) guest_bdf: String,
}

/// Why the state cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The folder.
    #[error("{}: the folder of `state` cannot be used: {what}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What to do.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Others could change the file.
    #[error(
        "{}: others than its owner may write into the folder of `state`: chmod go-w it, or name another",
        folder.display()
    )]
    Open {
        /// The folder.
        folder: PathBuf,
    },
    /// Another user could change the file.
    #[error(
        "{}: the folder of `state` is another user's: chown it to the one that the daemon runs as, or name another",
        folder.display()
    )]
    Foreign {
        /// The folder.
        folder: PathBuf,
    },
    /// Another daemon keeps its state there.
    #[error("{}: another daemon keeps its state there: end it, or name another folder", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The file cannot be read.
    #[error("{}: the state cannot be read: make it readable, or move it away to start without", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what a daemon wrote.
    #[error(
        "{}: {why}; it was left alone: put a copy that is whole in its place, or move it away to start with the \
         configuration alone", file.display()
    )]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        why: Unreadable,
    },
    /// The file cannot be written.
    #[error("{}: the state cannot be written", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl StateError {
    fn read(file: &Path, source: impl Into<io::Error>) -> Self {
        Self::Read {
            file: file.to_owned(),
            source: source.into(),
        }
    }

    fn write(file: &Path, source: impl Into<io::Error>) -> Self {
        Self::Write {
            file: file.to_owned(),
            source: source.into(),
        }
    }

    /// The system's reason, where there is one.
    pub(crate) fn errno(&self) -> Option<rustix::io::Errno> {
        match self {
            Self::Folder { source, .. }
            | Self::Read { source, .. }
            | Self::Write { source, .. } => rustix::io::Errno::from_io_error(source),
            Self::Open { .. }
            | Self::Foreign { .. }
            | Self::InUse { .. }
            | Self::Unreadable { .. } => None,
        }
    }
}
