use palisade_units::PasidOutOfRange;
use palisade_vfio::abi::{Number, Request};
use rustix::io::Errno;

use crate::socket::SocketError;
use crate::wire::{FrameError, MAX_DESCRIPTORS};

/// Why a call of the client came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The call failed; the connection goes on.
    #[error("request {0} is refused: {1}")]
    Refused(Number, Errno),
    /// The server does not speak what the client does.
    #[error("the server refuses the version ({errno}): it speaks {major}.{minor}")]
    Version {
        /// Why.
        errno: Errno,
        /// Its version.
        major: u16,
        /// What was added to that.
        minor: u16,
    },
    /// The other form of the requests has no such call.
    #[error("{} is not in the version of the requests that was chosen", .0.name())]
    NotInThisVersion(Request),
    /// Nobody is there, or the socket failed.
    #[error("the connection failed: {0}")]
    Socket(#[from] std::io::Error),
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// What came is no message.
    #[error("the server does not speak this protocol: {0}")]
    Frame(#[from] FrameError),
    /// An answer does not fit its question.
    #[error("the server's answer does not fit the question")]
    Answer,
    /// The argument is longer than a message may be.
    #[error("the argument is longer than the server takes")]
    TooLong,
    /// More descriptors than the server takes with one message.
    #[error("{0} descriptors are too many for one message: the server takes {1}")]
    TooManyDescriptors(usize, usize),
}

impl ClientError {
    /// The errno of a call that failed.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused(_, errno) => Some(*errno),
            _ => None,
        }
    }
}

impl From<SocketError> for ClientError {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::Closed => Self::Closed,
            SocketError::Failed(errno) => Self::Socket(errno.into()),
            SocketError::Frame(error) => Self::Frame(error),
            SocketError::TooManyDescriptors => {
                Self::TooManyDescriptors(MAX_DESCRIPTORS + 1, MAX_DESCRIPTORS)
            }
        }
    }
}

impl From<PasidOutOfRange> for ClientError {
    fn from(_: PasidOutOfRange) -> Self {
        Self::Answer
    }
}
