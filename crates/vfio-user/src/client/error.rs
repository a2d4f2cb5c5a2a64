use rustix::io::Errno;

use crate::wire::{BadCapabilities, Command, FrameError};

/// Why a request of the client came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server refused; the connection goes on.
    #[error("the server refuses {0:?}: {1}")]
    Refused(Command, Errno),
    /// The data is empty or longer than the server takes, or a buffer is not as long as the data.
    #[error("{0} bytes cannot be read or written at a time: split or resize it")]
    Length(usize),
    /// The device's state is longer than what there is room for.
    #[error("the device's state has more than {0} bytes")]
    StateTooLong(usize),
    /// Thousands of answers are outstanding or not taken.
    #[error("too many reads are outstanding: take the data of some first")]
    TooManyOutstanding,
    /// More descriptors than the server takes with one message.
    #[error("{0} descriptors are too many for one message: the server takes {1}")]
    TooManyDescriptors(usize, u64),
    /// Nobody is there, or the socket failed.
    #[error("the connection failed: {0}")]
    Socket(#[from] std::io::Error),
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// What came is no message.
    #[error("the server does not speak vfio-user: {0}")]
    Frame(#[from] FrameError),
    /// The server's capabilities make no sense.
    #[error("the server's {0}")]
    Capabilities(#[from] BadCapabilities),
    /// The server speaks another version.
    #[error("the server speaks version {0}.{1}: only 0.x is spoken here")]
    Version(u16, u16),
    /// An answer does not fit its question.
    #[error("the server's answer to {0:?} does not fit the question")]
    Answer(Command),
    /// An answer to nothing that was asked.
    #[error("the server answers message {0}, which is not outstanding")]
    UnexpectedReply(u16),
    /// The extension, or this part of it, was not agreed to.
    #[error("the server has not agreed to this: name it in VERSION, or do without")]
    NotAgreed,
    /// The server agreed to more of the extension than was proposed.
    #[error("the server agrees to more than was proposed to it")]
    BeyondProposal,
    /// No page request group with this index waits for an answer.
    #[error("no page request group {0} waits for an answer")]
    NoSuchGroup(u16),
    /// The server writes into memory faster than the writes are taken, or asks faster than it reads the answers.
    #[error("thousands of the server's messages wait: call `poll_messages` more often")]
    TooManyMessages,
}

impl From<Errno> for ClientError {
    fn from(errno: Errno) -> Self {
        Self::Socket(errno.into())
    }
}

impl ClientError {
    /// The server's errno, where it refused.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused(_, errno) => Some(*errno),
            _ => None,
        }
    }
}
