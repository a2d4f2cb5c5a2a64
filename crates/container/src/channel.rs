//! The files of queues: pairs of sockets that keep records apart.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use palisade_iommu::QueueFull;
use palisade_vfio::abi::iommufd::{Channel, ChannelPair, Taken};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};

/// The host's end. The two ends are two open files, so a client cannot make this one block.
struct Socket(OwnedFd);

impl Socket {
    /// Whether the client writes no more, which reads like a write of nothing.
    fn is_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::RDHUP)];
        poll(&mut fds, Some(&Timespec::default())) != Ok(0)
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
            Ok((0, _)) if self.is_hung_up() => Taken::Over,
            Ok((len_bytes, _)) => Taken::Bytes(len_bytes),
            Err(Errno::AGAIN | Errno::INTR) => Taken::Nothing,
            Err(_) => Taken::Over,
        }
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
        rustix::io::write(&client, &[3; 16]).unwrap();
        assert_eq!(host.take(&mut bytes), Taken::Bytes(16));
        // A write of nothing is not the end.
        let nothing = send(&client, &[], SendFlags::NOSIGNAL);
        assert_eq!(nothing, Ok(0));
        rustix::io::write(&client, &[4; 8]).unwrap();
        assert_eq!(host.take(&mut bytes), Taken::Bytes(0));
        assert_eq!(host.take(&mut bytes), Taken::Bytes(8));
        let put = std::iter::repeat_with(|| host.put(&[0; 40]));
        let room = put.take_while(Result::is_ok).count();
        assert!((100..10_000).contains(&room), "{room}");
        drop(client);
        assert_eq!(host.take(&mut bytes), Taken::Over);
        assert_eq!(host.put(&[0; 40]), Err(QueueFull));
    }
}
