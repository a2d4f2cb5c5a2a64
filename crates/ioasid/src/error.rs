use palisade_units::{GuestPasid, HostPasid, TenantId};

use crate::{GroupId, PasidRange};

/// Why the authority refused. Nothing has changed when one of these is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IoasidError {
    /// No free id in the range.
    #[error("no free PASID in {range}: free one, or ask for a wider range")]
    NoSpace {
        /// The range asked for.
        range: PasidRange,
    },
    /// The set has its whole quota out; ids that are free-pending count.
    #[error("{tenant} has all {quota} PASIDs of its quota out: free one, or raise the quota")]
    QuotaExceeded {
        /// Whose set.
        tenant: TenantId,
        /// Its quota.
        quota: u32,
    },
    /// More was asked for a set than other sets leave.
    #[error(
        "cannot reserve {wanted} PASIDs: {available} are left beside the other tenants' quotas"
    )]
    NoCapacity {
        /// The quota asked for.
        wanted: u32,
        /// The largest that can be had.
        available: u32,
    },
    /// Nobody has this PASID.
    #[error("PASID {pasid} is not allocated")]
    NotFound {
        /// The number asked about.
        pasid: HostPasid,
    },
    /// The guest's number is paired with nothing in this set.
    #[error("guest PASID {guest} is not known to {tenant}")]
    GuestNotFound {
        /// Whose set.
        tenant: TenantId,
        /// The guest's number.
        guest: GuestPasid,
    },
    /// The PASID belongs to another tenant.
    #[error("PASID {pasid} does not belong to {tenant}")]
    NotOwner {
        /// The number asked about.
        pasid: HostPasid,
        /// Who asked.
        tenant: TenantId,
    },
    /// The lower end is above the upper one; in a range to reserve, also: it has 0, or no PASID at all.
    #[error(
        "PASID range {range} cannot be used: min must not be above max, and to reserve one it must have numbers of 1 to 0xfffff and no 0"
    )]
    InvalidRange {
        /// The range asked for.
        range: PasidRange,
    },
    /// The quota would fall below what is out.
    #[error("quota {wanted} is below the {outstanding} PASIDs that are out: free some first")]
    InvalidQuota {
        /// The quota asked for.
        wanted: u32,
        /// How many are out.
        outstanding: u32,
    },
    /// The tenant has a set already (or one that was closed and still has ids held).
    #[error("{tenant} has a set already: share that one")]
    Exists {
        /// Whose set.
        tenant: TenantId,
    },
    /// One side of the pair is in another pair already.
    #[error("guest PASID {guest} or host PASID {host} is paired already: detach it first")]
    AlreadyPaired {
        /// The guest's number.
        guest: GuestPasid,
        /// The host's number.
        host: HostPasid,
    },
    /// The PASID was freed and only waits for its last hold to go.
    #[error("PASID {pasid} was freed and is going away: allocate another")]
    FreePending {
        /// The number asked about.
        pasid: HostPasid,
    },
    /// The set was closed.
    #[error("the set of {tenant} was closed: create another")]
    Closed {
        /// Whose set it was.
        tenant: TenantId,
    },
    /// The default allocator chose numbers that are out.
    #[error("{outstanding} PASIDs of the default allocator are out: register when they are freed")]
    DefaultAllocatorBusy {
        /// How many.
        outstanding: u32,
    },
    /// The allocator is registered.
    #[error("the allocator is registered already")]
    AllocatorExists,
    /// The allocator is not registered.
    #[error("the allocator is not registered")]
    AllocatorNotFound,
    /// A limit above the set is reached.
    #[error("{group} has its whole limit of PASIDs out: free some, or raise it")]
    GroupLimit {
        /// Whose limit.
        group: GroupId,
    },
    /// There is no such group.
    #[error("there is no {group}")]
    GroupNotFound {
        /// The group asked about.
        group: GroupId,
    },
    /// Sets or groups are below the group, or it is the root.
    #[error("{group} cannot be removed: it is the root, or something is below it")]
    GroupBusy {
        /// The group asked about.
        group: GroupId,
    },
    /// The tree would be too deep.
    #[error("nothing can be put below {group}: the tree is as deep as it may be")]
    GroupTooDeep {
        /// The parent asked for.
        group: GroupId,
    },
    /// Every number of a group was used.
    #[error("no group can be created any more: all numbers were used, and none is used twice")]
    NoGroupNumber,
    /// The root has no limit of its own.
    #[error("the root group has no limit of its own: limit a group below it")]
    GroupIsRoot,
    /// A PASID of the range is out or reserved.
    #[error("PASID {pasid} of the range is out or reserved: choose a range without it")]
    InUse {
        /// The lowest such.
        pasid: HostPasid,
    },
    /// The range is not one that was reserved.
    #[error("{range} is not a reserved range: name one as it was reserved")]
    NotReserved {
        /// The range asked for.
        range: PasidRange,
    },
}

const ENOENT: i32 = 2;
const EAGAIN: i32 = 11;
const EACCES: i32 = 13;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;

impl IoasidError {
    /// The errno that a caller over an ABI gets, a positive number.
    #[must_use]
    pub const fn errno(&self) -> i32 {
        match self {
            Self::NoSpace { .. }
            | Self::QuotaExceeded { .. }
            | Self::NoCapacity { .. }
            | Self::GroupLimit { .. }
            | Self::NoGroupNumber => ENOSPC,
            Self::NotFound { .. }
            | Self::GuestNotFound { .. }
            | Self::AllocatorNotFound
            | Self::GroupNotFound { .. } => ENOENT,
            Self::DefaultAllocatorBusy { .. } => EAGAIN,
            Self::NotOwner { .. } => EACCES,
            Self::InvalidRange { .. }
            | Self::InvalidQuota { .. }
            | Self::AlreadyPaired { .. }
            | Self::Closed { .. }
            | Self::GroupTooDeep { .. }
            | Self::GroupIsRoot
            | Self::NotReserved { .. } => EINVAL,
            Self::Exists { .. } | Self::AllocatorExists => EEXIST,
            Self::FreePending { .. } | Self::GroupBusy { .. } | Self::InUse { .. } => EBUSY,
        }
    }
}
