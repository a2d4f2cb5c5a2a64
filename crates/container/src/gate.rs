use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;

/// Who is at the other end of a socket, as the kernel noted it when they connected (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The process.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl Peer {
    /// Asks the kernel.
    ///
    /// # Errors
    /// The kernel's.
    pub fn of(stream: &UnixStream) -> Result<Self, Errno> {
        let noted = socket_peercred(stream)?;
        Ok(Self {
            pid: noted.pid.as_raw_nonzero().get(),
            uid: noted.uid.as_raw(),
            gid: noted.gid.as_raw(),
        })
    }
}

/// A peer may not be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("user {} (process {}) is not allowed here", .0.uid, .0.pid)]
pub struct NotAllowed(pub Peer);

/// Decides who is served. Asked once for each connection, before a byte of it is read.
pub trait Gate: Send + Sync {
    /// Whether a peer may be served.
    ///
    /// # Errors
    /// [`NotAllowed`]: the connection is closed.
    fn check(&self, peer: Peer) -> Result<(), NotAllowed>;
}

/// Lets these users in and nobody else, root included.
#[derive(Clone, Debug)]
pub struct AllowedUids(Vec<u32>);

impl AllowedUids {
    /// Exactly these.
    #[must_use]
    pub fn new(uids: &[u32]) -> Self {
        Self(uids.to_vec())
    }

    /// The user that this process runs as.
    #[must_use]
    pub fn own() -> Self {
        Self::new(&[rustix::process::geteuid().as_raw()])
    }
}

impl Gate for AllowedUids {
    fn check(&self, peer: Peer) -> Result<(), NotAllowed> {
        if self.0.contains(&peer.uid) {
            Ok(())
        } else {
            Err(NotAllowed(peer))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_who_is_at_the_other_end() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = Peer::of(&ours).unwrap();
        assert_eq!(peer.pid, std::process::id().cast_signed());
        assert_eq!(AllowedUids::own().check(peer), Ok(()));
    }

    #[test]
    fn only_users_on_the_list_are_let_in_and_root_is_no_exception() {
        let peer = |uid| Peer {
            pid: 1,
            uid,
            gid: 0,
        };
        let allowed = AllowedUids::new(&[1000, 1001]);
        assert_eq!(allowed.check(peer(1001)), Ok(()));
        for uid in [0, 999, 1002, u32::MAX] {
            assert_eq!(allowed.check(peer(uid)), Err(NotAllowed(peer(uid))));
        }
        assert!(AllowedUids::new(&[]).check(peer(0)).is_err());
    }
}
