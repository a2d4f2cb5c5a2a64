use palisade_ioasid::IoasidError;
use palisade_iommu::IommuError;
use palisade_units::{Bdf, GuestPasid, HostPasid};

use crate::{Abi, SpaceKey};

/// Why a request was refused. Nothing has changed when one of these is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VfioError {
    /// The tenant has no function there.
    #[error("no function is attached at guest {bdf}: attach one first")]
    NotAttached {
        /// The place in the guest.
        bdf: Bdf,
    },
    /// The tenant has a function there already.
    #[error("a function is attached at guest {bdf} already: choose another place")]
    AlreadyAttached {
        /// The place in the guest.
        bdf: Bdf,
    },
    /// Somebody decides what the function there reaches, or would.
    #[error(
        "the function at guest {bdf} is in use: end its bind, or unbind its PASIDs, where that was done"
    )]
    InUse {
        /// The place in the guest.
        bdf: Bdf,
    },
    /// A number that no PASID can have under this name.
    #[error(
        "guest PASID {guest} cannot be bound: requests without a PASID have a key of their own"
    )]
    InvalidPasid {
        /// The number.
        guest: GuestPasid,
    },
    /// The tenant's guest never allocated this PASID, though the host may use it for the tenant.
    #[error("PASID {pasid} was not allocated by this guest")]
    NotAllocated {
        /// The number.
        pasid: HostPasid,
    },
    /// Nothing is bound there.
    #[error("nothing is bound to {key} of the function at guest {bdf}")]
    NotBound {
        /// The place in the guest.
        bdf: Bdf,
        /// Which requests.
        key: SpaceKey,
    },
    /// Nothing is bound to it on any function.
    #[error("PASID {pasid} is bound nowhere")]
    NotBoundAnywhere {
        /// The number.
        pasid: HostPasid,
    },
    /// It is bound, and the guest's name for it is another one.
    #[error("PASID {pasid} is bound under another guest PASID: unbind it first")]
    BoundUnderAnotherName {
        /// The number.
        pasid: HostPasid,
    },
    /// The client chose neither nested translation nor PASIDs of the whole system.
    #[error("PASIDs need nested translation: choose it for the container first")]
    NestingOff,
    /// No function is attached, so there is nothing that translates.
    #[error("the container has no function yet: attach one before asking for PASIDs")]
    NoDomain {
        /// Whose error it is.
        abi: Abi,
    },
    /// There is no function to bind on.
    #[error("the container has no function yet: attach one before binding on all of them")]
    NoFunction,
    /// The authority refused.
    #[error(transparent)]
    Ioasid(#[from] IoasidError),
    /// The platform refused.
    #[error(transparent)]
    Iommu(#[from] IommuError),
}

const ENOENT: i32 = 2;
const EFAULT: i32 = 14;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;

impl VfioError {
    /// The errno that a caller over an ABI gets, a positive number.
    #[must_use]
    pub const fn errno(&self) -> i32 {
        match self {
            Self::NotAttached { .. } | Self::NoFunction => ENODEV,
            Self::AlreadyAttached { .. } => EEXIST,
            Self::InUse { .. } => EBUSY,
            Self::InvalidPasid { .. } | Self::BoundUnderAnotherName { .. } => EINVAL,
            Self::NotAllocated { .. } | Self::NotBound { .. } | Self::NotBoundAnywhere { .. } => {
                ENOENT
            }
            Self::NestingOff | Self::NoDomain { abi: Abi::V7 } => EOPNOTSUPP,
            Self::NoDomain { abi: Abi::V1 } => EFAULT,
            Self::Ioasid(error) => error.errno(),
            Self::Iommu(error) => error.errno(),
        }
    }
}
