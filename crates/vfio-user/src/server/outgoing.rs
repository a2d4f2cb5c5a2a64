use std::{
    collections::VecDeque,
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use palisade_units::Gpa;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::Errno,
    net::{SendFlags, send},
};
use zerocopy::IntoBytes;

use crate::wire::{Command, DmaAccess, Header, MAX_DATA_BYTES, ReplyWanted, push_frame};

/// How much may wait for a peer that does not read, beyond what its socket holds.
const MAX_WAITING_BYTES: usize = 1 << 20;
/// Messages are queued in pieces of about this size. The kernel takes a piece as a whole or not at
/// all, so that no peer finds half a header in its socket; some give up then.
const PIECE_BYTES: usize = 16 << 10;

/// The connection has ended, or its peer does not read what it is sent and is being dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer is gone: nothing can be written to its memory any more")]
pub struct PeerGone;

/// Who sends what waits, while the connection's thread sleeps until its peer sends something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flusher {
    /// Nobody: nothing waits, or what waits is the thread's own.
    None,
    /// A thread that ends when nothing waits any more.
    AtWork,
}

/// Whether something waits to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Nothing waits.
    All,
    /// The peer must read first.
    Waiting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No version yet: requests to the peer wait, since one before the answer would end some peers.
    Negotiating,
    /// Messages go to the socket, or wait for it.
    Open,
    /// The peer let too much wait.
    Overrun,
    Closed,
}

#[derive(Debug)]
struct Queue {
    state: State,
    /// Requests to the peer from before the version.
    held: Vec<u8>,
    pieces: VecDeque<Vec<u8>>,
    /// How much of the first piece is sent.
    head_sent: usize,
    waiting_bytes: usize,
    flusher: Flusher,
    message_id: u16,
    /// The most that the peer takes in one write.
    max_data_bytes: usize,
}

/// What a connection's thread and the holders of its [`PeerHandle`]s share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) socket: UnixStream,
    /// Readable when the thread shall look at [`Self::is_stopped`] and [`Self::is_overrun`].
    pub(crate) wake: OwnedFd,
    stopped: AtomicBool,
    unanswered: AtomicU64,
    queue: Mutex<Queue>,
}

impl Shared {
    pub(crate) fn new(socket: UnixStream) -> std::io::Result<Self> {
        Ok(Self {
            socket,
            wake: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            stopped: AtomicBool::new(false),
            unanswered: AtomicU64::new(0),
            queue: Mutex::new(Queue {
                state: State::Negotiating,
                held: Vec::new(),
                pieces: VecDeque::new(),
                head_sent: 0,
                waiting_bytes: 0,
                flusher: Flusher::None,
                message_id: 0,
                max_data_bytes: MAX_DATA_BYTES as usize,
            }),
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
        let mut queue = self.lock();
        let mut sent = queue.flush(&self.socket)?;
        if !messages.is_empty() {
            if sent == Sent::All {
                let now = send_some(&self.socket, messages)?;
                if now < messages.len() {
                    queue.push(&messages[now..]);
                    sent = Sent::Waiting;
                }
            } else {
                queue.push(messages);
            }
            messages.clear();
        }
        Ok(sent)
    }

    /// From now on requests to the peer are sent, in pieces of at most `max_data_bytes`.
    pub(crate) fn open(&self, max_data_bytes: u64) {
        let mut queue = self.lock();
        if queue.state == State::Negotiating {
            queue.state = State::Open;
            let held = std::mem::take(&mut queue.held);
            queue.push(&held);
        }
        let bytes = usize::try_from(max_data_bytes).unwrap_or(usize::MAX);
        queue.max_data_bytes = bytes.clamp(1, MAX_DATA_BYTES as usize);
    }

    pub(crate) fn close(&self) {
        let mut queue = self.lock();
        queue.state = State::Closed;
        queue.pieces.clear();
        queue.held = Vec::new();
        queue.waiting_bytes = 0;
    }

    /// Notes the peer's answer to one of our requests; `false` where none is due.
    pub(crate) fn take_answer(&self) -> bool {
        let less_one = |n: u64| n.checked_sub(1);
        self.unanswered
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less_one)
            .is_ok()
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
                // An error shows up in the connection's own thread as well, which ends it.
                _ => {
                    queue.flusher = Flusher::None;
                    return;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn push(&mut self, messages: &[u8]) {
        if messages.is_empty() {
            return;
        }
        self.waiting_bytes += messages.len();
        let first_is_last = self.pieces.len() == 1;
        if let Some(last) = self.pieces.back_mut() {
            let untouched = !first_is_last || self.head_sent == 0;
            if untouched && last.len() + messages.len() <= PIECE_BYTES {
                last.extend_from_slice(messages);
                return;
            }
        }
        self.pieces.push_back(messages.to_vec());
    }

    fn flush(&mut self, socket: &UnixStream) -> Result<Sent, Errno> {
        while let Some(head) = self.pieces.front() {
            let sent = send_some(socket, &head[self.head_sent..])?;
            self.waiting_bytes -= sent;
            self.head_sent += sent;
            if self.head_sent < head.len() {
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
            queue.state = State::Overrun;
            self.shared.wake();
            return Err(PeerGone);
        }
        if queue.state == State::Negotiating {
            queue.held.append(&mut messages);
            return Ok(());
        }
        if queue.pieces.is_empty() {
            // An error shows up in the connection's own thread as well, which ends it.
            let sent = send_some(&self.shared.socket, &messages).map_err(|_| PeerGone)?;
            messages.drain(..sent);
        }
        queue.push(&messages);
        if !queue.pieces.is_empty() && queue.flusher == Flusher::None {
            self.flush_later(&mut queue)?;
        }
        Ok(())
    }

    fn flush_later(&self, queue: &mut Queue) -> Result<(), PeerGone> {
        let shared = Arc::clone(&self.shared);
        let started = thread::Builder::new()
            .name("flush".to_owned())
            .spawn(move || shared.flush_all());
        if started.is_err() {
            // The host has no threads left. The peer can connect anew.
            queue.state = State::Overrun;
            self.shared.wake();
            return Err(PeerGone);
        }
        queue.flusher = Flusher::AtWork;
        Ok(())
    }

    /// Ends the connection: its [`super::Connection::run`] returns soon.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Release);
        self.shared.wake();
    }
}
