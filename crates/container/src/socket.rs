//! Whole messages in and out of a stream, with the descriptors that belong to them.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use zerocopy::FromZeros;
use zerocopy::IntoBytes;

use crate::wire::{Checked, FrameError, Header, MAX_DESCRIPTORS};

/// One whole message.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) head: Checked,
    pub(crate) payload: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// Why no message came, or none could be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SocketError {
    #[error("the other side closed the connection")]
    Closed,
    #[error("the socket failed: {0}")]
    Failed(Errno),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("more than {MAX_DESCRIPTORS} descriptors came with one message")]
    TooManyDescriptors,
}

/// Waits for a message.
///
/// No more than one message is read at a time, and a piece of a stream that carries descriptors is never read together
/// with what comes before it: so those that come while a message is read are that message's.
pub(crate) fn receive(stream: &UnixStream) -> Result<Message, SocketError> {
    let mut descriptors = Vec::new();
    let mut header = Header::new_zeroed();
    fill(stream, header.as_mut_bytes(), &mut descriptors)?;
    let head = header.check()?;
    let mut payload = vec![0; head.payload_bytes];
    fill(stream, &mut payload, &mut descriptors)?;
    Ok(Message {
        head,
        payload,
        descriptors,
    })
}

fn fill(
    stream: &UnixStream,
    mut into: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> Result<(), SocketError> {
    while !into.is_empty() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let io = &mut [IoSliceMut::new(into)];
        let received = match recvmsg(stream, io, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => received,
            Err(Errno::INTR) => continue,
            Err(Errno::CONNRESET) => return Err(SocketError::Closed),
            Err(errno) => return Err(SocketError::Failed(errno)),
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        // The kernel drops what does not fit, and says so.
        let dropped = received.flags.contains(ReturnFlags::CTRUNC);
        if dropped || descriptors.len() > MAX_DESCRIPTORS {
            return Err(SocketError::TooManyDescriptors);
        }
        if received.bytes == 0 {
            return Err(SocketError::Closed);
        }
        into = &mut into[received.bytes..];
    }
    Ok(())
}

/// Sends a whole message; the descriptors go with its first byte.
pub(crate) fn send(
    stream: &UnixStream,
    message: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), SocketError> {
    let mut sent = 0;
    while sent < message.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if sent == 0
            && !descriptors.is_empty()
            && !control.push(SendAncillaryMessage::ScmRights(descriptors))
        {
            return Err(SocketError::TooManyDescriptors);
        }
        let io = [IoSlice::new(&message[sent..])];
        match sendmsg(stream, &io, &mut control, SendFlags::NOSIGNAL) {
            Ok(bytes) => sent += bytes,
            Err(Errno::INTR) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(SocketError::Closed),
            Err(errno) => return Err(SocketError::Failed(errno)),
        }
    }
    Ok(())
}
