//! The hostile side's end of a connection.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use palisade_vfio_user::wire::{Cut, Header, Kind, cut};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};

/// Who says nothing for so long where something is due hangs.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// A message that came.
pub(super) struct Message {
    pub(super) header: Header,
    pub(super) kind: Kind,
    pub(super) payload: Vec<u8>,
}

/// Whether something is due.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Yes,
    No,
}

pub(super) struct Socket {
    socket: UnixStream,
    /// What came and is no whole message yet.
    buffer: Vec<u8>,
    start: usize,
    has_ended: bool,
}

impl Socket {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            buffer: Vec::new(),
            start: 0,
            has_ended: false,
        }
    }

    /// Sends all of it, and takes in what comes meanwhile. A side that is gone needs nothing.
    pub(super) fn send(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let (mut rest, mut descriptors) = (bytes, descriptors);
        while !rest.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(descriptors));
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match sendmsg(&self.socket, &[IoSlice::new(rest)], &mut control, flags) {
                Ok(sent) => (rest, descriptors) = (&rest[sent..], &[]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !self.take() {
                        self.wait(PollFlags::IN | PollFlags::OUT);
                    }
                }
                Err(_) => return,
            }
        }
    }

    /// Nothing more is sent.
    pub(super) fn close(&self) {
        // The other side may be gone already.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// The next message. `None` where there is none, which must be because the stream has ended if one is due.
    pub(super) fn next(&mut self, due: Due) -> Option<Message> {
        loop {
            let cut = cut(&self.buffer[self.start..]).expect("our side sends messages");
            if let Cut::Whole(frame) = cut {
                let message = Message {
                    header: frame.header,
                    kind: frame.kind,
                    payload: frame.payload.to_vec(),
                };
                self.start += frame.len_bytes();
                return Some(message);
            }
            if self.has_ended {
                return None;
            }
            if !self.take() {
                match due {
                    Due::No => return None,
                    Due::Yes if self.has_ended => return None,
                    Due::Yes => self.wait(PollFlags::IN),
                }
            }
        }
    }

    /// Takes in what there is; whether there was anything.
    fn take(&mut self) -> bool {
        let mut room = [0; 16 << 10];
        match recv(&self.socket, &mut room[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) | Err(Errno::CONNRESET) => self.has_ended = true,
            Ok((len, _)) => {
                self.buffer.drain(..self.start);
                self.start = 0;
                self.buffer.extend_from_slice(&room[..len]);
                return true;
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => panic!("the socket: {errno}"),
        }
        false
    }

    fn wait(&self, what: PollFlags) {
        let limit = Timespec::try_from(LIMIT).expect("a time");
        let ready = poll(&mut [PollFd::new(&self.socket, what)], Some(&limit));
        assert_ne!(ready, Ok(0), "our side hangs");
    }
}
