use std::{
    io::IoSliceMut,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixStream},
};

use rustix::{
    io::Errno,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg},
};

use crate::wire::MAX_DESCRIPTORS;

/// Descriptors that come beside messages, until their message is whole.
///
/// A receive ends with the piece of the stream that carried descriptors, so those belong to the last message that
/// begins in what was received; a server sends a message with descriptors by itself.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// Of the message that is under way.
    of_first: Vec<OwnedFd>,
    /// Of the last message that began in what was just received.
    of_last: Vec<OwnedFd>,
}

impl Beside {
    /// Takes what the socket has, without waiting.
    pub(super) fn receive(&mut self, socket: &UnixStream, into: &mut [u8]) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(socket, &mut [IoSliceMut::new(into)], &mut control, flags)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                self.of_last.extend(rights);
            }
        }
        // The kernel drops what does not fit, and says so.
        if received.flags.contains(ReturnFlags::CTRUNC) || self.of_last.len() > MAX_DESCRIPTORS {
            return Err(Errno::MSGSIZE);
        }
        Ok(received.bytes)
    }

    /// The descriptors of the next whole message, behind which `rest_bytes` have come.
    pub(super) fn of_next(&mut self, rest_bytes: usize) -> Vec<OwnedFd> {
        if self.of_first.is_empty() && rest_bytes == 0 {
            std::mem::take(&mut self.of_last)
        } else {
            std::mem::take(&mut self.of_first)
        }
    }

    /// All whole messages were taken; what is left is of the one under way.
    pub(super) fn rest(&mut self) {
        self.of_first.append(&mut self.of_last);
        self.of_first.truncate(MAX_DESCRIPTORS);
    }
}
