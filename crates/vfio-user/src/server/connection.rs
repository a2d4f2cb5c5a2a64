use std::{io, net::Shutdown, os::unix::net::UnixStream, sync::Arc};

use palisade_pci::Function;
use rustix::io::Errno;

use super::{
    outgoing::{PeerHandle, Sent, Shared},
    pasids::{Extension, NotAnAnswer, PasidOffer},
    receiver::{Received, Receiver},
    session::{Agreed, Session, refuse},
    waiting::{Waiting, wait_for_room},
};
use crate::{
    ClientMemory,
    wire::{BadCapabilities, FrameError, Kind, MAX_DESCRIPTORS},
};

/// Replies are sent together, but not more of them than this at a time: a short request may have a
/// long answer, and the peer must read what it asked for.
const SEND_BYTES: usize = 16 << 10;

/// How a connection ended when nobody did anything wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer closed its end, or died.
    PeerClosed,
    /// [`PeerHandle::stop`] was called.
    Stopped,
}

/// Why a connection was ended.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Socket(Errno),
    /// The peer sent what is no message.
    #[error("the peer does not speak vfio-user: {0}")]
    Frame(#[from] FrameError),
    /// The peer sent more descriptors with one message than it may.
    #[error("more than {MAX_DESCRIPTORS} descriptors with one message: send fewer at a time")]
    TooManyDescriptors,
    /// The peer's first message was not VERSION.
    #[error("command {0} before VERSION: negotiate first")]
    BeforeVersion(u16),
    /// The peer speaks another version.
    #[error("the peer proposes major version {0}: only 0 is spoken here")]
    Version(u16),
    /// The peer's VERSION makes no sense.
    #[error("the peer's VERSION is too short to hold a version")]
    ShortVersion,
    /// The peer's capabilities make no sense.
    #[error(transparent)]
    Capabilities(#[from] BadCapabilities),
    /// The peer answers what nobody asked.
    #[error("a reply to command {0}, which was not sent")]
    UnexpectedReply(u16),
    /// The peer's answer does not fit the question.
    #[error("the answer to command {0:#x} does not fit what was asked")]
    BadAnswer(u16),
    /// The peer does not read what it is sent.
    #[error("the peer does not read: too much waits to be sent to it")]
    PeerDoesNotRead,
}

/// The server's side of one connection, for a thread of its own.
///
/// However [`Self::run`] ends, the vectors that the peer had connected are disconnected, the socket is shut
/// down, and handles of the peer say so from then on. What the peer had mapped is **not** unmapped: the
/// owner of the memory does that, in its own order with unbinding and draining.
pub struct Connection {
    shared: Arc<Shared>,
    receiver: Receiver,
    session: Session,
    offer: Option<PasidOffer>,
    extension: Option<Extension>,
    replies: Vec<u8>,
}

impl Connection {
    /// Serves `function` to the peer at the other end of `stream`, whose memory is announced to
    /// `memory`.
    ///
    /// # Errors
    /// Where the host has no descriptors left.
    pub fn new(
        stream: UnixStream,
        function: Arc<dyn Function>,
        memory: Arc<dyn ClientMemory>,
    ) -> io::Result<Self> {
        // Sending never waits, and receiving does.
        stream.set_nonblocking(false)?;
        Ok(Self {
            shared: Arc::new(Shared::new(stream)?),
            receiver: Receiver::new(),
            session: Session::new(function, memory),
            offer: None,
            extension: None,
            replies: Vec::new(),
        })
    }

    /// Offers the extension by which PASIDs cross the connection ([`crate::wire::pasid`]) to a peer that names it. Any
    /// other peer sees the plain protocol.
    #[must_use]
    pub fn offer_pasids(mut self, offer: PasidOffer) -> Self {
        self.offer = Some(offer);
        self
    }

    /// A handle to reach the peer, or end the connection, from other threads.
    #[must_use]
    pub fn peer(&self) -> PeerHandle {
        PeerHandle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Serves until the peer closes, breaks the protocol, or the connection is stopped.
    ///
    /// # Errors
    /// [`ConnectionError`] where the peer or the socket is at fault. It concerns this connection alone.
    pub fn run(mut self) -> Result<End, ConnectionError> {
        self.shared.own_thread_is_this();
        let end = self.serve();
        if let Err(error) = &end {
            self.tell_why(error);
        }
        match end {
            // It went while something was being sent to it.
            Err(ConnectionError::Socket(Errno::PIPE | Errno::CONNRESET)) => Ok(End::PeerClosed),
            other => other,
        }
    }

    /// Answers the message that ends the connection, where it was a command, so that its sender has an error to
    /// report. Nobody waits for it to be read.
    fn tell_why(&mut self, error: &ConnectionError) {
        if matches!(error, ConnectionError::Frame(_))
            && let Some(header) = self.receiver.misfit()
        {
            refuse(&mut self.replies, &header, Errno::INVAL);
        }
        // Fails only where the peer is gone.
        let _ = self.send();
    }

    fn serve(&mut self) -> Result<End, ConnectionError> {
        let mut waiting = Waiting::new();
        let mut received = Received::Nothing;
        loop {
            let sent = self.handle_received()?;
            if self.shared.is_stopped() {
                return Ok(End::Stopped);
            }
            if self.shared.is_overrun() {
                return Err(ConnectionError::PeerDoesNotRead);
            }
            if received == Received::End {
                return Ok(End::PeerClosed);
            }
            // A peer that has something waiting is not listened to until it reads.
            received = match sent {
                Sent::All => waiting.receive(&self.shared, &mut self.receiver)?,
                Sent::Waiting => {
                    wait_for_room(&self.shared)?;
                    Received::Nothing
                }
            };
        }
    }

    /// Handles whole messages until none is left, the peer must read first, or the connection is stopped: each may
    /// take the function a while, so a stop does not wait for all of them.
    fn handle_received(&mut self) -> Result<Sent, ConnectionError> {
        // What waited from earlier goes first; nothing new is done for a peer that does not read.
        if self.send()? == Sent::Waiting {
            return Ok(Sent::Waiting);
        }
        let shared = Arc::clone(&self.shared);
        let is_stopped = || shared.is_stopped();
        while !is_stopped()
            && let Some((frame, descriptors)) = self.receiver.next()?
        {
            let command = frame.header.command.get();
            match frame.kind {
                Kind::Command => {
                    if let Some(extension) = &mut self.extension
                        && Extension::takes(&frame)
                    {
                        // What was asked before is answered before.
                        self.shared
                            .send(&mut self.replies)
                            .map_err(ConnectionError::Socket)?;
                        extension.handle(&frame, descriptors);
                        if self.send()? == Sent::Waiting {
                            return Ok(Sent::Waiting);
                        }
                        continue;
                    }
                    let (session, replies) = (&mut self.session, &mut self.replies);
                    let offer = self.offer.as_ref();
                    if let Some(agreed) =
                        session.handle(&frame, descriptors, offer, &is_stopped, replies)?
                    {
                        self.open(&agreed)?;
                    }
                }
                Kind::Reply => match self.shared.take_answer(&frame) {
                    Ok(true) => {}
                    Ok(false) => return Err(ConnectionError::UnexpectedReply(command)),
                    Err(NotAnAnswer) => return Err(ConnectionError::BadAnswer(command)),
                },
            }
            if self.replies.len() >= SEND_BYTES && self.send()? == Sent::Waiting {
                return Ok(Sent::Waiting);
            }
        }
        self.send()
    }

    fn open(&mut self, agreed: &Agreed) -> Result<(), ConnectionError> {
        let theirs = &agreed.theirs;
        if let (Some(extension), Some(offer)) = (agreed.extension, &self.offer) {
            let max = theirs.max_descriptors.min(MAX_DESCRIPTORS as u64);
            self.extension = Some(Extension::new(&self.shared, extension, max, offer));
        }
        self.shared
            .open(&mut self.replies, theirs.max_data_bytes, agreed.extension)
            .map_err(ConnectionError::Socket)
    }

    fn send(&mut self) -> Result<Sent, ConnectionError> {
        self.shared
            .send(&mut self.replies)
            .map_err(ConnectionError::Socket)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.close();
        // Fails only where the peer was faster.
        let _ = self.shared.socket.shutdown(Shutdown::Both);
    }
}
