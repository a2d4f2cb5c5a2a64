use std::{
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, ThreadId},
};

use palisade_units::Gpa;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::Errno,
};
use zerocopy::IntoBytes;

pub(crate) use super::queue::Sent;
use super::{
    pasids::{AskError, LateCounts, NotAnAnswer},
    queue::{Flusher, Queue, State},
};
use crate::wire::{
    Command, DmaAccess, Frame, Header, MAX_DATA_BYTES, ReplyWanted, pasid::PasidCapability,
    push_frame,
};

/// How much may wait for a peer that does not read, beyond what its socket holds.
const MAX_WAITING_BYTES: usize = 1 << 20;

/// The connection has ended, or its peer does not read what it is sent and is being dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer is gone: nothing can be written to its memory any more")]
pub struct PeerGone;

/// What a connection's thread and the holders of its [`PeerHandle`]s share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) socket: UnixStream,
    /// Readable when the thread shall look at [`Self::is_stopped`] and [`Self::is_overrun`].
    pub(crate) wake: OwnedFd,
    stopped: AtomicBool,
    unanswered: AtomicU64,
    /// The thread that takes in answers.
    own_thread: OnceLock<ThreadId>,
    /// How many invalidations of translations have come.
    epoch: AtomicU64,
    pub(super) late: LateCounts,
    queue: Mutex<Queue>,
}

impl Shared {
    pub(crate) fn new(socket: UnixStream) -> std::io::Result<Self> {
        Ok(Self {
            socket,
            wake: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            stopped: AtomicBool::new(false),
            unanswered: AtomicU64::new(0),
            own_thread: OnceLock::new(),
            epoch: AtomicU64::new(0),
            late: LateCounts::default(),
            queue: Mutex::new(Queue::new()),
        })
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// The peer let more wait than it may.
    pub(crate) fn is_overrun(&self) -> bool {
        self.lock().state == State::Overrun
    }

    /// Sends what waits, then `messages`; leaves `messages` empty.
    pub(crate) fn send(&self, messages: &mut Vec<u8>) -> Result<Sent, Errno> {
        self.lock().send(&self.socket, messages)
    }

    /// Sends the answer to the version. Behind it requests to the peer are sent, in pieces of at most `max_data_bytes`,
    /// and those of the extension where it was agreed to. Who has the answer finds all this done.
    pub(crate) fn open(
        &self,
        answer: &mut Vec<u8>,
        max_data_bytes: u64,
        extension: Option<PasidCapability>,
    ) -> Result<(), Errno> {
        let mut queue = self.lock();
        queue.send(&self.socket, answer)?;
        queue.asked.agree(extension);
        if queue.state == State::Negotiating {
            queue.state = State::Open;
            let held = std::mem::take(&mut queue.held);
            queue.push(&held);
        }
        let bytes = usize::try_from(max_data_bytes).unwrap_or(usize::MAX);
        queue.max_data_bytes = bytes.clamp(1, MAX_DATA_BYTES as usize);
        Ok(())
    }

    pub(crate) fn close(&self) {
        let mut queue = self.lock();
        queue.state = State::Closed;
        queue.pieces.clear();
        queue.held = Vec::new();
        queue.waiting_bytes = 0;
        queue.asked.clear();
    }

    /// The calling thread is the one that takes in answers.
    pub(crate) fn own_thread_is_this(&self) {
        let _ = self.own_thread.set(thread::current().id());
    }

    pub(super) fn is_own_thread(&self) -> bool {
        self.own_thread.get() == Some(&thread::current().id())
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Answers from before are not to be kept any more.
    pub(super) fn next_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Notes the peer's answer to one of our requests; `false` where none is due.
    pub(crate) fn take_answer(&self, frame: &Frame<'_>) -> Result<bool, NotAnAnswer> {
        let command = Command::from_raw(frame.header.command.get());
        if let Some(command) = command.filter(|command| command.is_of_extension()) {
            let id = frame.header.message_id.get();
            let Some(on_answer) = self.lock().asked.take(id, command) else {
                return Ok(false);
            };
            let outcome = frame.header.outcome().map(|()| frame.payload);
            return on_answer(outcome, self.epoch()).map(|()| true);
        }
        Ok(self.take_plain_answer())
    }

    fn take_plain_answer(&self) -> bool {
        let less_one = |n: u64| n.checked_sub(1);
        self.unanswered
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less_one)
            .is_ok()
    }

    /// Sends a command of the extension. A peer that does not read makes the asker wait, and keeps its connection.
    pub(super) fn send_question(
        self: &Arc<Self>,
        queue: &mut Queue,
        id: u16,
        command: Command,
        parts: &[&[u8]],
    ) -> Result<(), AskError> {
        if queue.state != State::Open {
            return Err(PeerGone.into());
        }
        let mut message = Vec::new();
        let header = Header::command(id, command, ReplyWanted::Yes);
        push_frame(&mut message, header, parts);
        if queue.waiting_bytes + message.len() > MAX_WAITING_BYTES {
            return Err(AskError::Busy);
        }
        queue.message_id = id;
        self.transmit(queue, message).map_err(AskError::Gone)
    }

    /// Sends a reply from whatever thread, with its descriptors.
    pub(super) fn send_late(
        self: &Arc<Self>,
        message: Vec<u8>,
        descriptors: Vec<Arc<OwnedFd>>,
    ) -> Result<(), PeerGone> {
        let mut queue = self.lock();
        if queue.state != State::Open {
            return Err(PeerGone);
        }
        if queue.waiting_bytes + message.len() > MAX_WAITING_BYTES {
            return Err(self.overrun(&mut queue));
        }
        if descriptors.is_empty() {
            return self.transmit(&mut queue, message);
        }
        let sent = queue.transmit_beside(&self.socket, message, descriptors);
        self.send_the_rest(&mut queue, sent)
    }

    /// An error shows up in the connection's own thread as well, which ends it.
    fn transmit(self: &Arc<Self>, queue: &mut Queue, messages: Vec<u8>) -> Result<(), PeerGone> {
        let sent = queue.transmit(&self.socket, messages);
        self.send_the_rest(queue, sent)
    }

    /// Has what waits sent by somebody: the connection's thread may sleep until its peer sends something.
    fn send_the_rest(
        self: &Arc<Self>,
        queue: &mut Queue,
        sent: Result<Sent, Errno>,
    ) -> Result<(), PeerGone> {
        if sent.map_err(|_| PeerGone)? == Sent::Waiting && queue.flusher == Flusher::None {
            self.flush_later(queue)?;
        }
        Ok(())
    }

    fn flush_later(self: &Arc<Self>, queue: &mut Queue) -> Result<(), PeerGone> {
        let shared = Arc::clone(self);
        let started = thread::Builder::new()
            .name("flush".to_owned())
            .spawn(move || shared.flush_all());
        if started.is_err() {
            // The host has no threads left. The peer can connect anew.
            return Err(self.overrun(queue));
        }
        queue.flusher = Flusher::AtWork;
        Ok(())
    }

    fn overrun(&self, queue: &mut Queue) -> PeerGone {
        queue.state = State::Overrun;
        self.wake();
        PeerGone
    }

    /// Wakes the connection's thread for the last time: it sleeps until something comes, or until the peer reads.
    fn wake(&self) {
        // Full means that a wake-up is due already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        // Fails only where the peer was faster.
        let _ = self.socket.shutdown(Shutdown::Read);
    }

    /// Sends what waits as the peer reads, until nothing does.
    fn flush_all(&self) {
        loop {
            let mut fds = [PollFd::new(&self.socket, PollFlags::OUT)];
            let polled = poll(&mut fds, None);
            let mut queue = self.lock();
            match (polled, queue.flush(&self.socket)) {
                (Ok(_) | Err(Errno::INTR), Ok(Sent::Waiting)) => {}
                (_, Ok(Sent::All)) => {
                    queue.flusher = Flusher::None;
                    return;
                }
                // The peer takes nothing any more, which nobody else may ever see: the connection's thread sleeps until
                // something comes.
                _ => {
                    queue.flusher = Flusher::None;
                    let PeerGone = self.overrun(&mut queue);
                    return;
                }
            }
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reaches the peer of a connection from any thread. Outlives the connection harmlessly.
#[derive(Clone, Debug)]
pub struct PeerHandle {
    pub(crate) shared: Arc<Shared>,
}

impl PeerHandle {
    /// Asks the peer to write `data` into its memory at `at` (VFIO_USER_DMA_WRITE), which is also how
    /// a message-signalled interrupt reaches a VMM. Never waits: what the socket does not take is
    /// queued and sent as the peer reads. Writes of one handle keep their order. The peer's
    /// answer is taken note of and not reported.
    ///
    /// # Errors
    /// [`PeerGone`] once the connection has ended, and when more than a mebibyte waits: a peer that
    /// does not read loses its connection.
    pub fn write_memory(&self, at: Gpa, data: &[u8]) -> Result<(), PeerGone> {
        let mut queue = self.shared.lock();
        if matches!(queue.state, State::Overrun | State::Closed) {
            return Err(PeerGone);
        }
        let mut messages = Vec::with_capacity(48);
        let mut address = at;
        for part in data.chunks(queue.max_data_bytes) {
            queue.message_id = queue.message_id.wrapping_add(1);
            let part_bytes = part.len() as u64;
            let access = DmaAccess {
                address: address.get().into(),
                count: part_bytes.into(),
            };
            let header = Header::command(queue.message_id, Command::DmaWrite, ReplyWanted::Yes);
            push_frame(&mut messages, header, &[access.as_bytes(), part]);
            self.shared.unanswered.fetch_add(1, Ordering::Relaxed);
            address = address.checked_add(part_bytes).unwrap_or(address);
        }
        if queue.held.len() + queue.waiting_bytes + messages.len() > MAX_WAITING_BYTES {
            return Err(self.shared.overrun(&mut queue));
        }
        if queue.state == State::Negotiating {
            queue.held.append(&mut messages);
            return Ok(());
        }
        self.shared.transmit(&mut queue, messages)
    }

    /// Ends the connection: its [`super::Connection::run`] returns soon.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Release);
        self.shared.wake();
    }
}
