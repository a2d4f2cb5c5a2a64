//! One process a tenant.

use std::{
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{pipe::PipeFlags, process::Pid};

use super::peer::{self, Peer};

/// How long a new process waits for the one before it to be cleared away.
const HANDOVER: Duration = Duration::from_secs(10);

/// Lets the connections of one process in, and tells when its last one is gone.
///
/// A tenant is the process at the other end (`SO_PEERCRED`, kept by a pidfd). While one process has a
/// connection, another is refused. When the process dies its connections are ended, whoever else may
/// still hold a copy of its sockets.
pub(crate) struct Gate {
    name: String,
    held: Mutex<Option<Holder>>,
    released: Condvar,
    stopped: AtomicBool,
    on_last: Box<dyn Fn() + Send + Sync>,
}

/// Ends a connection.
type HangUp = Box<dyn Fn() + Send + Sync>;

struct Holder {
    peer: Peer,
    /// Its last connection is gone and what it held is being given back.
    leaving: bool,
    /// Closed when the holder goes, which ends the watch over its process.
    _watched: OwnedFd,
    connections: Vec<(u64, HangUp)>,
    /// Connections let in, those without one yet included.
    count: usize,
    next: u64,
}

/// Why a connection was not let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error(
        "tenant {tenant:?} is process {holder}: process {newcomer} has to wait until that has no connection left"
    )]
    Held {
        tenant: String,
        holder: Pid,
        newcomer: Pid,
    },
    #[error("the process at the other end cannot be known: {0}")]
    Unknown(#[from] rustix::io::Errno),
    #[error("the process at the other end cannot be watched: {0}")]
    Unwatched(#[from] std::io::Error),
}

/// A connection that was let in. Dropping it is the end of the connection; do it when all that the
/// connection held is given back.
pub(crate) struct Admission {
    gate: Arc<Gate>,
    number: u64,
    pid: Pid,
}

impl Gate {
    /// `on_last` runs when the last connection of a process is gone, before another is let in.
    pub(crate) fn new(name: &str, on_last: Box<dyn Fn() + Send + Sync>) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            held: Mutex::new(None),
            released: Condvar::new(),
            stopped: AtomicBool::new(false),
            on_last,
        })
    }

    fn held(&self) -> MutexGuard<'_, Option<Holder>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process that has the tenant now.
    pub(crate) fn holder(&self) -> Option<Pid> {
        self.held().as_ref().map(|h| h.peer.pid())
    }

    /// Lets a connection in, or says who is in the way.
    pub(crate) fn admit(self: &Arc<Self>, stream: &UnixStream) -> Result<Admission, Refused> {
        let newcomer = Peer::of(stream)?;
        let pid = newcomer.pid();
        let deadline = Instant::now() + HANDOVER;
        let mut held = self.held();
        loop {
            match held.as_mut() {
                None => {
                    let watched = self.watch(&newcomer)?;
                    *held = Some(Holder {
                        peer: newcomer,
                        leaving: false,
                        _watched: watched,
                        connections: Vec::new(),
                        count: 1,
                        next: 1,
                    });
                    return Ok(Admission {
                        gate: Arc::clone(self),
                        number: 0,
                        pid,
                    });
                }
                Some(holder) if holder.is(pid) && !holder.leaving => {
                    let number = holder.next;
                    holder.next += 1;
                    holder.count += 1;
                    return Ok(Admission {
                        gate: Arc::clone(self),
                        number,
                        pid,
                    });
                }
                // What the process before left behind is being cleared away: a moment's patience.
                Some(holder) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let goes = holder.leaving || holder.peer.has_ended();
                    if !goes || left.is_zero() {
                        return Err(Refused::Held {
                            tenant: self.name.clone(),
                            holder: holder.peer.pid(),
                            newcomer: pid,
                        });
                    }
                    let wait = self.released.wait_timeout(held, left);
                    held = wait.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    /// Ends the connections of a process that dies, until the descriptor that it returns is closed.
    fn watch(self: &Arc<Self>, peer: &Peer) -> std::io::Result<OwnedFd> {
        let pidfd = peer.watch()?;
        let pid = peer.pid();
        let (over, held_open) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let gate: Weak<Self> = Arc::downgrade(self);
        thread::Builder::new()
            .name(format!("{}-watch", self.name))
            .spawn(move || {
                if peer::ended_before(&pidfd, &over)
                    && let Some(gate) = gate.upgrade()
                    && let Some(holder) = gate.held().as_ref().filter(|h| h.peer.pid() == pid)
                {
                    holder.connections.iter().for_each(|(_, hang_up)| hang_up());
                }
            })?;
        Ok(held_open)
    }

    /// Ends all connections, those that are about to begin too.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        if let Some(holder) = self.held().as_ref() {
            holder.connections.iter().for_each(|(_, hang_up)| hang_up());
        }
    }
}

impl Holder {
    /// Whether this is the process, and not a later one of the same number.
    fn is(&self, pid: Pid) -> bool {
        self.peer.pid() == pid && !self.peer.has_ended()
    }
}

impl Admission {
    /// The process.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// From now on the connection is ended by this when its process dies.
    pub(crate) fn registered(&self, hang_up: impl Fn() + Send + Sync + 'static) {
        if let Some(holder) = self.gate.held().as_mut() {
            if holder.peer.has_ended() || self.gate.stopped.load(Ordering::SeqCst) {
                hang_up();
            }
            holder.connections.push((self.number, Box::new(hang_up)));
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut held = self.gate.held();
        let Some(holder) = held.as_mut() else { return };
        holder
            .connections
            .retain(|(number, _)| *number != self.number);
        if holder.count > 1 {
            holder.count -= 1;
            return;
        }
        // Nobody is let in while the tenant is being cleared away: the holder stays, with no
        // connection, until that is done.
        holder.count = 0;
        holder.leaving = true;
        drop(held);
        (self.gate.on_last)();
        *self.gate.held() = None;
        self.gate.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    fn counted() -> (Arc<Gate>, Arc<AtomicU32>) {
        let cleared = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&cleared);
        let on_last = Box::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        (Gate::new("alice", on_last), cleared)
    }

    #[test]
    fn r33_a_tenant_is_cleared_once_when_its_last_connection_ends() {
        let (gate, cleared) = counted();
        let (stream, _other_end) = UnixStream::pair().unwrap();
        let first = gate.admit(&stream).unwrap();
        let second = gate.admit(&stream).unwrap();
        assert_eq!(gate.holder(), Some(rustix::process::getpid()));
        drop(first);
        assert_eq!(cleared.load(Ordering::SeqCst), 0);
        drop(second);
        assert_eq!(cleared.load(Ordering::SeqCst), 1);
        assert_eq!(gate.holder(), None);
        drop(gate.admit(&stream).unwrap());
        assert_eq!(cleared.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn nobody_is_let_in_while_the_tenant_is_being_cleared() {
        let (started, has_started) = std::sync::mpsc::channel();
        let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
        let may_go_on = Mutex::new(may_go_on);
        let gate = Gate::new(
            "alice",
            Box::new(move || {
                started.send(()).unwrap();
                // Ends at once the second time, when nobody is left to say so.
                let _ = may_go_on.lock().unwrap().recv();
            }),
        );
        let (stream, _other_end) = UnixStream::pair().unwrap();
        let first = gate.admit(&stream).unwrap();
        thread::scope(|scope| {
            scope.spawn(move || drop(first));
            has_started.recv().unwrap();
            let cleared = Arc::new(AtomicU32::new(0));
            let newcomer = scope.spawn({
                let (gate, stream) = (Arc::clone(&gate), &stream);
                let cleared = Arc::clone(&cleared);
                move || {
                    let admission = gate.admit(stream).unwrap();
                    assert_eq!(cleared.load(Ordering::SeqCst), 1);
                    drop(admission);
                }
            });
            cleared.store(1, Ordering::SeqCst);
            drop(go_on);
            newcomer.join().unwrap();
        });
    }
}
