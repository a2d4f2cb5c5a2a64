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
    outgoing::{Sent, Shared},
    receiver::{Received, Receiver},
};

/// How long to look at a quiet socket before sleeping: below what waking up on another core costs.
const LOOK: Duration = Duration::from_micros(30);
/// A sleep this short would have been spared by looking, the wake-up itself included.
const SHORT_SLEEP: Duration = Duration::from_micros(100);

/// Decides between looking and sleeping, by what was better the last time.
#[derive(Debug)]
pub(crate) struct Waiting {
    looking_pays: bool,
}

impl Waiting {
    pub(crate) fn new() -> Self {
        Self {
            looking_pays: false,
        }
    }

    /// Returns when there may be something to do: bytes in `receiver`, room to send, the end of the
    /// stream, or a wake-up. A peer that has something waiting is not listened to until it reads.
    pub(crate) fn wait(
        &mut self,
        shared: &Shared,
        receiver: &mut Receiver,
        sent: Sent,
    ) -> Result<Received, ConnectionError> {
        if sent == Sent::All && self.looking_pays {
            let until = Instant::now() + LOOK;
            while Instant::now() < until && !shared.is_stopped() {
                let received = receiver.receive(&shared.socket)?;
                if received != Received::Nothing {
                    return Ok(received);
                }
                // The other side may need this very core.
                thread::yield_now();
            }
        }
        let asleep = Instant::now();
        sleep(shared, sent)?;
        self.looking_pays = asleep.elapsed() < SHORT_SLEEP;
        Ok(Received::Nothing)
    }
}

fn sleep(shared: &Shared, sent: Sent) -> Result<(), ConnectionError> {
    let interest = match sent {
        Sent::All => PollFlags::IN,
        Sent::Waiting => PollFlags::OUT,
    };
    let mut fds = [
        PollFd::new(&shared.socket, interest),
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
