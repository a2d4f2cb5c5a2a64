use std::{
    collections::{HashMap, VecDeque},
    io::IoSlice,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    thread,
    time::{Duration, Instant},
};

use palisade_units::Gpa;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, send, sendmsg},
};
use zerocopy::{FromBytes, IntoBytes};

use super::{ClientError, beside::Beside, pasids::Answering};
use crate::wire::{
    Command, Cut, DmaAccess, Frame, HEADER_BYTES, Header, Kind, MAX_DESCRIPTORS, MAX_FRAME_BYTES,
    ReplyWanted, cut, pasid::PageResponse, push_frame,
};

const BUFFER_BYTES: usize = 128 << 10;
const _: () = assert!(BUFFER_BYTES >= 2 * 16 + MAX_FRAME_BYTES);
/// Queued messages are sent when this much has come together, whoever waits for them.
const SEND_BYTES: usize = 32 << 10;
/// Message ids have 16 bits; this many are outstanding or not taken at most.
const MAX_OUTSTANDING: usize = 16 << 10;
/// Writes of the server that wait for being taken.
const MAX_MESSAGES: usize = 16 << 10;
/// The answer to a write into memory, and more than a refusal.
const SHORT_ANSWER_BYTES: usize = HEADER_BYTES + size_of::<DmaAccess>();
/// How long to look for an answer before sleeping: below what waking up on another core costs.
const LOOK: Duration = Duration::from_micros(40);

#[derive(Debug)]
struct Outstanding {
    message_id: u16,
    sequence: u64,
    command: Command,
}

/// Messages out, messages in; knows nothing of what they are about but the server's writes to memory.
#[derive(Debug)]
pub(super) struct Link {
    socket: UnixStream,
    /// What is to be sent, from `sent` on.
    out: Vec<u8>,
    sent: usize,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    next_sequence: u64,
    /// In the order of sending, which is the order of answers with most servers.
    outstanding: VecDeque<Outstanding>,
    answers: HashMap<u64, Result<Vec<u8>, ClientError>>,
    writes: VecDeque<(Gpa, Vec<u8>)>,
    /// What answers the commands of the extension, where it was agreed to.
    pub(super) answering: Option<Answering>,
    /// Where descriptors come beside messages.
    beside: Option<Beside>,
    descriptors: HashMap<u64, Vec<OwnedFd>>,
}

impl Link {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            out: Vec::with_capacity(2 * SEND_BYTES),
            sent: 0,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            next_sequence: 0,
            outstanding: VecDeque::new(),
            answers: HashMap::new(),
            writes: VecDeque::new(),
            answering: None,
            beside: None,
            descriptors: HashMap::new(),
        }
    }

    /// From now on the server's commands of the extension are answered.
    pub(super) fn answer_with(&mut self, answering: Answering) {
        self.beside = answering.agreed.requests.map(|_| Beside::default());
        self.answering = Some(answering);
    }

    /// The descriptors that came beside an answer, once it was waited for.
    pub(super) fn take_descriptors(&mut self, sequence: u64) -> Vec<OwnedFd> {
        self.descriptors.remove(&sequence).unwrap_or_default()
    }

    /// Answers a page request group.
    pub(super) fn respond(
        &mut self,
        group: u16,
        response: PageResponse,
    ) -> Result<(), ClientError> {
        let answering = self.answering.as_mut().ok_or(ClientError::NotAgreed)?;
        answering.respond(group, response, &mut self.out)?;
        self.flush()
    }

    /// Appends a message that has no answer.
    pub(super) fn post(&mut self, header: Header, parts: &[&[u8]]) -> Result<(), ClientError> {
        push_frame(&mut self.out, header, parts);
        if self.out.len() - self.sent >= SEND_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Appends a command whose answer [`Self::wait`] brings. One with descriptors is sent at once and
    /// alone, so that the other side can tell whose they are.
    pub(super) fn queue(
        &mut self,
        command: Command,
        parts: &[&[u8]],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<u64, ClientError> {
        if self.outstanding.len() + self.answers.len() >= MAX_OUTSTANDING {
            return Err(ClientError::TooManyOutstanding);
        }
        if descriptors.len() > MAX_DESCRIPTORS {
            let limit = MAX_DESCRIPTORS as u64;
            return Err(ClientError::TooManyDescriptors(descriptors.len(), limit));
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let [low, high, ..] = sequence.to_le_bytes();
        let message_id = u16::from_le_bytes([low, high]);
        let header = Header::command(message_id, command, ReplyWanted::Yes);
        self.outstanding.push_back(Outstanding {
            message_id,
            sequence,
            command,
        });
        if descriptors.is_empty() {
            self.post(header, parts)?;
        } else {
            self.flush()?;
            push_frame(&mut self.out, header, parts);
            self.send_with(descriptors)?;
            self.flush()?;
        }
        Ok(sequence)
    }

    /// Asks and waits for the answer.
    pub(super) fn request(
        &mut self,
        command: Command,
        parts: &[&[u8]],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Vec<u8>, ClientError> {
        let sequence = self.queue(command, parts, descriptors)?;
        self.wait(sequence)
    }

    /// The payload of the answer to a queued command.
    pub(super) fn wait(&mut self, sequence: u64) -> Result<Vec<u8>, ClientError> {
        self.flush()?;
        let mut look_until = None;
        loop {
            if let Some(answer) = self.answers.remove(&sequence) {
                return answer;
            }
            if self.receive()? {
                // Answers to the server's writes may have come into being.
                self.flush()?;
                continue;
            }
            let now = Instant::now();
            if now < *look_until.get_or_insert(now + LOOK) {
                thread::yield_now();
            } else {
                self.sleep(PollFlags::IN, None)?;
                look_until = None;
            }
        }
    }

    /// Takes in all that has come, and sends the answers that it needs.
    pub(super) fn poll(&mut self) -> Result<(), ClientError> {
        while self.receive()? {}
        self.flush()
    }

    pub(super) fn next_write(&mut self) -> Option<(Gpa, Vec<u8>)> {
        self.writes.pop_front()
    }

    pub(super) fn wait_incoming(&mut self, timeout: Duration) -> Result<(), ClientError> {
        self.flush()?;
        if self.writes.is_empty() {
            self.sleep(PollFlags::IN, Some(timeout))?;
        }
        Ok(())
    }

    /// Sends all. While the socket is full, takes in what comes: the server may be waiting for just
    /// that before it reads on.
    pub(super) fn flush(&mut self) -> Result<(), ClientError> {
        while self.sent < self.out.len() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(&self.socket, &self.out[self.sent..], flags) {
                Ok(sent) => self.sent += sent,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !self.receive()? {
                        self.sleep(PollFlags::IN | PollFlags::OUT, None)?;
                    }
                }
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(ClientError::Closed),
                Err(errno) => return Err(errno.into()),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// Sends the one queued message, or its start, together with its descriptors.
    fn send_with(&mut self, descriptors: &[BorrowedFd<'_>]) -> Result<(), ClientError> {
        // Answers to the server's writes may come to stand behind it meanwhile.
        let message = self.sent..self.out.len();
        loop {
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
                let limit = MAX_DESCRIPTORS as u64;
                return Err(ClientError::TooManyDescriptors(descriptors.len(), limit));
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let io = [IoSlice::new(&self.out[message.clone()])];
            match sendmsg(&self.socket, &io, &mut control, flags) {
                Ok(sent) => {
                    self.sent += sent;
                    return Ok(());
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !self.receive()? {
                        self.sleep(PollFlags::IN | PollFlags::OUT, None)?;
                    }
                }
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(ClientError::Closed),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Takes in what the socket has, once; whether there was anything.
    fn receive(&mut self) -> Result<bool, ClientError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.end < MAX_FRAME_BYTES {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let room = &mut self.buffer[self.end..];
        let received = match &mut self.beside {
            Some(beside) => beside.receive(&self.socket, room),
            None => recv(&self.socket, room, RecvFlags::DONTWAIT).map(|(_, received)| received),
        };
        match received {
            Ok(0) | Err(Errno::CONNRESET) => return Err(ClientError::Closed),
            Ok(received) => self.end += received,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
        self.take_messages()?;
        Ok(true)
    }

    /// Takes in the whole messages that have come. What comes behind the answer to VERSION waits until this is called
    /// again: what was agreed decides how it is answered.
    pub(super) fn take_messages(&mut self) -> Result<(), ClientError> {
        while let Cut::Whole(frame) = cut(&self.buffer[self.start..self.end])? {
            self.start += frame.len_bytes();
            let rest_bytes = self.end - self.start;
            let command = frame.header.command.get();
            let beside = self.beside.as_mut();
            let descriptors = beside.map_or_else(Vec::new, |beside| beside.of_next(rest_bytes));
            if frame.kind == Kind::Reply {
                let sequence = take_reply(&mut self.outstanding, &mut self.answers, &frame)?;
                if command == Command::Version.raw() {
                    break;
                }
                // Nobody asks for those of a refusal.
                let is_done = frame.header.outcome().is_ok();
                if is_done && command == Command::ContainerRequest.raw() && !descriptors.is_empty()
                {
                    self.descriptors.insert(sequence, descriptors);
                }
                continue;
            }
            let is_answered = match &mut self.answering {
                Some(answering) => answering.take_command(&frame, &mut self.out),
                None => false,
            };
            if !is_answered {
                take_command(&mut self.writes, &mut self.out, &frame)?;
            }
        }
        if let Some(beside) = &mut self.beside {
            beside.rest();
        }
        self.check_unsent()
    }

    /// A server that asks for more than was agreed, or for what is refused without end, and does not read the answers is not
    /// to fill the memory.
    fn check_unsent(&self) -> Result<(), ClientError> {
        let commands = self
            .answering
            .as_ref()
            .map_or(0, |one| one.agreed.max_commands);
        let long = (usize::from(commands) + 2) * MAX_FRAME_BYTES;
        let short = MAX_MESSAGES * SHORT_ANSWER_BYTES;
        if self.out.len() - self.sent > 2 * SEND_BYTES + long + short {
            return Err(ClientError::TooManyMessages);
        }
        Ok(())
    }

    fn sleep(&self, interest: PollFlags, timeout: Option<Duration>) -> Result<(), ClientError> {
        let mut fds = [PollFd::from_borrowed_fd(self.socket.as_fd(), interest)];
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn take_reply(
    outstanding: &mut VecDeque<Outstanding>,
    answers: &mut HashMap<u64, Result<Vec<u8>, ClientError>>,
    frame: &Frame<'_>,
) -> Result<u64, ClientError> {
    let message_id = frame.header.message_id.get();
    let found = outstanding
        .iter()
        .position(|sent| sent.message_id == message_id);
    let sent = found
        .and_then(|index| outstanding.remove(index))
        .ok_or(ClientError::UnexpectedReply(message_id))?;
    if frame.header.command.get() != sent.command.raw() {
        return Err(ClientError::Answer(sent.command));
    }
    let answer = match frame.header.outcome() {
        Ok(()) => Ok(frame.payload.to_vec()),
        Err(errno) => Err(ClientError::Refused(sent.command, errno)),
    };
    answers.insert(sent.sequence, answer);
    Ok(sent.sequence)
}

/// Keeps a write into memory and answers it; refuses everything else, which is all of the extension where it was
/// not agreed to.
fn take_command(
    writes: &mut VecDeque<(Gpa, Vec<u8>)>,
    out: &mut Vec<u8>,
    frame: &Frame<'_>,
) -> Result<(), ClientError> {
    let header = &frame.header;
    let outcome = if header.command.get() == Command::DmaWrite.raw() {
        match DmaAccess::read_from_prefix(frame.payload) {
            Ok((access, data)) if access.count.get() == data.len() as u64 => {
                if writes.len() >= MAX_MESSAGES {
                    return Err(ClientError::TooManyMessages);
                }
                writes.push_back((Gpa::new(access.address.get()), data.to_vec()));
                Ok(access)
            }
            _ => Err(Errno::INVAL),
        }
    } else {
        Err(Errno::NOTSUP)
    };
    if header.reply_wanted() == ReplyWanted::Yes {
        match outcome {
            Ok(access) => push_frame(out, Header::reply(header), &[access.as_bytes()]),
            Err(errno) => push_frame(out, Header::refusal(header, errno), &[]),
        }
    }
    Ok(())
}
