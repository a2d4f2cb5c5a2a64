use std::{
    collections::VecDeque,
    io::IoSlice,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
};

use rustix::{
    io::Errno,
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, send, sendmsg},
};

use super::pasids::Asked;
use crate::wire::{MAX_DATA_BYTES, MAX_DESCRIPTORS};

/// Messages are queued in pieces of about this size. The kernel takes a piece as a whole or not at
/// all, so that no peer finds half a header in its socket; some give up then.
const PIECE_BYTES: usize = 16 << 10;

/// Whether something waits to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Nothing waits.
    All,
    /// The peer must read first.
    Waiting,
}

/// Who sends what waits, while the connection's thread sleeps until its peer sends something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flusher {
    /// Nobody: nothing waits, or what waits is the thread's own.
    None,
    /// A thread that ends when nothing waits any more.
    AtWork,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// No version yet: requests to the peer wait, since one before the answer would end some peers.
    Negotiating,
    /// Messages go to the socket, or wait for it.
    Open,
    /// The peer let too much wait.
    Overrun,
    Closed,
}

/// Messages that wait to be sent, and what goes beside them: a message with descriptors is a piece by itself.
#[derive(Debug, Default)]
pub(super) struct Piece {
    bytes: Vec<u8>,
    descriptors: Vec<Arc<OwnedFd>>,
}

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) state: State,
    /// Requests to the peer from before the version.
    pub(super) held: Vec<u8>,
    pub(super) pieces: VecDeque<Piece>,
    /// How much of the first piece is sent.
    head_sent: usize,
    pub(super) waiting_bytes: usize,
    pub(super) flusher: Flusher,
    pub(super) message_id: u16,
    /// The most that the peer takes in one write.
    pub(super) max_data_bytes: usize,
    /// What the extension has asked.
    pub(super) asked: Asked,
}

impl Queue {
    /// One for a peer that has not told its version.
    pub(super) fn new() -> Self {
        Self {
            state: State::Negotiating,
            held: Vec::new(),
            pieces: VecDeque::new(),
            head_sent: 0,
            waiting_bytes: 0,
            flusher: Flusher::None,
            message_id: 0,
            max_data_bytes: MAX_DATA_BYTES as usize,
            asked: Asked::default(),
        }
    }

    /// Sends what waits, then `messages`; leaves `messages` empty.
    pub(super) fn send(
        &mut self,
        socket: &UnixStream,
        messages: &mut Vec<u8>,
    ) -> Result<Sent, Errno> {
        let mut sent = self.flush(socket)?;
        if !messages.is_empty() {
            if sent == Sent::All {
                let now = send_some(socket, messages)?;
                if now < messages.len() {
                    self.push(&messages[now..]);
                    sent = Sent::Waiting;
                }
            } else {
                self.push(messages);
            }
            messages.clear();
        }
        Ok(sent)
    }

    /// Sends whole messages as far as the socket takes them, and queues the rest; whether all were sent.
    pub(super) fn transmit(
        &mut self,
        socket: &UnixStream,
        mut messages: Vec<u8>,
    ) -> Result<Sent, Errno> {
        if self.pieces.is_empty() {
            let sent = send_some(socket, &messages)?;
            messages.drain(..sent);
        }
        if messages.is_empty() {
            return Ok(Sent::All);
        }
        self.push(&messages);
        Ok(Sent::Waiting)
    }

    /// Queues a message that has descriptors beside it, and sends what the socket takes.
    pub(super) fn transmit_beside(
        &mut self,
        socket: &UnixStream,
        message: Vec<u8>,
        descriptors: Vec<Arc<OwnedFd>>,
    ) -> Result<Sent, Errno> {
        self.waiting_bytes += message.len();
        self.pieces.push_back(Piece {
            bytes: message,
            descriptors,
        });
        self.flush(socket)
    }

    pub(super) fn push(&mut self, messages: &[u8]) {
        if messages.is_empty() {
            return;
        }
        self.waiting_bytes += messages.len();
        let first_is_last = self.pieces.len() == 1;
        if let Some(last) = self.pieces.back_mut() {
            let untouched = (!first_is_last || self.head_sent == 0) && last.descriptors.is_empty();
            if untouched && last.bytes.len() + messages.len() <= PIECE_BYTES {
                last.bytes.extend_from_slice(messages);
                return;
            }
        }
        self.pieces.push_back(Piece {
            bytes: messages.to_vec(),
            descriptors: Vec::new(),
        });
    }

    pub(super) fn flush(&mut self, socket: &UnixStream) -> Result<Sent, Errno> {
        while let Some(head) = self.pieces.front() {
            let sent = if self.head_sent == 0 && !head.descriptors.is_empty() {
                let sent = send_beside(socket, &head.bytes, &head.descriptors)?;
                if sent == 0 {
                    return Ok(Sent::Waiting);
                }
                sent
            } else {
                send_some(socket, &head.bytes[self.head_sent..])?
            };
            self.waiting_bytes -= sent;
            self.head_sent += sent;
            if sent == 0 {
                return Ok(Sent::Waiting);
            }
            if self.head_sent < head.bytes.len() {
                return Ok(Sent::Waiting);
            }
            self.pieces.pop_front();
            self.head_sent = 0;
        }
        Ok(Sent::All)
    }
}

/// Sends as much as the socket takes now.
fn send_some(socket: &UnixStream, mut bytes: &[u8]) -> Result<usize, Errno> {
    let mut total = 0;
    while !bytes.is_empty() {
        match send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => {
                total += sent;
                bytes = bytes.get(sent..).unwrap_or_default();
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(total)
}

/// Sends the start of a message together with its descriptors; 0 where the socket takes nothing now.
fn send_beside(
    socket: &UnixStream,
    message: &[u8],
    descriptors: &[Arc<OwnedFd>],
) -> Result<usize, Errno> {
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(|fd| fd.as_fd()).collect();
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(Errno::MSGSIZE);
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match sendmsg(socket, &[IoSlice::new(message)], &mut control, flags) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(0),
            other => return other,
        }
    }
}
