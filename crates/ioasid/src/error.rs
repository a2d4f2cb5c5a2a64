use palisade_units::{GuestPasid, HostPasid, TenantId};

use crate::PasidRange;

/// Why the authority refused. Nothing has changed when one of these is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IoasidError {
    /// No free id in the range.
    #[error("no free PASID in {:#x}..={:#x}: free one, or ask for a wider range", range.min, range.max)]
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
    /// The lower end is above the upper one.
    #[error("PASID range {:#x}..={:#x} is empty: min must not be above max", range.min, range.max)]
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
            Self::NoSpace { .. } | Self::QuotaExceeded { .. } | Self::NoCapacity { .. } => ENOSPC,
            Self::NotFound { .. } | Self::GuestNotFound { .. } | Self::AllocatorNotFound => ENOENT,
            Self::DefaultAllocatorBusy { .. } => EAGAIN,
            Self::NotOwner { .. } => EACCES,
            Self::InvalidRange { .. }
            | Self::InvalidQuota { .. }
            | Self::AlreadyPaired { .. }
            | Self::Closed { .. } => EINVAL,
            Self::Exists { .. } | Self::AllocatorExists => EEXIST,
            Self::FreePending { .. } => EBUSY,
        }
    }
}
