//! The client's side.

mod error;
mod faults;
mod functions;
mod ioasid;
mod pasids;
mod platform;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use palisade_vfio::Abi;
use palisade_vfio::abi::{Number, Request};
use zerocopy::{FromBytes, IntoBytes};

pub use error::ClientError;
pub use faults::FaultQueue;
pub use functions::{Attaching, FunctionInfo};
pub use pasids::{Invalidate, Process, Which};
pub use platform::{Capability, Info};

use crate::socket::{Message, receive, send};
use crate::wire::{
    Header, Kind, MAJOR, MAX_DESCRIPTORS, MINOR, Version, VersionAnswer, abi_number, frame,
};

/// A connection to a container socket. Each call asks and waits for the answer.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    abi: Abi,
    limits: VersionAnswer,
    next_id: u16,
}

/// What a call returned, what its argument begins with now, and what came beside it.
#[derive(Debug)]
pub struct Reply {
    /// What it returned.
    pub value: i32,
    /// What the argument begins with; nothing where it stayed as it was.
    pub written: Vec<u8>,
    /// Descriptors.
    pub descriptors: Vec<OwnedFd>,
}

impl Client {
    /// Connects to a socket, to speak one of the two forms of the requests.
    ///
    /// # Errors
    /// [`ClientError::Socket`] where nobody is there, and those of [`Client::over`].
    pub fn connect(socket: &Path, abi: Abi) -> Result<Self, ClientError> {
        Self::over(UnixStream::connect(socket)?, abi)
    }

    /// Speaks over a socket that is connected.
    ///
    /// # Errors
    /// [`ClientError::Version`] where the server speaks another version, and those of the socket.
    pub fn over(stream: UnixStream, abi: Abi) -> Result<Self, ClientError> {
        let version = Version {
            major: MAJOR.into(),
            minor: MINOR.into(),
            abi: abi_number(abi).into(),
            padding: 0.into(),
        };
        let header = Header::new(Kind::Version, 0, 0);
        let message = frame(header, version.as_bytes()).ok_or(ClientError::TooLong)?;
        send(&stream, &message, &[])?;
        let answer = receive(&stream)?;
        if answer.head.kind != Kind::VersionAnswer {
            return Err(ClientError::Answer);
        }
        let limits: VersionAnswer = starts_with(&answer.payload)?;
        if let Err(errno) = answer.head.header.outcome() {
            let (major, minor) = (limits.major.get(), limits.minor.get());
            return Err(ClientError::Version {
                errno,
                major,
                minor,
            });
        }
        Ok(Self {
            stream,
            abi,
            limits,
            next_id: 1,
        })
    }

    /// Which form of the requests is spoken.
    #[must_use]
    pub fn abi(&self) -> Abi {
        self.abi
    }

    /// Makes a request in its bytes, as a call of `ioctl` has them.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the errno, those of the socket, and where argument or descriptors are too many
    /// for one message.
    pub fn ioctl(
        &mut self,
        number: Number,
        argument: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Reply, ClientError> {
        let most = usize::from(self.limits.max_descriptors.get()).min(MAX_DESCRIPTORS);
        if descriptors.len() > most {
            return Err(ClientError::TooManyDescriptors(descriptors.len(), most));
        }
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let header = Header::new(Kind::Request, id, number.get());
        let message = frame(header, argument).ok_or(ClientError::TooLong)?;
        if message.len() > self.limits.max_message_bytes.get() as usize {
            return Err(ClientError::TooLong);
        }
        send(&self.stream, &message, descriptors)?;
        let Message {
            head,
            payload,
            descriptors,
        } = receive(&self.stream)?;
        if head.kind != Kind::Answer || head.header.id.get() != id {
            return Err(ClientError::Answer);
        }
        let value = head.header.outcome();
        Ok(Reply {
            value: value.map_err(|errno| ClientError::Refused(number, errno))?,
            written: payload,
            descriptors,
        })
    }

    fn request(&mut self, request: Request, argument: &[u8]) -> Result<Reply, ClientError> {
        self.ioctl(request.number(), argument, &[])
    }
}

/// The structure that an answer begins with.
fn starts_with<T: FromBytes>(bytes: &[u8]) -> Result<T, ClientError> {
    let read = T::read_from_prefix(bytes);
    read.map_or(Err(ClientError::Answer), |(read, _)| Ok(read))
}
