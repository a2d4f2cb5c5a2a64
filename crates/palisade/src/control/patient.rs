//! A client that is waited for only so long.

use std::{
    io::{self, ErrorKind, Read, Write},
    os::{fd::BorrowedFd, unix::net::UnixStream},
    time::Instant,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

/// A stream whose peer has until one moment to speak or to listen, whatever it does until then a byte at a time;
/// less where the host stops.
pub(super) struct Patient<'a> {
    stream: &'a UnixStream,
    /// Readable from the moment on at which the host stops.
    stop: BorrowedFd<'a>,
    until: Instant,
}

impl<'a> Patient<'a> {
    /// `stream` has to be a non-blocking one.
    pub(super) fn new(stream: &'a UnixStream, stop: BorrowedFd<'a>, until: Instant) -> Self {
        Self {
            stream,
            stop,
            until,
        }
    }

    fn wait(&self, ready: PollFlags) -> io::Result<()> {
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let what = "the client takes too long";
                return Err(io::Error::new(ErrorKind::TimedOut, what));
            }
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut fds = [
                PollFd::new(self.stream, ready),
                PollFd::from_borrowed_fd(self.stop, PollFlags::IN),
            ];
            match poll(&mut fds, Some(&left)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            if !fds[0].revents().is_empty() {
                return Ok(());
            }
            if !fds[1].revents().is_empty() {
                let what = "the host stops";
                return Err(io::Error::new(ErrorKind::ConnectionAborted, what));
            }
        }
    }

    fn retried<T>(
        &self,
        ready: PollFlags,
        mut attempt: impl FnMut(&UnixStream) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match attempt(self.stream) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.wait(ready)?,
                other => return other,
            }
        }
    }
}

impl Read for Patient<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.retried(PollFlags::IN, |mut stream| stream.read(bytes))
    }
}

impl Write for Patient<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.retried(PollFlags::OUT, |mut stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{os::fd::AsFd, thread, time::Duration};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(50);

    fn pair() -> (UnixStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (ours, theirs)
    }

    #[test]
    fn r78_a_client_that_dribbles_is_not_waited_for_any_longer() {
        let (ours, mut theirs) = pair();
        let (stop, _rung_by) = UnixStream::pair().unwrap();
        let dribble = thread::spawn(move || {
            while theirs.write_all(b"\"").is_ok() {
                thread::sleep(Duration::from_millis(1));
            }
        });
        let mut patient = Patient::new(&ours, stop.as_fd(), Instant::now() + SHORT);
        let error = patient.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(ours);
        dribble.join().unwrap();
    }

    #[test]
    fn r78_a_client_that_does_not_listen_is_not_waited_for_any_longer() {
        let (ours, _theirs) = pair();
        let (stop, _rung_by) = UnixStream::pair().unwrap();
        let mut patient = Patient::new(&ours, stop.as_fd(), Instant::now() + SHORT);
        let error = patient.write_all(&vec![0; 16 << 20]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn a_silent_client_does_not_keep_the_host_from_stopping() {
        let (ours, _theirs) = pair();
        let (stop, mut rung_by) = UnixStream::pair().unwrap();
        rung_by.write_all(b"!").unwrap();
        let mut patient = Patient::new(&ours, stop.as_fd(), Instant::now() + LONG);
        let error = patient.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    }
}
