use std::{
    hint::spin_loop,
    os::fd::AsFd,
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
/// One turn of a look takes a fraction of this. Where it took longer, another thread ran on this core meanwhile, which
/// may be the peer's: it would have run sooner if this one had slept.
const LONG_TURN: Duration = Duration::from_micros(2);
/// A sleep this short might have been spared by looking, the wake-up itself included.
const SHORT_SLEEP: Duration = Duration::from_micros(100);
/// After looks in vain, so many sleeps go by at most before the next one: where a peer's messages are a little
/// too far apart, or its thread waits for this very core, each of them costs a few hundredths of a microsecond.
const MOST_SKIPPED: u32 = 1024;

/// Decides between looking and sleeping, by what was better the last times.
///
/// A peer that is quiet for longer is not looked for at all, and one look is the most that its last message costs.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// How many sleeps there shall be before the next look. The last of them is a short one.
    to_skip: u32,
    /// How many there were before the last one in vain.
    skipped: u32,
}

impl Waiting {
    pub(crate) const fn new() -> Self {
        Self {
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
        if self.to_skip == 0 {
            let (received, look) = look(shared, receiver)?;
            self.note_look(look);
            if received != Received::Nothing {
                return Ok(received);
            }
        }
        if self.to_skip > 1 {
            self.to_skip -= 1;
            return receiver.receive(&shared.socket, Patience::Endless);
        }
        let asleep = Instant::now();
        let received = receiver.receive(&shared.socket, Patience::Endless)?;
        self.note_last_sleep(asleep.elapsed());
        Ok(received)
    }

    fn note_look(&mut self, look: Look) {
        self.skipped = match look {
            Look::NotNeeded => return,
            Look::Paid => 0,
            Look::InVain => (2 * self.skipped).clamp(1, MOST_SKIPPED),
        };
        self.to_skip = self.skipped;
    }

    fn note_last_sleep(&mut self, slept: Duration) {
        if slept < SHORT_SLEEP {
            self.to_skip = 0;
        }
    }
}

/// What a look was good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Something was there already.
    NotNeeded,
    /// Something came.
    Paid,
    /// Nothing came, or not before somebody else had run here.
    InVain,
}

fn look(shared: &Shared, receiver: &mut Receiver) -> Result<(Received, Look), ConnectionError> {
    let received = receiver.receive(&shared.socket, Patience::None)?;
    if received != Received::Nothing {
        return Ok((received, Look::NotNeeded));
    }
    let start = Instant::now();
    let mut turn = start;
    loop {
        spin_loop();
        let received = receiver.receive(&shared.socket, Patience::None)?;
        let now = Instant::now();
        if now.duration_since(turn) > LONG_TURN || now.duration_since(start) > LOOK {
            return Ok((received, Look::InVain));
        }
        if received != Received::Nothing {
            return Ok((received, Look::Paid));
        }
        turn = now;
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
    use super::*;

    const BRIEF: Duration = Duration::from_micros(60);
    const LONG: Duration = Duration::from_millis(1);

    /// What `receive` does where it sleeps so long.
    fn sleep(waiting: &mut Waiting, slept: Duration) {
        if waiting.to_skip > 1 {
            waiting.to_skip -= 1;
        } else {
            waiting.note_last_sleep(slept);
        }
    }

    #[test]
    fn a_peer_that_is_quiet_is_not_looked_for() {
        let mut waiting = Waiting::new();
        waiting.note_look(Look::InVain);
        waiting.note_look(Look::InVain);
        for _ in 0..1000 {
            sleep(&mut waiting, LONG);
        }
        assert_eq!(waiting.to_skip, 1);
    }

    #[test]
    fn looking_goes_on_while_it_finds_something() {
        let mut waiting = Waiting::new();
        sleep(&mut waiting, BRIEF);
        for _ in 0..1000 {
            assert_eq!(waiting.to_skip, 0);
            waiting.note_look(Look::Paid);
        }
        // What was there already says nothing.
        waiting.note_look(Look::NotNeeded);
        assert_eq!(waiting.to_skip, 0);
        // One look in vain when the peer pauses, and none until it is quick again.
        waiting.note_look(Look::InVain);
        sleep(&mut waiting, LONG);
        assert_eq!(waiting.to_skip, 1);
        sleep(&mut waiting, BRIEF);
        assert_eq!(waiting.to_skip, 0);
    }

    #[test]
    fn looks_in_vain_become_rare() {
        let mut waiting = Waiting::new();
        let mut looks = 0;
        for _ in 0..100_000 {
            if waiting.to_skip == 0 {
                looks += 1;
                waiting.note_look(Look::InVain);
            }
            sleep(&mut waiting, BRIEF);
        }
        assert!(looks < 110, "{looks} looks");
        // And come back where they find something.
        while waiting.to_skip > 0 {
            sleep(&mut waiting, BRIEF);
        }
        waiting.note_look(Look::Paid);
        assert_eq!(waiting.to_skip, 0);
    }
}
