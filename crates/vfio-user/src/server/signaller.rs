//! Raising a peer's interrupts where nobody else has to wait for it.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use palisade_pci::Interrupt;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{OFlags, fcntl_getfl, fcntl_setfl, readlink},
    io::Errno,
};

/// How many interrupts may wait. Each vector waits once, whatever number of times it fires; more can
/// only be of vectors that the peer has replaced since.
const WAITING_MAX: usize = 4096;
/// How long a signaller that its peer holds up is tried to be freed.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many signallers may be left behind, held up by their peers, before no peer gets another one.
const STUCK_MAX: usize = 16;

/// Signallers that were left behind and may still be held up.
static STUCK: AtomicUsize = AtomicUsize::new(0);

/// An eventfd of the peer.
///
/// The peer shares the open file: it can set the counter to its end and make the file blocking again at
/// any moment, so a write may wait until the peer wants it to end. Nobody writes but the connection's
/// [`Signaller`], a thread that nothing else depends on.
pub(crate) struct EventFd {
    fd: OwnedFd,
    waiting: AtomicBool,
    line: Arc<Line>,
}

impl EventFd {
    /// Takes an eventfd and nothing else: writing to a pipe or a file would have other effects.
    pub(crate) fn new(fd: OwnedFd, signaller: &Signaller) -> Result<Self, Errno> {
        use std::os::fd::AsRawFd;
        let name = readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new())
            .map_err(|_| Errno::BADF)?;
        if name.as_bytes() != b"anon_inode:[eventfd]" {
            return Err(Errno::INVAL);
        }
        let line = Arc::clone(&signaller.line);
        let eventfd = Self {
            fd,
            waiting: AtomicBool::new(false),
            line,
        };
        eventfd.unblock()?;
        Ok(eventfd)
    }

    fn unblock(&self) -> Result<(), Errno> {
        let flags = fcntl_getfl(&self.fd)?;
        if flags.contains(OFlags::NONBLOCK) {
            return Ok(());
        }
        fcntl_setfl(&self.fd, flags | OFlags::NONBLOCK)
    }

    fn write(&self) {
        if self.unblock().is_ok() {
            // A full counter is an interrupt that the peer has not looked at yet.
            let _ = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
        }
    }

    /// Takes what is in the counter, so that a write that waits for room can end.
    fn drain(&self) {
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        if self.unblock().is_ok() && matches!(poll(&mut fds, Some(&at_once)), Ok(1..)) {
            let _ = rustix::io::read(&self.fd, &mut [0; 8]);
        }
    }
}

/// Another handle on an [`EventFd`], to be given to a function.
pub(crate) struct Raise(pub(crate) Arc<EventFd>);

impl Interrupt for Raise {
    fn signal(&self) {
        if !self.0.waiting.swap(true, Ordering::AcqRel) {
            self.0.line.push(Arc::clone(&self.0));
        }
    }
}

/// The interrupts that wait for a signaller.
#[derive(Default)]
struct Line {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Arc<EventFd>>,
    /// What is being written.
    current: Option<Arc<EventFd>>,
    over: bool,
    /// It counts among those that are held up, until it ends.
    is_stuck: bool,
    has_ended: bool,
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, eventfd: Arc<EventFd>) {
        let mut state = self.state();
        if state.over || state.waiting.len() >= WAITING_MAX {
            return;
        }
        state.waiting.push_back(eventfd);
        drop(state);
        self.work.notify_one();
    }

    fn run(&self) {
        let mut state = self.state();
        while !state.over {
            let Some(eventfd) = state.waiting.pop_front() else {
                state = self
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.current = Some(Arc::clone(&eventfd));
            drop(state);
            // What fires from now on needs another write.
            eventfd.waiting.store(false, Ordering::Release);
            eventfd.write();
            state = self.state();
            state.current = None;
        }
        state.has_ended = true;
        if state.is_stuck {
            STUCK.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The thread that raises the interrupts of one connection.
pub(crate) struct Signaller {
    line: Arc<Line>,
    thread: Option<JoinHandle<()>>,
}

impl Signaller {
    /// Starts the thread.
    ///
    /// # Errors
    /// ENOSPC while too many threads are held up by peers that are gone; those of the system.
    pub(crate) fn start() -> Result<Self, Errno> {
        if STUCK.load(Ordering::Relaxed) >= STUCK_MAX {
            return Err(Errno::NOSPC);
        }
        let line = Arc::<Line>::default();
        let thread = thread::Builder::new()
            .name("interrupts".to_owned())
            .spawn({
                let line = Arc::clone(&line);
                move || line.run()
            })
            .map_err(|e: io::Error| Errno::from_io_error(&e).unwrap_or(Errno::AGAIN))?;
        Ok(Self {
            line,
            thread: Some(thread),
        })
    }
}

impl Drop for Signaller {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        let mut state = self.line.state();
        state.over = true;
        state.waiting.clear();
        drop(state);
        self.line.work.notify_one();
        let deadline = Instant::now() + PATIENCE;
        while !thread.is_finished() {
            if Instant::now() > deadline {
                // The peer holds it up on purpose. It holds nothing but its own stack and the descriptor.
                let mut state = self.line.state();
                if !state.has_ended {
                    state.is_stuck = true;
                    STUCK.fetch_add(1, Ordering::Relaxed);
                }
                return;
            }
            let current = self.line.state().current.clone();
            match current {
                Some(eventfd) => eventfd.drain(),
                None => thread::sleep(Duration::from_micros(50)),
            }
        }
        // It did not panic: there is nothing in it that could.
        let _ = thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    /// An eventfd as the peer has it, and as the server has it.
    fn shared(signaller: &Signaller) -> (OwnedFd, Raise) {
        let theirs = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let ours = EventFd::new(theirs.try_clone().unwrap(), signaller).unwrap();
        (theirs, Raise(Arc::new(ours)))
    }

    fn arrives(fd: &OwnedFd) -> bool {
        let limit = Timespec {
            tv_sec: 5,
            tv_nsec: 0,
        };
        matches!(
            poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&limit)),
            Ok(1)
        )
    }

    #[test]
    fn an_interrupt_arrives() {
        let signaller = Signaller::start().unwrap();
        let (theirs, raise) = shared(&signaller);
        for _ in 0..3 {
            raise.signal();
            assert!(arrives(&theirs));
            rustix::io::read(&theirs, &mut [0; 8]).unwrap();
        }
    }

    #[test]
    fn a_full_counter_holds_up_neither_the_device_nor_other_vectors() {
        let signaller = Signaller::start().unwrap();
        let (theirs, raise) = shared(&signaller);
        rustix::io::write(&theirs, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        raise.signal();
        let (other, second) = shared(&signaller);
        second.signal();
        assert!(arrives(&other));
    }

    #[test]
    fn a_write_that_waits_for_room_is_freed() {
        let signaller = Signaller::start().unwrap();
        let (theirs, raise) = shared(&signaller);
        rustix::io::write(&theirs, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        // The peer makes its file blocking between the look at the flag and the write.
        let flags = fcntl_getfl(&theirs).unwrap();
        fcntl_setfl(&theirs, flags - OFlags::NONBLOCK).unwrap();
        let writer = thread::spawn({
            let eventfd = Arc::clone(&raise.0);
            move || rustix::io::write(&eventfd.fd, &1_u64.to_ne_bytes())
        });
        let deadline = Instant::now() + Duration::from_secs(10);
        while !writer.is_finished() && Instant::now() < deadline {
            raise.0.drain();
        }
        assert!(writer.is_finished());
    }

    #[test]
    fn what_is_no_eventfd_is_refused() {
        let signaller = Signaller::start().unwrap();
        let (read_end, _write_end) = rustix::pipe::pipe().unwrap();
        assert_eq!(EventFd::new(read_end, &signaller).err(), Some(Errno::INVAL));
    }
}
