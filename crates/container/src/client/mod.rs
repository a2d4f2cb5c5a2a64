//! The client's side.

mod error;
mod faults;
mod functions;
mod ioasid;
mod iommufd;
mod link;
mod pasids;
mod platform;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use palisade_vfio::Abi;
use palisade_vfio::abi::{Number, Request};
use zerocopy::FromBytes;

pub use error::ClientError;
pub use faults::FaultQueue;
pub use functions::{Attaching, FunctionInfo};
pub use iommufd::{
    Events, Hardware, Invalidated, IommufdClient, PageRequests, Pages, PasidUse, TableOptions,
    Waiting,
};
pub use pasids::{Invalidate, Process, Which};
pub use platform::{Capability, Info};

use link::Link;

use crate::wire::abi_number;

/// A connection to a container socket. Each call asks and waits for the answer.
#[derive(Debug)]
pub struct Client {
    link: Link,
    abi: Abi,
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
        Ok(Self {
            link: Link::over(stream, abi_number(abi))?,
            abi,
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
        let answer = self.link.call(number, 0, argument, descriptors)?;
        let value = answer.head.header.outcome();
        Ok(Reply {
            value: value.map_err(|errno| ClientError::Refused(number, errno))?,
            written: answer.payload,
            descriptors: answer.descriptors,
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
