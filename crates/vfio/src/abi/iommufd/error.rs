use palisade_ioasid::Errno;
use palisade_memory::MapError;

use super::{IommufdRequest, ObjectId};
use crate::VfioError;
use crate::abi::{AbiError, Number};

/// Why a request to an iommufd was refused. Nothing has changed when one of these is returned, but for
/// entries of an invalidation that were done before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IommufdError {
    /// There is no such request.
    #[error("there is no request {0} of an iommufd")]
    Unknown(Number),
    /// The file that the call is made on does not have this request.
    #[error("{} is not made on this file", .0.name())]
    OtherFile(IommufdRequest),
    /// Bytes that the request has are not there.
    #[error("the message ends before the request does")]
    Missing,
    /// The argument says of itself that it is shorter than it may be.
    #[error("the size is {size}: it is {shortest} at least")]
    Short {
        /// What it says.
        size: u32,
        /// What is needed.
        shortest: u32,
    },
    /// The argument is longer than what is known here, and has something there.
    #[error("the argument has more than is known here")]
    Beyond,
    /// A known field has a value that is not offered.
    #[error("{0} is not offered here")]
    NotOffered(&'static str),
    /// A field has a value that it cannot have.
    #[error("{0}")]
    Value(&'static str),
    /// There is no object with this id, or it is one of another type.
    #[error("there is no object {0} of the type that the request takes")]
    NoObject(ObjectId),
    /// Another object, or a device, uses it.
    #[error("object {0} is in use: destroy or detach what uses it first")]
    InUse(ObjectId),
    /// There is one already.
    #[error("{0}")]
    Exists(&'static str),
    /// Too many objects.
    #[error("the client has as many objects as it may: destroy some first")]
    TooMany,
    /// No file came, or another one is meant.
    #[error("the file is the one descriptor beside the message, whose place is 0")]
    NoFile,
    /// The client has no room for what is told.
    #[error("there is no room for all of it: ask again with as much as is told")]
    NoRoom,
    /// An address or a length that has no end.
    #[error("the range passes the end of all addresses")]
    Overflow,
    /// What the other forms of the requests are refused for, too.
    #[error(transparent)]
    Abi(#[from] AbiError),
}

impl From<VfioError> for IommufdError {
    fn from(error: VfioError) -> Self {
        Self::Abi(error.into())
    }
}

impl From<MapError> for IommufdError {
    fn from(error: MapError) -> Self {
        Self::Abi(error.into())
    }
}

const ENOENT: i32 = 2;
const E2BIG: i32 = 7;
const EBADF: i32 = 9;
const ENOMEM: i32 = 12;
const EFAULT: i32 = 14;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;
const ENOTTY: i32 = 25;
const EOVERFLOW: i32 = 75;
const EMSGSIZE: i32 = 90;
const EOPNOTSUPP: i32 = 95;

impl IommufdError {
    /// What the call fails with.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        Errno::new(match self {
            Self::Unknown(_) | Self::OtherFile(_) => ENOTTY,
            Self::Missing => EFAULT,
            Self::Short { .. } | Self::Value(_) => EINVAL,
            Self::Beyond => E2BIG,
            Self::NotOffered(_) => EOPNOTSUPP,
            Self::NoObject(_) => ENOENT,
            Self::InUse(_) => EBUSY,
            Self::Exists(_) => EEXIST,
            Self::TooMany => ENOMEM,
            Self::NoFile => EBADF,
            Self::NoRoom => EMSGSIZE,
            Self::Overflow => EOVERFLOW,
            Self::Abi(error) => return error.errno(),
        })
    }
}
