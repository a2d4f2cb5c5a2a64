//! Waking a client where nobody else has to wait for it.

use std::fs::read_link;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use palisade_ioasid::Errno;
use palisade_vfio::Bell;
use palisade_vfio::abi::Doorbells;
use palisade_vfio::abi::iommufd::ChannelPair;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{ReadWriteFlags, preadv2};

use crate::channel;

/// How many threads of one VMM may be at work, or be held up by it.
const MAX_THREADS: usize = 16;

/// Rings by the eventfds of one VMM's clients, and makes the files of their queues.
///
/// A client shares the open file: it can set the counter to its end and make the file blocking again at any
/// moment, so a write may wait until the client wants it to end. Nobody writes but a thread of the bell's own, that
/// nothing else depends on; one that is held up holds nothing but its stack and the descriptor, and counts
/// against the VMM until it ends.
#[derive(Clone, Debug, Default)]
pub struct EventFds {
    threads: Arc<AtomicUsize>,
}

impl Doorbells for EventFds {
    fn bell(&self, eventfd: OwnedFd) -> Result<Box<dyn Bell>, Errno> {
        let errno = |errno: rustix::io::Errno| Errno::new(errno.raw_os_error());
        // Writing to a pipe or a file would have other effects.
        let name = read_link(format!("/proc/self/fd/{}", eventfd.as_raw_fd()));
        if name.is_ok_and(|name| name == Path::new("anon_inode:[eventfd]")) {
            let slot = Slot::take(&self.threads).ok_or(errno(rustix::io::Errno::NOSPC))?;
            let line = Arc::new(Line {
                eventfd,
                state: Mutex::default(),
                work: Condvar::new(),
            });
            let theirs = Arc::clone(&line);
            let thread = thread::Builder::new().name("bell".to_owned());
            let started = thread.spawn(move || {
                theirs.run();
                drop(slot);
            });
            started.map_err(|_| errno(rustix::io::Errno::AGAIN))?;
            Ok(Box::new(EventFd(line)))
        } else {
            Err(errno(rustix::io::Errno::INVAL))
        }
    }

    fn channel(&self) -> Result<ChannelPair, Errno> {
        let errno = |errno: rustix::io::Errno| Errno::new(errno.raw_os_error());
        channel::pair().map_err(errno)
    }
}

/// One of the threads that a VMM may have.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(threads: &Arc<AtomicUsize>) -> Option<Self> {
        let more = |count| (count < MAX_THREADS).then_some(count + 1);
        let taken = threads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.ok().map(|_| Self(Arc::clone(threads)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct EventFd(Arc<Line>);

impl Bell for EventFd {
    fn ring(&self) {
        self.0.state().is_due = true;
        self.0.work.notify_one();
    }
}

impl Drop for EventFd {
    fn drop(&mut self) {
        self.0.state().is_over = true;
        self.0.work.notify_one();
        self.0.make_room();
    }
}

/// A client's eventfd, with what its thread is to do.
struct Line {
    eventfd: OwnedFd,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    is_due: bool,
    is_over: bool,
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.state();
        while !state.is_over {
            if !state.is_due {
                let woken = self.work.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            // What rings from now on needs another write.
            state.is_due = false;
            drop(state);
            self.write();
            state = self.state();
        }
    }

    fn write(&self) {
        let Ok(flags) = fcntl_getfl(&self.eventfd) else {
            return;
        };
        if fcntl_setfl(&self.eventfd, flags | OFlags::NONBLOCK).is_ok() {
            // A full counter is a ring that the client has not looked at yet.
            let _ = rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes());
        }
    }

    /// Takes what is in the counter, so that a write that waits for room can end. This does not wait itself,
    /// whatever the client does to the file.
    fn make_room(&self) {
        let mut count = [0; 8];
        let into = &mut [IoSliceMut::new(&mut count)];
        let _ = preadv2(&self.eventfd, into, u64::MAX, ReadWriteFlags::NOWAIT);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

    use super::*;

    fn pair(flags: EventfdFlags) -> (OwnedFd, OwnedFd) {
        let ours = eventfd(0, flags).unwrap();
        let theirs = ours.try_clone().unwrap();
        (ours, theirs)
    }

    fn rings(ours: &OwnedFd) -> u64 {
        let mut fds = [PollFd::new(ours, PollFlags::IN)];
        let timeout = Timespec {
            tv_sec: 20,
            tv_nsec: 0,
        };
        assert_eq!(poll(&mut fds, Some(&timeout)), Ok(1));
        let mut count = [0; 8];
        rustix::io::read(ours, &mut count).unwrap();
        u64::from_ne_bytes(count)
    }

    fn wait_until(condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < deadline, "waited for too long");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_ring_is_to_be_read_from_the_eventfd() {
        let bells = EventFds::default();
        let (ours, theirs) = pair(EventfdFlags::empty());
        let bell = bells.bell(theirs).unwrap();
        for _ in 0..3 {
            bell.ring();
            assert_eq!(rings(&ours), 1);
        }
        drop(bell);
        wait_until(|| bells.threads.load(Ordering::Relaxed) == 0);
    }

    #[test]
    fn what_is_no_eventfd_is_refused() {
        let bells = EventFds::default();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap().into();
        for fd in [reader, writer, null] {
            assert_eq!(bells.bell(fd).err(), Some(Errno::new(22)));
        }
        assert_eq!(bells.threads.load(Ordering::Relaxed), 0);
    }

    /// The client fills its counter and keeps the file blocking: who rings does not notice.
    #[test]
    fn a_client_that_holds_its_bell_up_holds_up_nobody_else() {
        let bells = EventFds::default();
        let (ours, theirs) = pair(EventfdFlags::empty());
        let bell = bells.bell(theirs).unwrap();
        rustix::io::write(&ours, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        let until = Instant::now() + Duration::from_millis(50);
        while Instant::now() < until {
            fcntl_setfl(&ours, OFlags::empty()).unwrap();
            bell.ring();
        }
        drop(bell);
        wait_until(|| bells.threads.load(Ordering::Relaxed) == 0);
    }

    #[test]
    fn threads_are_bounded() {
        let bells = EventFds::default();
        let bell = || bells.bell(pair(EventfdFlags::empty()).1);
        let mut all: Vec<_> = (0..MAX_THREADS).map(|_| bell().unwrap()).collect();
        assert_eq!(bell().err(), Some(Errno::new(28)));
        all.pop();
        wait_until(|| bell().is_ok());
    }
}
