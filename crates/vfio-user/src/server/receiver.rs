use std::{
    collections::VecDeque,
    io::IoSliceMut,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg},
};
use zerocopy::FromBytes;

use super::ConnectionError;
use crate::wire::{Cut, Frame, FrameError, Header, MAX_DESCRIPTORS, MAX_FRAME_BYTES, cut};

/// Room for one message of the greatest size and a good deal of what comes after it.
const BUFFER_BYTES: usize = 128 << 10;
const _: () = assert!(BUFFER_BYTES > MAX_FRAME_BYTES);

/// What one attempt to receive brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Some bytes.
    Bytes,
    /// Nothing at the moment.
    Nothing,
    /// The end of the stream.
    End,
}

/// What to do where there is nothing to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Return.
    None,
    /// Sleep until there is something, or the socket's receiving side is shut down.
    Endless,
}

/// Collects a stream of bytes and descriptors and hands it out as messages.
///
/// A receive ends with the piece of the stream that carried descriptors, so those belong to the last message
/// that begins in what was received. A peer must therefore send a message with descriptors by itself,
/// as all do.
#[derive(Debug)]
pub(crate) struct Receiver {
    buffer: Box<[u8]>,
    /// The first byte of the first message not handed out.
    start: usize,
    /// The end of what was received.
    end: usize,
    /// Descriptors by the position of the message that they came with, ascending.
    descriptors: VecDeque<(usize, Vec<OwnedFd>)>,
}

impl Receiver {
    pub(crate) fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            descriptors: VecDeque::new(),
        }
    }

    /// Takes what the socket has.
    pub(crate) fn receive(
        &mut self,
        socket: impl AsFd,
        patience: Patience,
    ) -> Result<Received, ConnectionError> {
        self.make_room();
        let wait = match patience {
            Patience::None => RecvFlags::DONTWAIT,
            Patience::Endless => RecvFlags::empty(),
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut self.buffer[self.end..])],
            &mut control,
            wait | RecvFlags::CMSG_CLOEXEC,
        );
        let received = match received {
            Ok(received) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Received::Nothing),
            Err(Errno::CONNRESET) => return Ok(Received::End),
            Err(errno) => return Err(ConnectionError::Socket(errno)),
        };
        if received.bytes == 0 {
            return Ok(Received::End);
        }
        self.end += received.bytes;
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        // The kernel drops what does not fit, and says so.
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(ConnectionError::TooManyDescriptors);
        }
        if !descriptors.is_empty() {
            self.keep(descriptors)?;
        }
        Ok(Received::Bytes)
    }

    /// The next whole message, with its descriptors.
    pub(crate) fn next(&mut self) -> Result<Option<(Frame<'_>, Vec<OwnedFd>)>, ConnectionError> {
        match cut(&self.buffer[self.start..self.end])? {
            Cut::Incomplete => Ok(None),
            Cut::Whole(frame) => {
                let descriptors = match self.descriptors.front() {
                    Some((position, _)) if *position == self.start => {
                        self.descriptors.pop_front().map(|(_, kept)| kept)
                    }
                    _ => None,
                };
                self.start += frame.len_bytes();
                Ok(Some((frame, descriptors.unwrap_or_default())))
            }
        }
    }

    /// The header of the next message, if no message is of the size that it says.
    pub(crate) fn misfit(&self) -> Option<Header> {
        let stream = &self.buffer[self.start..self.end];
        match cut(stream) {
            Err(FrameError::Size(_)) => Header::read_from_prefix(stream).ok().map(|it| it.0),
            _ => None,
        }
    }

    fn keep(&mut self, mut descriptors: Vec<OwnedFd>) -> Result<(), ConnectionError> {
        let owner = self.last_message()?;
        match self.descriptors.back_mut() {
            Some((position, kept)) if *position == owner => kept.append(&mut descriptors),
            _ => self.descriptors.push_back((owner, descriptors)),
        }
        match self.descriptors.back() {
            Some((_, kept)) if kept.len() > MAX_DESCRIPTORS => {
                Err(ConnectionError::TooManyDescriptors)
            }
            _ => Ok(()),
        }
    }

    /// Where the last message begins of which at least one byte is there.
    fn last_message(&self) -> Result<usize, ConnectionError> {
        let mut position = self.start;
        loop {
            let stream = &self.buffer[position..self.end];
            let len = match cut(stream)? {
                Cut::Whole(frame) => frame.len_bytes(),
                Cut::Incomplete => return Ok(position),
            };
            if position + len >= self.end {
                return Ok(position);
            }
            position += len;
        }
    }

    /// Moves what is left to the front, so that the message that is under way has room.
    fn make_room(&mut self) {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        } else if self.start > 0 && self.buffer.len() - self.end < self.missing() {
            self.buffer.copy_within(self.start..self.end, 0);
            for (position, _) in &mut self.descriptors {
                *position -= self.start;
            }
            self.end -= self.start;
            self.start = 0;
        }
    }

    /// How many bytes the message under way still needs, at most.
    fn missing(&self) -> usize {
        MAX_FRAME_BYTES.saturating_sub(self.end - self.start).max(1)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use rustix::{
        event::{EventfdFlags, eventfd},
        net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
    };

    use super::*;
    use crate::wire::{Command, HEADER_BYTES, ReplyWanted, push_frame};

    fn message(id: u16, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        push_frame(
            &mut out,
            Header::command(id, Command::DmaMap, ReplyWanted::Yes),
            &[payload],
        );
        out
    }

    fn send(socket: &UnixStream, bytes: &[u8], descriptors: usize) {
        let fds: Vec<OwnedFd> = (0..descriptors)
            .map(|_| eventfd(0, EventfdFlags::empty()).unwrap())
            .collect();
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if descriptors > 0 {
            assert!(control.push(SendAncillaryMessage::ScmRights(&borrowed)));
        }
        let io = [std::io::IoSlice::new(bytes)];
        assert_eq!(
            sendmsg(socket, &io, &mut control, SendFlags::empty()),
            Ok(bytes.len())
        );
    }

    fn all(receiver: &mut Receiver, socket: &UnixStream) -> Vec<(u16, usize)> {
        let mut out = Vec::new();
        while receiver.receive(socket, Patience::None).unwrap() == Received::Bytes {
            while let Some((frame, descriptors)) = receiver.next().unwrap() {
                out.push((frame.header.message_id.get(), descriptors.len()));
            }
        }
        out
    }

    #[test]
    fn descriptors_stay_with_their_message() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let plain = |id| send(&theirs, &message(id, &[0; 32]), 0);
        plain(1);
        plain(2);
        send(&theirs, &message(3, &[0; 32]), 1);
        plain(4);
        send(&theirs, &message(5, &[0; 20]), 16);
        // In two pieces, the descriptor with the first.
        let split = message(6, &[0; 32]);
        send(&theirs, &split[..20], 1);
        send(&theirs, &split[20..], 0);
        plain(7);
        let mut receiver = Receiver::new();
        let got = all(&mut receiver, &ours);
        assert_eq!(
            got,
            [(1, 0), (2, 0), (3, 1), (4, 0), (5, 16), (6, 1), (7, 0)]
        );
    }

    #[test]
    fn seventeen_descriptors_are_too_many() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        send(&theirs, &message(1, &[0; 32]), 17);
        let mut receiver = Receiver::new();
        let refused = receiver.receive(&ours, Patience::None);
        assert!(matches!(refused, Err(ConnectionError::TooManyDescriptors)));
    }

    #[test]
    fn descriptors_do_not_pile_up_on_a_message_that_never_ends() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut receiver = Receiver::new();
        let bytes = message(1, &[0; 32]);
        for (n, byte) in bytes.chunks(1).enumerate().take(16) {
            send(&theirs, byte, 1);
            assert_eq!(
                receiver.receive(&ours, Patience::None).unwrap(),
                Received::Bytes,
                "{n}"
            );
        }
        send(&theirs, &bytes[16..17], 1);
        let refused = receiver.receive(&ours, Patience::None);
        assert!(matches!(refused, Err(ConnectionError::TooManyDescriptors)));
    }

    #[test]
    fn a_stream_of_the_longest_messages_in_odd_pieces_arrives_whole() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let long = vec![7; MAX_FRAME_BYTES - HEADER_BYTES];
        let stream: Vec<u8> = (0..8).flat_map(|id| message(id, &long)).collect();
        let mut receiver = Receiver::new();
        let mut got = Vec::new();
        for piece in stream.chunks(50_021) {
            send(&theirs, piece, 0);
            got.extend(all(&mut receiver, &ours).iter().map(|(id, _)| *id));
        }
        assert_eq!(got, (0..8).collect::<Vec<u16>>());
    }
}
