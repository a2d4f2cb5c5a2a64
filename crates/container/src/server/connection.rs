use std::convert::Infallible;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use palisade_vfio::Abi;
use palisade_vfio::abi::iommufd::{Iommufd, On, Refused};
use palisade_vfio::abi::{Answer, Number, Session, Vmm};
use rustix::io::Errno;
use zerocopy::{FromBytes, IntoBytes};

use super::queues;
use crate::socket::{Message, SocketError, receive, send};
use crate::wire::{
    FrameError, Header, IOMMUFD, Kind, MAJOR, MAX_DESCRIPTORS, Version, VersionAnswer, abi_number,
    frame,
};

/// Why a connection was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Socket(Errno),
    /// The client sent what is no message.
    #[error("the client does not speak this protocol: {0}")]
    Frame(#[from] FrameError),
    /// The client sent more descriptors with one message than it may.
    #[error("more than {MAX_DESCRIPTORS} descriptors with one message: send fewer at a time")]
    TooManyDescriptors,
    /// The client's first message was not its version.
    #[error("message {0:?} before the version: tell that first")]
    BeforeVersion(Kind),
    /// The client speaks another version, or a form of the requests that there is not.
    #[error(
        "the client speaks version {major} with requests of version {abi}: here it is {MAJOR}, with 1, 7 or {IOMMUFD}"
    )]
    Version {
        /// Its version of the protocol.
        major: u16,
        /// Its form of the requests.
        abi: u16,
    },
    /// The client's version is no version.
    #[error("the client's version has another size than a version has")]
    VersionSize,
    /// The client sent what only servers send.
    #[error("message {0:?}, which only a server sends")]
    NotAClients(Kind),
}

/// What a client is told before its connection is ended.
const PROTOCOL_ERROR: Errno = Errno::PROTO;
const OTHER_VERSION: Errno = Errno::PROTONOSUPPORT;

/// Serves a client on the calling thread until it closes or dies, the socket is shut down, or it breaks the
/// protocol. What it took has gone back
/// when this returns, if it was the last connection of its VMM. Who the client is was checked before.
///
/// # Errors
/// [`ConnectionError`] where the client or the socket is at fault. It concerns this connection alone.
pub fn serve(stream: &UnixStream, vmm: &Vmm) -> Result<(), ConnectionError> {
    let served = negotiate(stream, vmm).and_then(|spoken| requests(stream, &spoken));
    // Whoever still holds the socket is not left to wait. Fails only where the client was faster.
    let _ = stream.shutdown(Shutdown::Both);
    match served {
        Ok(never) => match never {},
        Err(Stop::Closed) => Ok(()),
        Err(Stop::Error(error)) => Err(error),
    }
}

/// Why there is no going on with a client.
enum Stop {
    Closed,
    Error(ConnectionError),
}

impl From<SocketError> for Stop {
    fn from(error: SocketError) -> Self {
        Self::Error(match error {
            SocketError::Closed => return Self::Closed,
            SocketError::Failed(errno) => ConnectionError::Socket(errno),
            SocketError::Frame(error) => error.into(),
            SocketError::TooManyDescriptors => ConnectionError::TooManyDescriptors,
        })
    }
}

/// What a client speaks.
enum Spoken {
    /// One of the proposals.
    Proposal(Session),
    Iommufd(Iommufd),
}

impl Spoken {
    fn of(form: u16, vmm: &Vmm) -> Option<Self> {
        if form == IOMMUFD {
            return Some(Self::Iommufd(vmm.connect_iommufd()));
        }
        let mut proposals = [Abi::V1, Abi::V7].into_iter();
        let abi = proposals.find(|one| abi_number(*one) == form)?;
        Some(Self::Proposal(vmm.connect(abi)))
    }

    /// Waits for the next message, and does meanwhile what comes by other ways.
    fn wait(&self, stream: &UnixStream) -> Result<(), SocketError> {
        match self {
            Self::Proposal(_) => Ok(()),
            Self::Iommufd(session) => queues::serve_until_readable(stream, session),
        }
    }

    fn ioctl(&self, header: &Header, payload: &[u8], fds: Vec<OwnedFd>) -> Result<Answer, Refused> {
        let number = Number::new(header.number_or_errno.get());
        match self {
            Self::Proposal(session) => {
                let answer = session.ioctl(number, payload, fds);
                answer.map_err(|errno| refused(errno.get()))
            }
            Self::Iommufd(session) => {
                let on = On::from_raw(header.value.get().cast_unsigned());
                let on = on.ok_or_else(|| refused(Errno::BADF.raw_os_error()))?;
                session.ioctl(on, number, payload, fds)
            }
        }
    }
}

fn refused(errno: i32) -> Refused {
    Refused {
        errno: palisade_ioasid::Errno::new(errno),
        written: Vec::new(),
    }
}

fn negotiate(stream: &UnixStream, vmm: &Vmm) -> Result<Spoken, Stop> {
    let message = receive(stream)?;
    let id = message.head.header.id.get();
    let refuse = |errno: Errno, error: ConnectionError| {
        // The answer is a courtesy: the connection ends in any case.
        let _ = answer_version(stream, id, Some(errno));
        Stop::Error(error)
    };
    if message.head.kind != Kind::Version {
        let error = ConnectionError::BeforeVersion(message.head.kind);
        return Err(refuse(PROTOCOL_ERROR, error));
    }
    let version = Version::read_from_bytes(&message.payload);
    let version = version.map_err(|_| refuse(PROTOCOL_ERROR, ConnectionError::VersionSize))?;
    let (major, abi) = (version.major.get(), version.abi.get());
    let spoken = (major == MAJOR).then(|| Spoken::of(abi, vmm)).flatten();
    let Some(spoken) = spoken else {
        return Err(refuse(
            OTHER_VERSION,
            ConnectionError::Version { major, abi },
        ));
    };
    answer_version(stream, id, None)?;
    Ok(spoken)
}

fn answer_version(stream: &UnixStream, id: u16, errno: Option<Errno>) -> Result<(), SocketError> {
    let errno = errno.map_or(0, |errno| errno.raw_os_error().cast_unsigned());
    let header = Header::new(Kind::VersionAnswer, id, errno);
    reply(stream, header, VersionAnswer::own().as_bytes(), &[])
}

fn requests(stream: &UnixStream, spoken: &Spoken) -> Result<Infallible, Stop> {
    loop {
        spoken.wait(stream)?;
        let Message {
            head,
            payload,
            descriptors,
        } = receive(stream)?;
        let id = head.header.id.get();
        let outcome = match head.kind {
            Kind::Request => spoken.ioctl(&head.header, &payload, descriptors),
            // Once is enough.
            Kind::Version => Err(refused(Errno::INVAL.raw_os_error())),
            Kind::VersionAnswer | Kind::Answer => {
                return Err(Stop::Error(ConnectionError::NotAClients(head.kind)));
            }
        };
        match outcome {
            Ok(answer) => answer_request(stream, id, &answer)?,
            Err(Refused { errno, written }) => {
                let header = Header::new(Kind::Answer, id, errno.get().cast_unsigned());
                reply(stream, header, &written, &[])?;
            }
        }
    }
}

fn answer_request(stream: &UnixStream, id: u16, answer: &Answer) -> Result<(), SocketError> {
    let mut header = Header::new(Kind::Answer, id, 0);
    header.value = answer.value.into();
    let descriptors: Vec<BorrowedFd<'_>> = answer.descriptors.iter().map(|fd| fd.as_fd()).collect();
    reply(stream, header, &answer.written, &descriptors)
}

fn reply(
    stream: &UnixStream,
    header: Header,
    payload: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), SocketError> {
    let too_long = || SocketError::Failed(Errno::MSGSIZE);
    let message = frame(header, payload).ok_or_else(too_long)?;
    send(stream, &message, descriptors)
}
