//! The client's side of the requests to an iommufd.

mod devices;
mod queues;
mod tables;
mod virtual_units;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use palisade_vfio::abi::Number;
use palisade_vfio::abi::iommufd::{IommufdRequest, On};

pub use devices::Hardware;
pub use queues::{PageRequests, Waiting};
pub use tables::{Invalidated, Pages, PasidUse, TableOptions};
pub use virtual_units::Events;

use super::link::Link;
use super::{ClientError, FunctionInfo, Reply, functions};
use crate::wire::IOMMUFD;

/// A connection to a container socket that is an iommufd with its device files. Each call asks and waits for the answer.
#[derive(Debug)]
pub struct IommufdClient {
    link: Link,
}

impl IommufdClient {
    /// Connects to a socket.
    ///
    /// # Errors
    /// [`ClientError::Socket`] where nobody is there, and those of [`IommufdClient::over`].
    pub fn connect(socket: &Path) -> Result<Self, ClientError> {
        Self::over(UnixStream::connect(socket)?)
    }

    /// Speaks over a socket that is connected.
    ///
    /// # Errors
    /// [`ClientError::Version`] where the server does not know these requests, and those of the socket.
    pub fn over(stream: UnixStream) -> Result<Self, ClientError> {
        let link = Link::over(stream, IOMMUFD)?;
        Ok(Self { link })
    }

    /// Makes a request in its bytes, on one of the files.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the errno, those of the socket, and where argument or descriptors are too many
    /// for one message.
    pub fn ioctl(
        &mut self,
        on: On,
        number: Number,
        argument: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Reply, ClientError> {
        let answer = self.link.call(number, on.raw(), argument, descriptors)?;
        let value = answer.head.header.outcome();
        Ok(Reply {
            value: value.map_err(|errno| ClientError::Refused(number, errno))?,
            written: answer.payload,
            descriptors: answer.descriptors,
        })
    }

    /// The functions that the VMM has or may have, by their places. Those that are offered may be bound.
    ///
    /// # Errors
    /// Those of the socket; [`ClientError::Answer`] where what comes makes no sense.
    pub fn functions(&mut self) -> Result<Vec<FunctionInfo>, ClientError> {
        let request = functions::list_request();
        let reply = self.ask(IommufdRequest::FunctionList, &request)?;
        functions::listed(&reply.written)
    }

    /// A request to the iommufd itself.
    fn ask(
        &mut self,
        request: IommufdRequest,
        argument: &(impl zerocopy::IntoBytes + zerocopy::Immutable),
    ) -> Result<Reply, ClientError> {
        self.ioctl(On::Iommufd, request.number(), argument.as_bytes(), &[])
    }
}

/// The one descriptor of an answer.
fn descriptor(reply: Reply) -> Result<OwnedFd, ClientError> {
    let mut descriptors = reply.descriptors.into_iter();
    descriptors.next().ok_or(ClientError::Answer)
}
