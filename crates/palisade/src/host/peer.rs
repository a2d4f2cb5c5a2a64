//! Who is at the other end of a socket.

use std::os::{fd::OwnedFd, unix::net::UnixStream};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::sockopt::socket_peercred,
    process::{Pid, PidfdFlags, pidfd_open},
};

/// A process that connected, kept by a descriptor so that its number cannot come to mean another.
#[derive(Debug)]
pub(crate) struct Peer {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Peer {
    /// The process that connected `stream`.
    ///
    /// # Errors
    /// Those of the system, among them ESRCH where the process is gone already.
    pub(crate) fn of(stream: &UnixStream) -> rustix::io::Result<Self> {
        let pid = socket_peercred(stream)?.pid;
        Ok(Self {
            pid,
            pidfd: pidfd_open(pid, PidfdFlags::empty())?,
        })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// A second descriptor of the same process.
    pub(crate) fn watch(&self) -> std::io::Result<OwnedFd> {
        self.pidfd.try_clone()
    }

    pub(crate) fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        matches!(poll(&mut fds, Some(&at_once)), Ok(1..))
    }
}

/// Waits until the process behind `pidfd` has ended (true) or the writing end of `over` is closed (false).
pub(crate) fn ended_before(pidfd: &OwnedFd, over: &OwnedFd) -> bool {
    loop {
        let mut fds = [
            PollFd::new(pidfd, PollFlags::IN),
            PollFd::new(over, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) if !fds[0].revents().is_empty() => return true,
            Ok(_) if !fds[1].revents().is_empty() => return false,
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_of_a_pair_is_this_process() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = Peer::of(&ours).unwrap();
        assert_eq!(peer.pid(), rustix::process::getpid());
        assert!(!peer.has_ended());
    }
}
