//! The client's side: for drivers, tests and benches.

mod beside;
mod error;
mod link;
mod migration;
mod pasids;
mod requests;

use std::{os::unix::net::UnixStream, path::Path};

use palisade_units::Gpa;
use zerocopy::{FromBytes, IntoBytes};

pub use error::ClientError;
pub use pasids::{ContainerReply, PageAnswer, PasidHandler};
pub use requests::{IrqIndex, IrqInfo, RegionInfo};

use crate::{
    Region,
    wire::{
        Capabilities, Command, Header, MAX_DATA_BYTES, RegionAccess, ReplyWanted, Version,
        pasid::PasidCapability,
    },
};
use link::Link;
use pasids::Answering;

/// What the server said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// The minor version that is spoken; the major one is 0.
    pub minor: u16,
    /// Its limits.
    pub capabilities: Capabilities,
}

/// A read that was queued and not yet taken.
#[derive(Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct Ticket {
    sequence: u64,
    offset_bytes: u64,
    region: u32,
    len_bytes: u32,
}

/// A write of the server into the client's memory, a message-signalled interrupt for example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaWrite<'a> {
    /// Where.
    pub at: Gpa,
    /// What.
    pub data: &'a [u8],
}

/// A connection to a vfio-user server that keeps many messages under way.
///
/// Posted writes and queued reads are collected and go out together, at [`Self::flush`], with the next call that
/// waits, or when many have come together. The server does messages in their order, so a read sees all that was
/// posted before it. The server's writes into memory are answered and kept for [`Self::poll_messages`].
/// While it sends, the client takes what comes in, so that two full sockets do not wait for each other.
#[derive(Debug)]
pub struct Client {
    link: Link,
    server: ServerInfo,
}

impl Client {
    /// Connects to the server's socket and negotiates.
    ///
    /// # Errors
    /// [`ClientError`] where nobody listens there or the server speaks something else.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        Self::from_stream(UnixStream::connect(path)?)
    }

    /// Negotiates over a connected socket.
    ///
    /// # Errors
    /// [`ClientError`] where the server speaks something else.
    pub fn from_stream(stream: UnixStream) -> Result<Self, ClientError> {
        let (mut client, _) = Self::negotiate(stream, None)?;
        client.link.take_messages()?;
        Ok(client)
    }

    /// Negotiates over a connected socket, and proposes the extension by which PASIDs cross it
    /// ([`crate::wire::pasid`]). Where the server does not agree, the client speaks the plain protocol, and `handler` is
    /// not called: [`Self::pasids`] tells.
    ///
    /// # Errors
    /// As [`Self::from_stream`]; [`ClientError::BeyondProposal`].
    pub fn with_pasids(
        stream: UnixStream,
        proposal: PasidCapability,
        handler: Box<dyn PasidHandler>,
    ) -> Result<Self, ClientError> {
        let (mut client, agreed) = Self::negotiate(stream, Some(proposal))?;
        if let Some(agreed) = agreed {
            client.link.answer_with(Answering::new(agreed, handler));
        }
        client.link.take_messages()?;
        Ok(client)
    }

    fn negotiate(
        stream: UnixStream,
        proposal: Option<PasidCapability>,
    ) -> Result<(Self, Option<PasidCapability>), ClientError> {
        let mut link = Link::new(stream);
        let version = Version {
            major: 0.into(),
            minor: 0.into(),
        };
        let text = Capabilities::own(1 << 16).text_with(proposal.as_ref());
        let answer = link.request(Command::Version, &[version.as_bytes(), &text], &[])?;
        let (version, text) = Version::read_from_prefix(&answer[..])
            .map_err(|_| ClientError::Answer(Command::Version))?;
        if version.major.get() != 0 {
            return Err(ClientError::Version(
                version.major.get(),
                version.minor.get(),
            ));
        }
        let server = ServerInfo {
            minor: version.minor.get(),
            capabilities: Capabilities::parse(text)?,
        };
        let agreed = match proposal {
            Some(proposal) => {
                let agreed = PasidCapability::parse_answer(text)?;
                if agreed.is_some_and(|agreed| !agreed.is_within(&proposal)) {
                    return Err(ClientError::BeyondProposal);
                }
                agreed
            }
            None => None,
        };
        Ok((Self { link, server }, agreed))
    }

    /// What the server said of itself.
    #[must_use]
    pub fn server(&self) -> ServerInfo {
        self.server
    }

    /// Reads a region and waits for the data.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the server's errno; any other error ends the connection.
    pub fn region_read(
        &mut self,
        region: Region,
        offset_bytes: u64,
        into: &mut [u8],
    ) -> Result<(), ClientError> {
        let ticket = self.queue_read(region, offset_bytes, into.len())?;
        self.take_into(ticket, into)
    }

    /// Writes a region and waits for the server to have done it.
    ///
    /// # Errors
    /// As [`Self::region_read`].
    pub fn region_write(
        &mut self,
        region: Region,
        offset_bytes: u64,
        data: &[u8],
    ) -> Result<(), ClientError> {
        let access = self.access(region, offset_bytes, data.len())?;
        let answer = self
            .link
            .request(Command::RegionWrite, &[access.as_bytes(), data], &[])?;
        if answer != access.as_bytes() {
            return Err(ClientError::Answer(Command::RegionWrite));
        }
        Ok(())
    }

    /// Queues a write that the server does not answer, not even when it refuses it.
    ///
    /// # Errors
    /// Where the connection ends when much had come together and was sent.
    pub fn post_write(
        &mut self,
        region: Region,
        offset_bytes: u64,
        data: &[u8],
    ) -> Result<(), ClientError> {
        let access = self.access(region, offset_bytes, data.len())?;
        let header = Header::command(0, Command::RegionWrite, ReplyWanted::No);
        self.link.post(header, &[access.as_bytes(), data])
    }

    /// Queues a read. Answers that nobody takes are kept until the client goes.
    ///
    /// # Errors
    /// As [`Self::post_write`], and [`ClientError::TooManyOutstanding`].
    pub fn queue_read(
        &mut self,
        region: Region,
        offset_bytes: u64,
        len_bytes: usize,
    ) -> Result<Ticket, ClientError> {
        let access = self.access(region, offset_bytes, len_bytes)?;
        let sequence = self
            .link
            .queue(Command::RegionRead, &[access.as_bytes()], &[])?;
        Ok(Ticket {
            sequence,
            offset_bytes,
            region: region.index(),
            len_bytes: access.count.get(),
        })
    }

    /// Sends all that is queued.
    ///
    /// # Errors
    /// Where the connection ends.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        self.link.flush()
    }

    /// Waits for the data of a queued read.
    ///
    /// # Errors
    /// As [`Self::region_read`].
    pub fn take(&mut self, ticket: Ticket) -> Result<Vec<u8>, ClientError> {
        let mut data = self.answer_to(ticket)?;
        data.drain(..RegionAccess::BYTES);
        Ok(data)
    }

    /// Waits for the data of a queued read and copies it.
    ///
    /// # Errors
    /// As [`Self::region_read`]; [`ClientError::Length`] where `into` is not as long as what was asked
    /// for.
    pub fn take_into(&mut self, ticket: Ticket, into: &mut [u8]) -> Result<(), ClientError> {
        let answer = self.answer_to(ticket)?;
        let data = &answer[RegionAccess::BYTES..];
        if into.len() != data.len() {
            return Err(ClientError::Length(into.len()));
        }
        into.copy_from_slice(data);
        Ok(())
    }

    /// Takes in what has come, without waiting, and hands out the server's writes into memory, oldest
    /// first. Returns how many there were.
    ///
    /// # Errors
    /// Where the connection ends. What came before is handed out first.
    pub fn poll_messages(
        &mut self,
        mut each: impl FnMut(DmaWrite<'_>),
    ) -> Result<usize, ClientError> {
        let polled = self.link.poll();
        let mut count = 0;
        while let Some((at, data)) = self.link.next_write() {
            each(DmaWrite { at, data: &data });
            count += 1;
        }
        polled.map(|()| count)
    }

    /// Sleeps until something comes from the server, or the time is over; at once where writes of the
    /// server are waiting to be taken.
    ///
    /// # Errors
    /// Where the connection ends.
    pub fn wait_messages(&mut self, timeout: std::time::Duration) -> Result<(), ClientError> {
        self.link.wait_incoming(timeout)
    }

    /// The whole answer, checked to be one to this very read.
    fn answer_to(&mut self, ticket: Ticket) -> Result<Vec<u8>, ClientError> {
        let answer = self.link.wait(ticket.sequence)?;
        let fits = RegionAccess::read_from_prefix(&answer[..]).is_ok_and(|(access, data)| {
            access.offset_bytes.get() == ticket.offset_bytes
                && access.region.get() == ticket.region
                && access.count.get() == ticket.len_bytes
                && data.len() == ticket.len_bytes as usize
        });
        if fits {
            Ok(answer)
        } else {
            Err(ClientError::Answer(Command::RegionRead))
        }
    }

    fn access(
        &self,
        region: Region,
        offset_bytes: u64,
        len_bytes: usize,
    ) -> Result<RegionAccess, ClientError> {
        let limit = self
            .server
            .capabilities
            .max_data_bytes
            .min(MAX_DATA_BYTES.into());
        match u32::try_from(len_bytes) {
            Ok(count) if count > 0 && u64::from(count) <= limit => Ok(RegionAccess {
                offset_bytes: offset_bytes.into(),
                region: region.index().into(),
                count: count.into(),
            }),
            _ => Err(ClientError::Length(len_bytes)),
        }
    }
}
