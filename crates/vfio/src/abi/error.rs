use palisade_ioasid::Errno;
use palisade_memory::MapError;
use palisade_units::Bdf;

use super::{Number, Request};
use crate::VfioError;

/// Why a request that came as bytes was refused. Nothing has changed when one of these is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AbiError {
    /// There is no such request.
    #[error("there is no request {0}")]
    Unknown(Number),
    /// The client chose the other proposal.
    #[error("{} ({}) is of the other version of the requests", .0.name(), .0.number())]
    OtherVersion(Request),
    /// Bytes that the request has are not there.
    #[error("the argument ends before the request does")]
    Missing,
    /// The argument says of itself that it is shorter than the request.
    #[error("argsz is {argsz}: the request has {needed} bytes")]
    Short {
        /// What it says.
        argsz: u32,
        /// What is needed.
        needed: usize,
    },
    /// Flags that are not known, or not together, or missing.
    #[error("flags {0:#x} are not those of one operation")]
    Flags(u64),
    /// A field has a value that it cannot have.
    #[error("{0}")]
    Value(&'static str),
    /// Something that the platform does not have.
    #[error("{0} is not offered here")]
    NotOffered(&'static str),
    /// Another number of descriptors than the request takes.
    #[error("{got} descriptors: the request takes {wanted}")]
    Descriptors {
        /// How many it takes.
        wanted: usize,
        /// How many came.
        got: usize,
    },
    /// There is no function to be had at that place.
    #[error("no function is to be had at guest {0}")]
    NoFunction(Bdf),
    /// The VMM has a ring of faults already.
    #[error("the VMM has a ring of faults already: close the connection that asked for it")]
    HasRing,
    /// The container refused.
    #[error(transparent)]
    Vfio(#[from] VfioError),
    /// The memory could not be mapped or unmapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The host refused.
    #[error("the host refused: errno {}", .0.get())]
    Host(Errno),
}

const EFAULT: i32 = 14;
const EBUSY: i32 = 16;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const ENOTTY: i32 = 25;
const EOPNOTSUPP: i32 = 95;

impl AbiError {
    /// What the call fails with.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        Errno::new(match self {
            Self::Unknown(_) | Self::OtherVersion(_) => ENOTTY,
            Self::Missing => EFAULT,
            Self::Short { .. } | Self::Flags(_) | Self::Value(_) | Self::Descriptors { .. } => {
                EINVAL
            }
            Self::NotOffered(_) => EOPNOTSUPP,
            Self::NoFunction(_) => ENODEV,
            Self::HasRing => EBUSY,
            Self::Vfio(error) => error.errno(),
            Self::Map(error) => error.errno().raw_os_error(),
            Self::Host(errno) => errno.get(),
        })
    }
}
