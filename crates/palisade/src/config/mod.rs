//! The configuration of a host: parents, groups, tenants, functions.
//!
//! Read from TOML. What is unknown or wrong is refused with the file, the line and what is allowed.

mod container;
#[cfg(test)]
mod container_tests;
mod error;
mod limits;
#[cfg(test)]
mod limits_tests;
mod place;
mod raw;
#[cfg(test)]
mod tests;
mod validate;

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use palisade_ioasid::{Limit, PasidRange};
use palisade_units::Bdf;
use palisade_vtd::CachingMode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use error::ConfigError;
pub(crate) use limits::is_name;
pub(crate) use place::{first_free, is_on_root_bus};
pub(crate) use validate::SOCKET_PATH_MAX_BYTES;

/// A host that is consistent in itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// Where the operator's socket stands; none without a path.
    pub control: Option<PathBuf>,
    /// The folder in which what is set at run time outlives the daemon; it does not without one.
    pub state: Option<PathBuf>,
    /// PASIDs for the host's own users, which no tenant gets: none has a number in common with another.
    pub reserved: Vec<PasidRange>,
    /// Limits over tenants together, each behind the one it is below.
    pub groups: Vec<GroupConfig>,
    /// The accelerators.
    pub parents: Vec<ParentConfig>,
    /// The tenants.
    pub tenants: Vec<TenantConfig>,
}

/// How the work of a parent is given to tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParentSharing {
    /// Slices of several tenants, mediated.
    Mediated,
    /// The whole function for one tenant.
    Exclusive,
}

/// One software accelerator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentConfig {
    /// Its name in the configuration and in messages.
    pub name: String,
    /// Its function on the host's bus.
    pub bdf: Bdf,
    /// Whether tenants share it.
    pub sharing: ParentSharing,
    /// Work queues, 1 to 8.
    pub queues: u8,
    /// Engines, 1 to 4; each is one thread of the host.
    pub engines: u8,
}

/// A limit over tenants and other groups together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// Its name.
    pub name: String,
    /// How many PASIDs those below it may have out together.
    pub max: Limit,
    /// The group that it is below; the host itself without one.
    pub parent: Option<String>,
}

/// One tenant: one VMM process at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantConfig {
    /// Its name.
    pub name: String,
    /// How many PASIDs it may hold.
    pub quota: u32,
    /// The group that it is in; none but the host itself without one.
    pub group: Option<String>,
    /// Whose the IOMMU is that its guest sees.
    pub iommu: GuestIommu,
    /// The functions that its guest sees.
    pub functions: Vec<FunctionConfig>,
}

/// Which layout of the virtual command registers the unit has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VirtualCommands {
    /// Not there: the guest's PASIDs are its own numbers.
    Off,
    /// As in the specification from 3.3 on.
    Current,
    /// As Linux 5.8 to 5.14 expects it.
    Older,
}

/// Whose the IOMMU is that a tenant's guest sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestIommu {
    /// The host serves a VT-d unit.
    Unit(UnitConfig),
    /// The tenant's VMM has one of its own, and makes its requests over a socket.
    Container(ContainerConfig),
}

impl GuestIommu {
    /// The unit, if the host serves it.
    #[must_use]
    pub fn unit(&self) -> Option<&UnitConfig> {
        match self {
            Self::Unit(unit) => Some(unit),
            Self::Container(_) => None,
        }
    }

    /// The socket of either.
    #[must_use]
    pub fn socket(&self) -> &Path {
        match self {
            Self::Unit(unit) => &unit.socket,
            Self::Container(container) => &container.socket,
        }
    }

    /// Whether a place in the guest is the unit's.
    pub(crate) fn stands_at(&self, bdf: Bdf) -> bool {
        self.unit().is_some_and(|unit| unit.guest_bdf == bdf)
    }
}

/// The socket over which a VMM makes its requests (`docs/container.md`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerConfig {
    /// Where it stands.
    pub socket: PathBuf,
    /// The users who are served; the daemon's own where none are named.
    pub uids: Option<Vec<u32>>,
    /// Who may open it, and whose it is.
    pub permissions: SocketPermissions,
}

/// The permissions of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketPermissions {
    /// The bits, of 0o666.
    pub mode: u32,
    /// The user whose it is; the daemon's own without one.
    pub owner: Option<u32>,
    /// The group whose it is; the daemon's own without one.
    pub group: Option<u32>,
}

impl SocketPermissions {
    /// For its owner alone, who is the daemon's user.
    pub const PRIVATE: Self = Self {
        mode: 0o600,
        owner: None,
        group: None,
    };
}

/// The unit of one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitConfig {
    /// The vfio-user socket.
    pub socket: PathBuf,
    /// Where the guest finds it.
    pub guest_bdf: Bdf,
    /// The virtual command registers.
    pub virtual_commands: VirtualCommands,
    /// Whether the guest tells of new entries.
    pub caching_mode: CachingMode,
}

/// What a function is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FunctionKind {
    /// One queue of the parent, for this function alone.
    DedicatedQueue,
    /// A share of a queue that several functions submit to.
    SharedQueue,
    /// The parent itself.
    Exclusive,
}

impl FunctionKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::DedicatedQueue, Self::SharedQueue, Self::Exclusive];

    /// The name in configurations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DedicatedQueue => "dedicated-queue",
            Self::SharedQueue => "shared-queue",
            Self::Exclusive => "exclusive",
        }
    }
}

impl fmt::Display for FunctionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text names no type of function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"dedicated-queue\", \"shared-queue\" or \"exclusive\" is allowed")]
pub struct UnknownFunctionKind;

impl FromStr for FunctionKind {
    type Err = UnknownFunctionKind;

    fn from_str(text: &str) -> Result<Self, UnknownFunctionKind> {
        let named = Self::ALL.into_iter().find(|kind| kind.name() == text);
        named.ok_or(UnknownFunctionKind)
    }
}

/// One function of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionConfig {
    /// The parent's name.
    pub parent: String,
    /// What it is made of.
    pub kind: FunctionKind,
    /// The name of the mediated device.
    pub uuid: Uuid,
    /// The vfio-user socket.
    pub socket: PathBuf,
    /// Where the guest finds it.
    pub guest_bdf: Bdf,
}

impl HostConfig {
    /// Reads and checks a file. Relative socket paths are taken from the file's folder.
    ///
    /// # Errors
    /// [`ConfigError`], with the line wherever there is one.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|source| ConfigError::Read {
            file: file.to_owned(),
            source,
        })?;
        Self::parse(file, &text)
    }

    /// Checks the text of a file; `file` is used in messages and for relative paths.
    ///
    /// # Errors
    /// [`ConfigError`], with the line wherever there is one.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let raw: raw::Host = toml::from_str(text).map_err(|e| {
            let at = e.span().map_or(0, |span| span.start);
            ConfigError::at(file, text, at, e.message())
        })?;
        validate::host(file, text, raw)
    }

    /// The tenant with this name.
    #[must_use]
    pub fn tenant(&self, name: &str) -> Option<&TenantConfig> {
        self.tenants.iter().find(|t| t.name == name)
    }
}
