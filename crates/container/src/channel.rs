//! The files of queues: pairs of sockets that keep records apart.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use palisade_iommu::QueueFull;
use palisade_vfio::abi::iommufd::{Channel, ChannelPair, Taken};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};

const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// The host's end. The two ends are two open files, so a client cannot make this one block.
struct Socket(OwnedFd);

impl Socket {
    /// Whether the client can write still.
    fn is_written_to(&self) -> bool {
        !self.is_any(PollFlags::HUP | PollFlags::RDHUP)
    }

    fn is_any(&self, of: PollFlags) -> bool {
        let mut fds = [PollFd::new(&self.0, of)];
        poll(&mut fds, Some(&AT_ONCE)).is_ok() && fds[0].revents().intersects(of)
    }
}

/// Both ends of a new file.
pub(crate) fn pair() -> Result<ChannelPair, Errno> {
    let family = AddressFamily::UNIX;
    let (host, client) = socketpair(family, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok(ChannelPair {
        host: Box::new(Socket(host)),
        client,
    })
}

impl Channel for Socket {
    fn put(&self, record: &[u8]) -> Result<(), QueueFull> {
        let sent = send(&self.0, record, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        sent.map(|_| ()).map_err(|_| QueueFull)
    }

    fn take(&self, into: &mut [u8]) -> Taken {
        match recv(&self.0, into, RecvFlags::DONTWAIT) {
            // Nothing was written, or nothing ever will be.
            Ok((0, _)) if self.is_written_to() => Taken::Bytes(0),
            Ok((0, _)) => Taken::Over,
            Ok((len_bytes, _)) => Taken::Bytes(len_bytes),
            Err(Errno::AGAIN | Errno::INTR) => Taken::Nothing,
            Err(_) => Taken::Over,
        }
    }

    fn is_open(&self) -> bool {
        !self.is_any(PollFlags::HUP)
    }

    fn readable(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r75_records_stay_apart_and_nothing_waits() {
        let ChannelPair { host, client } = pair().unwrap();
        let mut bytes = [0; 100];
        assert_eq!(host.take(&mut bytes), Taken::Nothing);
        host.put(&[1; 40]).unwrap();
        host.put(&[2; 40]).unwrap();
        assert_eq!(rustix::io::read(&client, &mut bytes), Ok(40));
        assert_eq!(rustix::io::read(&client, &mut bytes), Ok(40));
        rustix::io::write(&client, &[]).unwrap();
        rustix::io::write(&client, &[3; 16]).unwrap();
        assert_eq!(host.take(&mut bytes), Taken::Bytes(0));
        assert_eq!(host.take(&mut bytes), Taken::Bytes(16));
        let put = std::iter::repeat_with(|| host.put(&[0; 40]));
        let room = put.take_while(Result::is_ok).count();
        assert!((100..10_000).contains(&room), "{room}");
        assert!(host.is_open());
        drop(client);
        assert!(!host.is_open());
        assert_eq!(host.take(&mut bytes), Taken::Over);
        assert_eq!(host.put(&[0; 40]), Err(QueueFull));
    }
}
