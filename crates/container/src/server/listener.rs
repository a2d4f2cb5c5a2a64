use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use palisade_vfio::abi::Vmm;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::serve;
use crate::{Gate, Peer};

/// How many clients of one socket are served at a time. More are closed at once, so that one cannot take all
/// threads of the host.
const MAX_CLIENTS: usize = 64;
/// How long to wait where the host has no descriptors or threads left.
const PAUSE: Duration = Duration::from_millis(100);
const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Serves the clients of one VMM: whoever connects to its socket and is allowed to, each on a thread of its own.
///
/// When this is dropped, nobody is let in any more, every connection is ended, and all that the clients took has gone
/// back. The file of the socket stays: who made it removes it.
#[derive(Debug)]
pub struct Server {
    stopper: Stopper,
    thread: Option<JoinHandle<()>>,
}

/// Ends a server from any thread. Clones end the same one.
#[derive(Clone, Debug)]
pub struct Stopper {
    event: Arc<OwnedFd>,
}

impl Stopper {
    fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            event: Arc::new(event),
        })
    }

    /// Ends it, soon. Ending it again does nothing.
    pub fn stop(&self) {
        // Its counter is never read, so it can only be full of stops.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }
}

impl Server {
    /// Starts to serve.
    ///
    /// # Errors
    /// Where the host has no descriptors or threads left.
    pub fn start(listener: UnixListener, vmm: Vmm, gate: Arc<dyn Gate>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let stopper = Stopper::new()?;
        let thread = thread::Builder::new().name("container".to_owned()).spawn({
            let stopper = stopper.clone();
            move || listen(&listener, &stopper, &vmm, &*gate)
        })?;
        Ok(Self {
            stopper,
            thread: Some(thread),
        })
    }

    /// A handle that ends it.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of a container socket panicked");
        }
    }
}

/// A client that is served.
struct Served {
    stream: UnixStream,
    /// The process that connected. With its end the connection ends, whoever else has the socket by then.
    process: OwnedFd,
    thread: JoinHandle<()>,
}

impl Served {
    fn start(stream: UnixStream, process: OwnedFd, vmm: Vmm) -> io::Result<Self> {
        let ours = stream.try_clone()?;
        let thread = thread::Builder::new().name("container client".to_owned());
        let thread = thread.spawn(move || {
            if let Err(error) = serve(&ours, &vmm) {
                tracing::debug!(%error, "a client of a container socket was cut off");
            }
        })?;
        Ok(Self {
            stream,
            process,
            thread,
        })
    }

    fn is_over(&self) -> bool {
        let mut fds = [PollFd::new(&self.process, PollFlags::IN)];
        self.thread.is_finished() || matches!(poll(&mut fds, Some(&AT_ONCE)), Ok(1..))
    }

    fn end(self) {
        // Fails only where the client was faster.
        let _ = self.stream.shutdown(Shutdown::Both);
        if self.thread.join().is_err() {
            tracing::error!("the thread of a container client panicked");
        }
    }
}

fn listen(listener: &UnixListener, stopper: &Stopper, vmm: &Vmm, gate: &dyn Gate) {
    let mut clients: Vec<Served> = Vec::new();
    while wait(listener, stopper, &clients) == Woken::ByOthers {
        let (over, at_work): (Vec<_>, _) = clients.into_iter().partition(Served::is_over);
        clients = at_work;
        over.into_iter().for_each(Served::end);
        match listener.accept() {
            Ok((stream, _)) if clients.len() < MAX_CLIENTS => match admit(stream, vmm, gate) {
                Ok(client) => clients.push(client),
                Err(error) => tracing::debug!(%error, "a client is not served"),
            },
            Ok(_) => tracing::debug!("a client is not served: {MAX_CLIENTS} are"),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::debug!(%error, "nobody could be let in");
                thread::sleep(PAUSE);
            }
        }
    }
    clients.into_iter().for_each(Served::end);
}

fn admit(stream: UnixStream, vmm: &Vmm, gate: &dyn Gate) -> io::Result<Served> {
    let peer = Peer::of(&stream)?;
    gate.check(peer).map_err(io::Error::other)?;
    let pid = Pid::from_raw(peer.pid).ok_or(Errno::SRCH)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    stream.set_nonblocking(false)?;
    Served::start(stream, process, vmm.clone())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Woken {
    /// It is time to stop.
    ByStopper,
    /// Somebody is at the door, or a client has died.
    ByOthers,
}

fn wait(listener: &UnixListener, stopper: &Stopper, clients: &[Served]) -> Woken {
    let mut fds = vec![
        PollFd::from_borrowed_fd(stopper.event.as_fd(), PollFlags::IN),
        PollFd::new(listener, PollFlags::IN),
    ];
    let processes = clients.iter().map(|client| &client.process);
    fds.extend(processes.map(|process| PollFd::new(process, PollFlags::IN)));
    loop {
        match poll(&mut fds, None) {
            Ok(_) if fds[0].revents().is_empty() => return Woken::ByOthers,
            Ok(_) => return Woken::ByStopper,
            Err(Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "a container socket cannot be waited for");
                return Woken::ByStopper;
            }
        }
    }
}
