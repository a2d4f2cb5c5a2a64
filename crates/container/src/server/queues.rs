//! The files of a client's queues, beside its messages.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use palisade_vfio::abi::iommufd::Iommufd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::socket::SocketError;

/// Does what the client writes to its queues, until there is a message of it, or it has closed the connection.
pub(super) fn serve_until_readable(
    stream: &UnixStream,
    session: &Iommufd,
) -> Result<(), SocketError> {
    loop {
        let queues = session.queues();
        let mut fds = vec![PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN)];
        let files = queues.iter().map(|queue| queue.readable());
        fds.extend(files.map(|file| PollFd::from_borrowed_fd(file, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(SocketError::Failed(errno)),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let (of_stream, of_queues) = ready.split_first().unwrap_or((&true, &[]));
        for (queue, is_ready) in queues.iter().zip(of_queues) {
            if *is_ready {
                session.serve(queue);
            }
        }
        if *of_stream {
            return Ok(());
        }
    }
}
