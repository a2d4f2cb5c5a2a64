use std::{
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

use super::{
    ConnectionError,
    outgoing::Shared,
    receiver::{Patience, Received, Receiver},
};

/// How long to look at a quiet socket before sleeping: below what waking up on another core costs.
const LOOK: Duration = Duration::from_micros(30);
/// A sleep this short might have been spared by looking, the wake-up itself included.
const SHORT_SLEEP: Duration = Duration::from_micros(100);
/// After looks in vain, so many short sleeps go by at most before the next one: where a peer's messages are a little
/// too far apart, less than half a microsecond for each of them is spent on looking.
const MOST_SKIPPED: u32 = 64;

/// Decides between looking and sleeping, by what was better the last times.
///
/// A look costs this thread's time and nobody else's: each of its turns leaves the core to whoever wants it. A peer that is
/// quiet for longer is not looked for at all, and one look is the most that its last message costs.
#[derive(Debug)]
pub(crate) struct Waiting {
    looks: Looks,
    /// How many short sleeps there shall be before the next look.
    to_skip: u32,
    /// How many there were before the last one in vain.
    skipped: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looks {
    /// On the only core there is, the peer cannot send while this side looks.
    Never,
    WhereTheyPay,
}

impl Waiting {
    /// For the calling thread, on the cores that it may use now.
    pub(crate) fn new() -> Self {
        let looks = match thread::available_parallelism() {
            Ok(cores) if cores.get() > 1 => Looks::WhereTheyPay,
            _ => Looks::Never,
        };
        Self {
            looks,
            to_skip: 1,
            skipped: 0,
        }
    }

    /// Returns when there is something to do: bytes in `receiver`, or the end of the stream, by which the thread is
    /// also told to stop. May return for nothing.
    pub(crate) fn receive(
        &mut self,
        shared: &Shared,
        receiver: &mut Receiver,
    ) -> Result<Received, ConnectionError> {
        if self.looks == Looks::Never {
            return receiver.receive(&shared.socket, Patience::Endless);
        }
        if self.to_skip == 0 {
            let received = look(shared, receiver)?;
            self.note_look(received);
            if received != Received::Nothing {
                return Ok(received);
            }
        }
        let asleep = Instant::now();
        let received = receiver.receive(&shared.socket, Patience::Endless)?;
        self.note_sleep(asleep.elapsed());
        Ok(received)
    }

    fn note_look(&mut self, received: Received) {
        self.skipped = match received {
            Received::Nothing => (2 * self.skipped).clamp(1, MOST_SKIPPED),
            Received::Bytes | Received::End => 0,
        };
        self.to_skip = self.skipped;
    }

    fn note_sleep(&mut self, slept: Duration) {
        if slept < SHORT_SLEEP {
            self.to_skip = self.to_skip.saturating_sub(1);
        }
    }
}

fn look(shared: &Shared, receiver: &mut Receiver) -> Result<Received, ConnectionError> {
    let until = Instant::now() + LOOK;
    loop {
        let received = receiver.receive(&shared.socket, Patience::None)?;
        if received != Received::Nothing || Instant::now() >= until {
            return Ok(received);
        }
        // The other side may need this very core.
        thread::yield_now();
    }
}

/// Returns when the peer has read something of what waits for it, has gone, or the thread shall look up.
pub(crate) fn wait_for_room(shared: &Shared) -> Result<(), ConnectionError> {
    let mut fds = [
        PollFd::new(&shared.socket, PollFlags::OUT),
        PollFd::from_borrowed_fd(shared.wake.as_fd(), PollFlags::IN),
    ];
    match poll(&mut fds, None) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(ConnectionError::Socket(errno)),
    }
    if !fds[1].revents().is_empty() {
        let mut count = [0; 8];
        let _ = rustix::io::read(&shared.wake, &mut count);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    use super::*;

    const BRIEF: Duration = Duration::from_micros(60);
    const LONG: Duration = Duration::from_millis(1);

    fn waiting() -> Waiting {
        Waiting {
            looks: Looks::WhereTheyPay,
            to_skip: 1,
            skipped: 0,
        }
    }

    #[test]
    fn on_one_core_there_is_no_looking() {
        let looks = thread::spawn(|| {
            let allowed = sched_getaffinity(None).unwrap();
            let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
            let mut one = CpuSet::new();
            one.set(cores.next().unwrap());
            sched_setaffinity(None, &one).unwrap();
            Waiting::new().looks
        });
        assert_eq!(looks.join().unwrap(), Looks::Never);
    }

    #[test]
    fn a_peer_that_is_quiet_is_not_looked_for() {
        let mut waiting = waiting();
        for _ in 0..1000 {
            waiting.note_sleep(LONG);
        }
        assert!(waiting.to_skip > 0);
    }

    #[test]
    fn looking_goes_on_while_it_finds_something() {
        let mut waiting = waiting();
        waiting.note_sleep(BRIEF);
        for _ in 0..1000 {
            assert_eq!(waiting.to_skip, 0);
            waiting.note_look(Received::Bytes);
        }
        // One look in vain when the peer pauses, and none until it is quick again.
        waiting.note_look(Received::Nothing);
        waiting.note_sleep(LONG);
        assert_eq!(waiting.to_skip, 1);
        waiting.note_sleep(BRIEF);
        assert_eq!(waiting.to_skip, 0);
    }

    #[test]
    fn looks_in_vain_become_rare() {
        let mut waiting = waiting();
        let mut looks = 0;
        for _ in 0..10_000 {
            if waiting.to_skip == 0 {
                looks += 1;
                waiting.note_look(Received::Nothing);
            }
            waiting.note_sleep(BRIEF);
        }
        assert!(looks < 10_000 / 60, "{looks} looks");
        // And come back where they find something.
        while waiting.to_skip > 0 {
            waiting.note_sleep(BRIEF);
        }
        waiting.note_look(Received::Bytes);
        assert_eq!(waiting.to_skip, 0);
    }
}
