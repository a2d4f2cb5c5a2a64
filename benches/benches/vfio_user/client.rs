use std::{
    io::{IoSlice, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
};

use anyhow::{Context, Result, bail, ensure};
use palisade_vfio_user::wire::{
    Capabilities, Command, Cut, DmaMap, DmaUnmap, HEADER_BYTES, Header, RegionAccess, ReplyWanted,
    Version, cut, push_frame,
};
use rustix::{
    io::Errno,
    net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg},
};
use zerocopy::IntoBytes;

/// How many bytes the reply to a read of a register has, and how many that to a write.
const READ_REPLY_BYTES: usize = HEADER_BYTES + RegionAccess::BYTES + 8;
const WRITE_REPLY_BYTES: usize = HEADER_BYTES + RegionAccess::BYTES;

/// Sends bytes and takes bytes: the least that a client can be, so that servers are
/// compared. Messages are built before the clock starts wherever one is sent again.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    replies: Vec<u8>,
    until_reply: UntilReply,
}

/// What the client does until a reply is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UntilReply {
    Sleeps,
    /// Asks again and again.
    Polls,
}

fn access(at: u64) -> RegionAccess {
    RegionAccess {
        offset_bytes: at.into(),
        region: 0.into(),
        count: 8.into(),
    }
}

/// A request for a register.
pub(crate) fn read_of(out: &mut Vec<u8>, id: u16, at: u64) {
    let header = Header::command(id, Command::RegionRead, ReplyWanted::Yes);
    push_frame(out, header, &[access(at).as_bytes()]);
}

/// A write to a register.
pub(crate) fn write_of(out: &mut Vec<u8>, id: u16, reply: ReplyWanted, at: u64, value: u64) {
    let header = Header::command(id, Command::RegionWrite, reply);
    push_frame(out, header, &[access(at).as_bytes(), &value.to_ne_bytes()]);
}

impl Client {
    /// Agrees on the version with a server.
    pub(crate) fn new(stream: UnixStream) -> Result<Self> {
        let mut client = Self {
            stream,
            replies: Vec::new(),
            until_reply: UntilReply::Sleeps,
        };
        let version = Version {
            major: 0.into(),
            minor: 0.into(),
        };
        let mut out = Vec::new();
        let header = Header::command(0, Command::Version, ReplyWanted::Yes);
        let text = Capabilities::own(8).text();
        push_frame(&mut out, header, &[version.as_bytes(), &text]);
        client.stream.write_all(&out)?;
        let mut header = [0; HEADER_BYTES];
        client.stream.read_exact(&mut header)?;
        let size = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
        let rest = usize::try_from(size)?.checked_sub(HEADER_BYTES);
        let mut rest = vec![0; rest.context("a reply without a header")?];
        client.stream.read_exact(&mut rest)?;
        Ok(client)
    }

    /// Sends messages whose replies nobody wants.
    pub(crate) fn post(&mut self, messages: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(messages)?)
    }

    /// Sends messages and waits for all of their replies, which have so many bytes.
    fn exchange(&mut self, messages: &[u8], reply_bytes: usize) -> Result<()> {
        self.stream.write_all(messages)?;
        self.receive(reply_bytes)
    }

    fn receive(&mut self, reply_bytes: usize) -> Result<()> {
        self.replies.resize(reply_bytes, 0);
        if self.until_reply == UntilReply::Sleeps {
            self.stream.read_exact(&mut self.replies)?;
            return Ok(());
        }
        let mut rest = &mut self.replies[..];
        while !rest.is_empty() {
            match recv(&self.stream, &mut *rest, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => bail!("the server has gone"),
                Ok((_, len)) => rest = rest.get_mut(len..).unwrap_or_default(),
                Err(Errno::AGAIN) => std::hint::spin_loop(),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// From now on does this until a reply is there.
    pub(crate) fn until_reply(&mut self, until_reply: UntilReply) {
        self.until_reply = until_reply;
    }

    /// Sends reads of registers that [`read_of`] made, and waits for their replies.
    pub(crate) fn read(&mut self, messages: &[u8], count: usize) -> Result<()> {
        self.exchange(messages, count * READ_REPLY_BYTES)
    }

    /// Sends writes of registers that [`write_of`] made, and waits for their replies.
    pub(crate) fn write(&mut self, messages: &[u8], count: usize) -> Result<()> {
        self.exchange(messages, count * WRITE_REPLY_BYTES)
    }

    /// What a register holds.
    pub(crate) fn value_at(&mut self, at: u64) -> Result<u64> {
        let mut message = Vec::new();
        read_of(&mut message, 1, at);
        self.read(&message, 1)?;
        self.last_value()
    }

    /// What the last reply to a read says.
    pub(crate) fn last_value(&self) -> Result<u64> {
        let value = self.replies.last_chunk().context("no reply")?;
        Ok(u64::from_ne_bytes(*value))
    }

    /// Maps a range and takes it back.
    pub(crate) fn map_and_unmap(&mut self, at: u64, len: u64, fd: BorrowedFd<'_>) -> Result<()> {
        const READ_AND_WRITE: u32 = 3;
        let map = DmaMap {
            argsz: DmaMap::ARGSZ.into(),
            flags: READ_AND_WRITE.into(),
            offset_bytes: 0.into(),
            address: at.into(),
            len_bytes: len.into(),
        };
        let mut message = Vec::new();
        let header = Header::command(2, Command::DmaMap, ReplyWanted::Yes);
        push_frame(&mut message, header, &[map.as_bytes()]);
        let fds = [fd];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        ensure!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let io = [IoSlice::new(&message)];
        let sent = sendmsg(self.stream.as_fd(), &io, &mut control, SendFlags::NOSIGNAL)?;
        ensure!(sent == message.len(), "a part of a message was sent");
        self.receive(HEADER_BYTES)?;
        self.all_done(1)?;

        let unmap = DmaUnmap {
            argsz: DmaUnmap::ARGSZ.into(),
            flags: 0.into(),
            address: at.into(),
            len_bytes: len.into(),
        };
        message.clear();
        let header = Header::command(3, Command::DmaUnmap, ReplyWanted::Yes);
        push_frame(&mut message, header, &[unmap.as_bytes()]);
        self.exchange(&message, HEADER_BYTES + DmaUnmap::BYTES)?;
        self.all_done(1)
    }

    /// Whether the last replies are so many, and none is a refusal.
    pub(crate) fn all_done(&self, count: usize) -> Result<()> {
        let mut rest = &self.replies[..];
        for _ in 0..count {
            let Cut::Whole(frame) = cut(rest)? else {
                bail!("a reply is shorter than it says");
            };
            frame.header.outcome()?;
            rest = rest.get(frame.len_bytes()..).unwrap_or_default();
        }
        ensure!(rest.is_empty(), "more replies than requests");
        Ok(())
    }
}
