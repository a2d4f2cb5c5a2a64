use palisade_dsa::NoSuchQueue;
use palisade_pci::ConfigError;
use palisade_units::TenantId;
use palisade_vfio::VfioError;
use uuid::Uuid;

/// Why a mediated device was not made, assigned or removed. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MdevError {
    /// There is a slice of this name.
    #[error("a slice {uuid} exists already: choose another UUID")]
    Exists {
        /// The name.
        uuid: Uuid,
    },
    /// There is no slice of this name.
    #[error("there is no slice {uuid}: create it first")]
    NotFound {
        /// The name.
        uuid: Uuid,
    },
    /// The slice is with a tenant.
    #[error("slice {uuid} is with {holder}: it must be given back first")]
    InUse {
        /// The slice.
        uuid: Uuid,
        /// Who has it.
        holder: TenantId,
    },
    /// All queues of the parent are taken.
    #[error("{parent} has no free queue of its {queues}: remove a slice, or share a queue")]
    NoFreeQueue {
        /// The parent.
        parent: String,
        /// How many queues it has.
        queues: u8,
    },
    /// One tenant has the whole parent.
    #[error("{parent} is held by {holder} exclusively: it must be released first")]
    HeldExclusively {
        /// The parent.
        parent: String,
        /// Who has it.
        holder: TenantId,
    },
    /// The parent is cut into slices.
    #[error("{parent} is shared by {slices} slices, {uuid} among them: remove them first")]
    Sliced {
        /// The parent.
        parent: String,
        /// How many slices there are.
        slices: usize,
        /// One of them.
        uuid: Uuid,
    },
    /// The tenant's container refused.
    #[error(transparent)]
    Vfio(#[from] VfioError),
    /// The accelerator has no such queue.
    #[error(transparent)]
    Queue(#[from] NoSuchQueue),
    /// Configuration space cannot be had in this shape.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

const ENOENT: i32 = 2;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;

impl MdevError {
    /// The errno that a caller over an ABI gets, a positive number.
    #[must_use]
    pub const fn errno(&self) -> i32 {
        match self {
            Self::Exists { .. } => EEXIST,
            Self::NotFound { .. } => ENOENT,
            Self::InUse { .. } | Self::HeldExclusively { .. } | Self::Sliced { .. } => EBUSY,
            Self::NoFreeQueue { .. } => ENOSPC,
            Self::Vfio(error) => error.errno(),
            Self::Queue(_) | Self::Config(_) => EINVAL,
        }
    }
}
