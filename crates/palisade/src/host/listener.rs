//! One socket, and the threads that serve its clients.

use std::{
    fs,
    io::{self, ErrorKind},
    os::{
        fd::AsRawFd,
        unix::{
            fs::{FileTypeExt, PermissionsExt, chown},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{FileType, Mode, OFlags, fchmod, fstat},
    io::Errno,
    net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with},
};

use super::stop::Stop;
use crate::config::SocketPermissions;

/// Clients that wait while one is served.
const BACKLOG: i32 = 128;
/// How often to look whether threads have ended, where there is no waiting for them.
const LOOK: Duration = Duration::from_millis(2);

/// How many clients of a socket are served at a time. The others wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtOnce {
    /// One after the other.
    One,
    /// So many that a few which are slow hold nobody up.
    Several,
}

impl AtOnce {
    fn threads(self) -> usize {
        match self {
            Self::One => 1,
            Self::Several => 8,
        }
    }
}

/// A socket with threads that serve its clients, each one after the other.
pub(crate) struct Listener {
    path: PathBuf,
    threads: Vec<JoinHandle<()>>,
}

impl Listener {
    /// Opens the socket for those who are permitted and calls `serve` for each client until `stop`.
    ///
    /// # Errors
    /// A path that is taken by anything but a socket that nobody serves, and those of the system.
    pub(crate) fn open(
        path: &Path,
        permissions: SocketPermissions,
        name: &str,
        stop: &Arc<Stop>,
        at_once: AtOnce,
        serve: impl Fn(UnixStream) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        remove_stale(path)?;
        let socket = Arc::new(bind(path, permissions)?);
        let serve = Arc::new(serve);
        let start = || {
            let (socket, serve, stop) = (Arc::clone(&socket), Arc::clone(&serve), Arc::clone(stop));
            let clients = move || {
                while let Some(stream) = accept(&socket, &stop) {
                    serve(stream);
                }
            };
            thread::Builder::new().name(name.to_owned()).spawn(clients)
        };
        let threads: io::Result<_> = (0..at_once.threads()).map(|_| start()).collect();
        Ok(Self {
            path: path.to_owned(),
            // Those that were started end with the host that could not be.
            threads: threads.inspect_err(|_| {
                let _ = fs::remove_file(path);
            })?,
        })
    }

    /// [`Listener::join`], until this moment at the latest, for who ends the process next. Closing what a client sent, or
    /// has under way, can take a thread as long as the client likes.
    pub(crate) fn join_by(&mut self, deadline: Instant) {
        let at_work = |threads: &[JoinHandle<()>]| threads.iter().any(|one| !one.is_finished());
        while at_work(&self.threads) && Instant::now() < deadline {
            thread::sleep(LOOK);
        }
        let (ended, left): (Vec<_>, Vec<_>) =
            self.threads.drain(..).partition(JoinHandle::is_finished);
        if !left.is_empty() {
            let (path, count) = (self.path.display(), left.len());
            tracing::warn!(%path, count, "threads of a socket are held up by its clients, and left behind");
        }
        self.threads = ended;
        self.join();
    }

    /// Waits for the threads; to be called when [`Stop`] has been rung.
    pub(crate) fn join(&mut self) {
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!(path = %self.path.display(), "a thread of a socket panicked");
            }
        }
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes a socket that only those may open who are permitted, at no moment anybody else.
fn bind(path: &Path, permissions: SocketPermissions) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Linux makes the file with the mode that the socket has when it is bound, less the umask.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    net::bind(&socket, &SocketAddrUnix::new(path)?).map_err(|e| match e {
        Errno::NOENT => io::Error::new(ErrorKind::NotFound, "its folder does not exist; make it"),
        e => e.into(),
    })?;
    if let Err(e) = give(path, permissions) {
        let _ = fs::remove_file(path);
        return Err(e);
    }
    net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Lets those open a new socket who are permitted. Whoever may write to its folder may have put a link to another file
/// in its place: that one's permissions stay.
fn give(path: &Path, permissions: SocketPermissions) -> io::Result<()> {
    let SocketPermissions { mode, owner, group } = permissions;
    let made = rustix::fs::open(
        path,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let stat = fstat(&made)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(io::Error::new(
            ErrorKind::PermissionDenied,
            "somebody else put another file there: use a folder that nobody else may write to",
        ));
    }
    if stat.st_mode & 0o077 != 0 {
        return Err(io::Error::new(
            ErrorKind::PermissionDenied,
            "others than its owner could open it there: use another file system",
        ));
    }
    // What is open, whatever stands at the path by now.
    let made = format!("/proc/self/fd/{}", made.as_raw_fd());
    chown(&made, owner, group)?;
    fs::set_permissions(&made, fs::Permissions::from_mode(mode))
}

/// A socket file that nobody serves is what a killed host leaves behind.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(
            ErrorKind::AlreadyExists,
            "there is a file that is no socket",
        ));
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(e) => Err(e),
        Ok(_) => Err(io::Error::new(
            ErrorKind::AddrInUse,
            "another process serves it",
        )),
    }
}

/// The next client, or none when the host stops.
fn accept(socket: &UnixListener, stop: &Stop) -> Option<UnixStream> {
    loop {
        let mut fds = [
            PollFd::new(socket, PollFlags::IN),
            PollFd::from_borrowed_fd(stop.fd(), PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(e) => {
                tracing::error!("waiting for clients failed: {e}");
                return None;
            }
        }
        if !fds[1].revents().is_empty() {
            return None;
        }
        match socket.accept() {
            Ok((stream, _)) => return Some(stream),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(e) => {
                // Out of descriptors, say: the client stays in the backlog.
                tracing::warn!("a client could not be accepted: {e}");
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, sync::mpsc};

    use super::*;

    #[test]
    fn a_file_in_the_way_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        fs::write(&path, "mine").unwrap();
        let stop = Arc::new(Stop::new().unwrap());
        let error = Listener::open(
            &path,
            SocketPermissions::PRIVATE,
            "a",
            &stop,
            AtOnce::One,
            drop,
        )
        .err()
        .unwrap();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }

    #[test]
    fn a_file_to_which_a_link_took_the_place_of_the_socket_keeps_its_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a.sock"), folder.path().join("secret"));
        fs::write(&other, "mine").unwrap();
        fs::set_permissions(&other, fs::Permissions::from_mode(0o400)).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        let open = SocketPermissions {
            mode: 0o666,
            ..SocketPermissions::PRIVATE
        };
        assert!(give(&path, open).is_err());
        let mode = fs::metadata(&other).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o400);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named_as_the_cause() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none/a.sock");
        let stop = Arc::new(Stop::new().unwrap());
        let error = Listener::open(
            &path,
            SocketPermissions::PRIVATE,
            "a",
            &stop,
            AtOnce::One,
            drop,
        )
        .err()
        .unwrap();
        assert!(error.to_string().contains("folder"), "{error}");
    }

    #[test]
    fn a_socket_in_use_is_left_alone_and_a_stale_one_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let stop = Arc::new(Stop::new().unwrap());
        let other = UnixListener::bind(&path).unwrap();
        let error = Listener::open(
            &path,
            SocketPermissions::PRIVATE,
            "a",
            &stop,
            AtOnce::One,
            drop,
        )
        .err()
        .unwrap();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        drop(other);
        let mut listener = Listener::open(
            &path,
            SocketPermissions::PRIVATE,
            "a",
            &stop,
            AtOnce::One,
            drop,
        )
        .unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        stop.ring();
        listener.join();
        assert!(!path.exists());
    }

    #[test]
    fn a_client_that_is_slow_holds_nobody_up_where_several_are_served() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let stop = Arc::new(Stop::new().unwrap());
        let (served, who) = mpsc::channel();
        // Each stays until it is hung up on.
        let serve = move |mut stream: UnixStream| {
            served.send(()).unwrap();
            let _ = stream.read(&mut [0]);
        };
        let mut listener = Listener::open(
            &path,
            SocketPermissions::PRIVATE,
            "a",
            &stop,
            AtOnce::Several,
            serve,
        )
        .unwrap();
        let clients = [(); 4].map(|()| UnixStream::connect(&path).unwrap());
        for _ in &clients {
            who.recv_timeout(Duration::from_secs(60)).unwrap();
        }
        drop(clients);
        stop.ring();
        listener.join();
    }
}
