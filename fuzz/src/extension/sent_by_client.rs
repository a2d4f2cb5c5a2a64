//! What must come of what a client of our server has sent.

use std::collections::{BTreeSet, VecDeque};

use palisade_vfio_user::wire::pasid::{
    ContainerAnswer, ContainerRequest, Invalidation, MAX_ARGUMENT_BYTES, PasidCapability,
};
use palisade_vfio_user::wire::{Command, Cut, Frame, FrameError, Header, Kind, ReplyWanted, cut};
use palisade_vfio_user::{ConnectionError, Errno};
use zerocopy::{FromBytes, IntoBytes};

use super::answer::Question;
use super::device::{Habit, outcome};
use super::questions::Asked;
use super::socket::Message;

/// As many requests as our server takes unanswered.
const MAX_REQUESTS: usize = 32;

/// What a reply says.
pub(super) enum Reply {
    Any,
    Done(Vec<u8>),
    Refused(Errno),
}

/// A reply that is owed.
struct Owed {
    to: Header,
    reply: Reply,
}

/// How the connection ends.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    Frame,
    UnexpectedReply(u16),
    BadAnswer(u16),
}

/// What the client knows.
pub(super) struct Known {
    pub(super) agreed: Option<PasidCapability>,
    pub(super) max_data_bytes: u64,
    pub(super) habits: [Habit; 2],
    pub(super) asked: Vec<Asked>,
    /// Commands of the extension that came.
    pub(super) came: Vec<Question>,
    /// Writes into memory that came, and those of them that may still be answered.
    pub(super) writes: u64,
    pub(super) unanswered_writes: u64,
    /// Invalidations that are to come late, and requests.
    pub(super) forgetting: Vec<Header>,
    pub(super) waiting: Vec<Header>,
    /// What the device has to have seen.
    pub(super) invalidated: Vec<Invalidation>,
    pub(super) requested: Vec<(u32, Vec<u8>)>,
    /// The commands that came to a good end, by their numbers.
    pub(super) reached: BTreeSet<u16>,
    /// What was sent and is no whole message.
    stream: Vec<u8>,
    owed: VecDeque<Owed>,
    ending: Option<Ending>,
}

impl Known {
    pub(super) fn new(agreed: Option<PasidCapability>, max_data_bytes: u64) -> Self {
        Self {
            agreed,
            max_data_bytes,
            habits: [Habit::AtOnce; 2],
            asked: Vec::new(),
            came: Vec::new(),
            writes: 0,
            unanswered_writes: 0,
            forgetting: Vec::new(),
            waiting: Vec::new(),
            invalidated: Vec::new(),
            requested: Vec::new(),
            reached: BTreeSet::new(),
            stream: Vec::new(),
            owed: VecDeque::new(),
            ending: None,
        }
    }

    /// Whether the connection goes on, and a message may follow.
    pub(super) fn goes_on(&self) -> bool {
        self.ending.is_none() && self.stream.is_empty()
    }

    pub(super) fn is_owed(&self) -> bool {
        !self.owed.is_empty()
    }

    /// These bytes go to the server, after all that went before.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        let mut stream = std::mem::take(&mut self.stream);
        stream.extend_from_slice(bytes);
        let mut rest = &stream[..];
        while self.ending.is_none() {
            match cut(rest) {
                Ok(Cut::Incomplete) => break,
                Ok(Cut::Whole(frame)) => {
                    rest = &rest[frame.len_bytes()..];
                    match frame.kind {
                        Kind::Command => self.command(&frame),
                        Kind::Reply => self.reply(&frame),
                    }
                }
                Err(error) => {
                    self.ending = Some(Ending::Frame);
                    if let (FrameError::Size(_), Ok((header, _))) =
                        (error, Header::read_from_prefix(rest))
                        && header.kind() == Some(Kind::Command)
                    {
                        self.owe(header, Reply::Refused(Errno::INVAL));
                    }
                }
            }
        }
        self.stream = rest.to_vec();
    }

    /// A reply is due, if one is wanted.
    pub(super) fn owe(&mut self, to: Header, reply: Reply) {
        if to.reply_wanted() == ReplyWanted::Yes {
            self.owed.push_back(Owed { to, reply });
        }
    }

    fn command(&mut self, frame: &Frame<'_>) {
        let command = Command::from_raw(frame.header.command.get());
        let outcome = match (command, self.agreed) {
            (Some(Command::PasidInvalidate), Some(agreed)) => self.invalidate(frame, &agreed),
            (Some(Command::ContainerRequest), Some(agreed)) => self.request(frame, &agreed),
            (Some(Command::Version), _) => Err(Errno::INVAL),
            (Some(command), _) if !command.is_of_extension() => Ok(Some(Reply::Any)),
            _ => Err(Errno::NOTSUP),
        };
        match outcome {
            Ok(Some(reply)) => self.owe(frame.header, reply),
            // Later.
            Ok(None) => {}
            Err(errno) => self.owe(frame.header, Reply::Refused(errno)),
        }
    }

    fn invalidate(
        &mut self,
        frame: &Frame<'_>,
        agreed: &PasidCapability,
    ) -> Result<Option<Reply>, Errno> {
        if agreed.max_invalidations == 0 {
            return Err(Errno::NOTSUP);
        }
        let what = Invalidation::parse(frame.payload, agreed.width)?;
        if self.forgetting.len() >= agreed.max_invalidations.into() {
            return Err(Errno::BUSY);
        }
        self.invalidated.push(what);
        match self.habits[0] {
            Habit::AtOnce => Ok(Some(Reply::Done(Vec::new()))),
            Habit::Later => {
                self.forgetting.push(frame.header);
                Ok(None)
            }
            Habit::Never => Err(Errno::IO),
        }
    }

    fn request(
        &mut self,
        frame: &Frame<'_>,
        agreed: &PasidCapability,
    ) -> Result<Option<Reply>, Errno> {
        if agreed.requests.is_none() {
            return Err(Errno::NOTSUP);
        }
        let (head, argument) =
            ContainerRequest::read_from_prefix(frame.payload).map_err(|_| Errno::INVAL)?;
        if head.reserved.get() != 0 || argument.len() > MAX_ARGUMENT_BYTES {
            return Err(Errno::INVAL);
        }
        if self.waiting.len() >= MAX_REQUESTS {
            return Err(Errno::BUSY);
        }
        let number = head.number.get();
        self.requested.push((number, argument.to_vec()));
        match self.habits[1] {
            Habit::AtOnce => request_reply(number, argument).map(Some),
            Habit::Later => {
                self.waiting.push(frame.header);
                Ok(None)
            }
            Habit::Never => Err(Errno::IO),
        }
    }

    fn reply(&mut self, frame: &Frame<'_>) {
        let (id, raw) = (frame.header.message_id.get(), frame.header.command.get());
        if !Command::from_raw(raw).is_some_and(Command::is_of_extension) {
            match self.unanswered_writes.checked_sub(1) {
                Some(rest) => self.unanswered_writes = rest,
                None => self.ending = Some(Ending::UnexpectedReply(raw)),
            }
            return;
        }
        let epoch = self.invalidated.len();
        let asked = self.asked.iter_mut().find(|asked| {
            let header = &asked.question.header;
            asked.answered.is_none() && header.message_id.get() == id && header.command.get() == raw
        });
        let Some(asked) = asked else {
            self.ending = Some(Ending::UnexpectedReply(raw));
            return;
        };
        let outcome = match frame.header.outcome() {
            Ok(()) => asked.question.answer(frame.payload).map(Ok),
            Err(errno) => Some(Err(errno)),
        };
        if let Some(Ok(_)) = outcome {
            self.reached.insert(raw);
        }
        match outcome {
            Some(outcome) => asked.answered = Some((outcome, epoch)),
            None => self.ending = Some(Ending::BadAnswer(raw)),
        }
    }

    /// Our server has sent this.
    pub(super) fn take(&mut self, message: Message) {
        let header = message.header;
        let command = Command::from_raw(header.command.get());
        if message.kind == Kind::Command {
            match command {
                Some(Command::DmaWrite) => self.writes += 1,
                Some(command) if self.agreed.is_some() => self.came.push(Question {
                    header,
                    command,
                    payload: message.payload,
                }),
                other => panic!("our server sends {other:?}"),
            }
            return;
        }
        let owed = self.owed.pop_front().expect("a reply that is owed");
        let name = (header.message_id.get(), header.command.get());
        assert_eq!(name, (owed.to.message_id.get(), owed.to.command.get()));
        if header.outcome().is_err() {
            assert!(message.payload.is_empty(), "a refusal with a payload");
        }
        match owed.reply {
            Reply::Any => {}
            Reply::Done(payload) => {
                assert_eq!(header.outcome(), Ok(()), "{command:?}");
                assert_eq!(message.payload, payload, "{command:?}");
                self.reached.insert(name.1);
            }
            Reply::Refused(errno) => assert_eq!(header.outcome(), Err(errno), "{command:?}"),
        }
    }

    /// How many questions are unanswered: page requests, and others.
    pub(super) fn unanswered(&self) -> (usize, usize) {
        let of = |pages| {
            let unanswered = self.unanswered_questions();
            unanswered
                .filter(|it| (it.command == Command::PasidPageRequest) == pages)
                .count()
        };
        (of(true), of(false))
    }

    pub(super) fn unanswered_questions(&self) -> impl Iterator<Item = &Question> {
        let unanswered = self.asked.iter().filter(|it| it.answered.is_none());
        unanswered.map(|asked| &asked.question)
    }

    /// That the connection ended as it had to.
    pub(super) fn check_end(&self, end: &Result<palisade_vfio_user::End, ConnectionError>) {
        let found = match end {
            Ok(_) => None,
            Err(ConnectionError::Frame(_)) => Some(Ending::Frame),
            Err(ConnectionError::UnexpectedReply(raw)) => Some(Ending::UnexpectedReply(*raw)),
            Err(ConnectionError::BadAnswer(raw)) => Some(Ending::BadAnswer(*raw)),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(found, self.ending);
    }
}

/// What a request is answered.
pub(super) fn request_reply(number: u32, argument: &[u8]) -> Result<Reply, Errno> {
    let answer = outcome(number, argument)?;
    if answer.written.len() > MAX_ARGUMENT_BYTES {
        return Err(Errno::MSGSIZE);
    }
    let head = ContainerAnswer {
        value: answer.value.into(),
        reserved: 0.into(),
    };
    Ok(Reply::Done([head.as_bytes(), &answer.written[..]].concat()))
}
