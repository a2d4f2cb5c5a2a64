//! What must come of what a server of our client has sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use palisade_units::Access;
use palisade_vfio_user::wire::pasid::{PageRequest, PasidCapability, Tag, TaggedAccess, Wanted};
use palisade_vfio_user::wire::{
    Command, Cut, DmaAccess, Frame, Header, Kind, MAX_DATA_BYTES, ReplyWanted, cut,
};
use palisade_vfio_user::{Errno, PageAnswer};
use zerocopy::{FromBytes, IntoBytes};

use super::answer::Question;
use super::socket::Message;
use super::vmm::{CONFUSED, Call, answer_to, byte_at, outcome};

/// What a reply says.
pub(super) enum Reply {
    Done(Vec<u8>),
    /// What answers this translation.
    Ranges(Question),
    Refused(Errno),
}

struct Owed {
    to: Header,
    reply: Reply,
}

/// What the server knows.
#[derive(Default)]
pub(super) struct Known {
    /// What the client has agreed to, from the reply to VERSION on.
    pub(super) agreed: Option<PasidCapability>,
    /// The message that the client waits for an answer to.
    pub(super) outstanding: Option<(u16, Command)>,
    /// What it was answered.
    pub(super) answer: Option<Result<Vec<u8>, Errno>>,
    /// Writes into memory that the client has to hand out.
    pub(super) writes: usize,
    /// What the handler has to have been asked.
    pub(super) calls: VecDeque<Call>,
    /// Groups that the client answers late.
    pub(super) groups: BTreeMap<u16, Header>,
    /// Commands that came.
    pub(super) came: Vec<Message>,
    pub(super) has_ended: bool,
    /// The commands that came to a good end, by their numbers.
    pub(super) reached: BTreeSet<u16>,
    /// How many bytes of replies are owed.
    pub(super) owed_bytes: usize,
    stream: Vec<u8>,
    owed: VecDeque<Owed>,
}

impl Known {
    /// Whether the last message is whole.
    pub(super) fn is_whole(&self) -> bool {
        self.stream.is_empty()
    }

    pub(super) fn is_owed(&self) -> bool {
        !self.owed.is_empty()
    }

    /// These bytes go to the client, after all that went before.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        let mut stream = std::mem::take(&mut self.stream);
        stream.extend_from_slice(bytes);
        let mut rest = &stream[..];
        while !self.has_ended {
            match cut(rest) {
                Ok(Cut::Incomplete) => break,
                Ok(Cut::Whole(frame)) => {
                    rest = &rest[frame.len_bytes()..];
                    match frame.kind {
                        Kind::Command => self.command(&frame),
                        Kind::Reply => self.reply(&frame),
                    }
                }
                Err(_) => self.has_ended = true,
            }
        }
        self.stream = rest.to_vec();
    }

    fn reply(&mut self, frame: &Frame<'_>) {
        let name = (
            frame.header.message_id.get(),
            Command::from_raw(frame.header.command.get()),
        );
        match self.outstanding.take() {
            Some((id, command)) if name == (id, Some(command)) => {
                let outcome = frame.header.outcome();
                self.answer = Some(outcome.map(|()| frame.payload.to_vec()));
            }
            _ => self.has_ended = true,
        }
    }

    /// The client owes a reply, if one is wanted.
    pub(super) fn owe(&mut self, to: Header, reply: Reply) {
        if to.reply_wanted() == ReplyWanted::Yes {
            if let Reply::Done(payload) = &reply {
                self.owed_bytes += payload.len();
            }
            self.owed.push_back(Owed { to, reply });
        }
    }

    fn command(&mut self, frame: &Frame<'_>) {
        let command = Command::from_raw(frame.header.command.get());
        let reply = match (command, self.agreed) {
            (Some(Command::DmaWrite), _) => self.write_memory(frame.payload),
            (Some(command), Some(agreed))
                if Command::EXTENSION
                    .get(..4)
                    .is_some_and(|them| them.contains(&command)) =>
            {
                let nobody_cares = frame.header.reply_wanted() == ReplyWanted::No;
                if nobody_cares && command != Command::PasidDmaWrite {
                    return;
                }
                match self.question(command, frame, &agreed) {
                    Ok(Some(reply)) => Ok(reply),
                    Ok(None) => return,
                    Err(errno) => Err(errno),
                }
            }
            _ => Err(Errno::NOTSUP),
        };
        self.owe(frame.header, reply.unwrap_or_else(Reply::Refused));
    }

    fn write_memory(&mut self, payload: &[u8]) -> Result<Reply, Errno> {
        match DmaAccess::read_from_prefix(payload) {
            Ok((access, data)) if access.count.get() == data.len() as u64 => {
                self.writes += 1;
                Ok(Reply::Done(access.as_bytes().to_vec()))
            }
            _ => Err(Errno::INVAL),
        }
    }

    /// `None` where the answer comes late.
    fn question(
        &mut self,
        command: Command,
        frame: &Frame<'_>,
        agreed: &PasidCapability,
    ) -> Result<Option<Reply>, Errno> {
        match command {
            Command::PasidDmaRead | Command::PasidDmaWrite => {
                self.access(command, frame.payload, agreed).map(Some)
            }
            Command::PasidTranslate => self.translate(frame, agreed).map(Some),
            _ => self.pages(frame, agreed),
        }
    }

    /// The handler is asked.
    fn call(&mut self, command: Command, tag: Tag, at: u64, count: u64) -> Result<(), Errno> {
        self.calls.push_back(Call {
            command,
            tag,
            at,
            count,
        });
        outcome(tag, at)
    }

    fn access(
        &mut self,
        command: Command,
        payload: &[u8],
        agreed: &PasidCapability,
    ) -> Result<Reply, Errno> {
        let (access, data) = TaggedAccess::read_from_prefix(payload).map_err(|_| Errno::INVAL)?;
        let tag = Tag::from_raw(access.pasid, access.access, agreed.width)?;
        let (at, count) = (access.address.get(), access.count.get());
        let is_write = command == Command::PasidDmaWrite;
        let (bits, data_bytes) = if is_write {
            (Access::READ | Access::WRITE | Access::EXECUTE, count)
        } else {
            (Access::READ | Access::WRITE, 0)
        };
        let wanted = if is_write {
            Access::WRITE
        } else {
            Access::READ
        };
        let end = u128::from(at) + u128::from(count);
        if tag.access & bits != wanted
            || data.len() as u64 != data_bytes
            || !(1..=u64::from(MAX_DATA_BYTES)).contains(&count)
            || end > 1 << 64
        {
            return Err(Errno::INVAL);
        }
        self.call(command, tag, at, count)?;
        let mut answer = access.as_bytes().to_vec();
        if !is_write {
            answer.extend((at..at.saturating_add(count)).map(byte_at));
        }
        Ok(Reply::Done(answer))
    }

    fn translate(&mut self, frame: &Frame<'_>, agreed: &PasidCapability) -> Result<Reply, Errno> {
        if agreed.max_invalidations == 0 {
            return Err(Errno::NOTSUP);
        }
        let wanted = Wanted::parse(frame.payload, agreed.width)?;
        let at = wanted.at.get();
        self.call(Command::PasidTranslate, wanted.tag, at, wanted.len_bytes)?;
        if wanted.tag.pasid.is_some_and(|it| it.get() == CONFUSED) {
            // The handler's mistake.
            return Err(Errno::IO);
        }
        Ok(Reply::Ranges(Question {
            header: frame.header,
            command: Command::PasidTranslate,
            payload: frame.payload.to_vec(),
        }))
    }

    fn pages(
        &mut self,
        frame: &Frame<'_>,
        agreed: &PasidCapability,
    ) -> Result<Option<Reply>, Errno> {
        if agreed.max_page_groups == 0 {
            return Err(Errno::NOTSUP);
        }
        let request = PageRequest::parse(frame.payload, agreed.width)?;
        if self.groups.contains_key(&request.group) {
            return Err(Errno::EXIST);
        }
        if self.groups.len() >= agreed.max_page_groups.into() {
            return Err(Errno::BUSY);
        }
        match answer_to(request.group) {
            PageAnswer::Later => {
                self.groups.insert(request.group, frame.header);
                Ok(None)
            }
            PageAnswer::Now(response) => {
                let answer = PageRequest::answer(request.group, response);
                Ok(Some(Reply::Done(answer.as_bytes().to_vec())))
            }
        }
    }

    /// Our client has sent this.
    pub(super) fn take(&mut self, message: Message) {
        if message.kind == Kind::Command {
            self.came.push(message);
            return;
        }
        let header = message.header;
        let owed = self.owed.pop_front().expect("a reply that is owed");
        self.owed_bytes = self.owed_bytes.saturating_sub(message.payload.len());
        let name = (header.message_id.get(), header.command.get());
        assert_eq!(name, (owed.to.message_id.get(), owed.to.command.get()));
        if header.outcome().is_err() {
            assert!(message.payload.is_empty(), "a refusal with a payload");
        }
        match owed.reply {
            Reply::Done(payload) => {
                assert_eq!(header.outcome(), Ok(()), "{name:x?}");
                assert_eq!(message.payload, payload, "{name:x?}");
                self.reached.insert(name.1);
            }
            Reply::Ranges(question) => {
                assert_eq!(header.outcome(), Ok(()), "{name:x?}");
                let answer = question.answer(&message.payload);
                assert!(answer.is_some(), "an answer that does not fit");
                self.reached.insert(name.1);
            }
            Reply::Refused(errno) => {
                assert_eq!(header.outcome(), Err(errno), "{name:x?}");
            }
        }
    }
}
