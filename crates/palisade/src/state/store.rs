//! The folder of the state: one file, replaced as a whole, for one daemon at a time.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, FileType, FlockOperation, Mode, OFlags, Stat, flock, fstat, fsync, open, openat,
        renameat, unlinkat,
    },
    io::Errno,
    process::{Uid, geteuid},
};

use super::{
    RunTime, StateError,
    codec::{self, Unreadable},
};

/// The state.
pub(super) const FILE: &str = "palisade.state";
/// What is written before it becomes the state. A crash may leave one behind.
pub(super) const DRAFT: &str = "palisade.state.new";
/// Locked by the daemon that uses the folder, and left there.
pub(super) const LOCK: &str = "palisade.lock";

/// A state has no more bytes: names of 64 bytes and numbers of seven digits in four kinds of changes, and few functions.
const FILE_MAX_BYTES: u64 = 4 << 20;
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);
const OTHERS_WRITE: Mode = Mode::WGRP.union(Mode::WOTH);

/// The folder, locked until this is dropped.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    folder: OwnedFd,
    /// Held for its lock.
    _lock: OwnedFd,
    /// Brings the folder's names to the disk: fsync, but for tests of what happens where that fails.
    pub(super) sync_folder: fn(&OwnedFd) -> rustix::io::Result<()>,
}

/// Whether nobody may change what this describes but the daemon's own user, and root.
fn is_own(about: &Stat) -> bool {
    [geteuid(), Uid::ROOT].contains(&Uid::from_raw(about.st_uid))
}

fn others_write(about: &Stat) -> bool {
    Mode::from_raw_mode(about.st_mode).intersects(OTHERS_WRITE)
}

impl Store {
    /// Locks the folder and reads what it has; nothing is what a new folder has.
    ///
    /// # Errors
    /// [`StateError`]; the state was left alone then.
    pub(crate) fn open(path: &Path) -> Result<(Self, RunTime), StateError> {
        let unusable = |what, e: Errno| StateError::Folder {
            folder: path.to_owned(),
            what,
            source: e.into(),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = open(path, flags, Mode::empty()).map_err(|e| match e {
            Errno::NOENT => unusable("make it, for the user that the daemon runs as alone", e),
            _ => unusable(
                "it has to be a folder that the daemon may read and write",
                e,
            ),
        })?;
        let about = fstat(&folder).map_err(|e| unusable("ask about it", e))?;
        let named = || path.to_owned();
        if !is_own(&about) {
            return Err(StateError::Foreign { folder: named() });
        }
        if others_write(&about) {
            return Err(StateError::Open { folder: named() });
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let lock = openat(&folder, LOCK, flags, PRIVATE)
            .map_err(|e| unusable("its palisade.lock cannot be opened for writing", e))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|e| match e {
            Errno::WOULDBLOCK => StateError::InUse { folder: named() },
            e => unusable("its palisade.lock cannot be locked", e),
        })?;
        let store = Self {
            path: path.to_owned(),
            folder,
            _lock: lock,
            sync_folder: |folder| fsync(folder),
        };
        let state = store.read()?;
        // What a crash in the middle of a write left; it never became the state.
        match unlinkat(&store.folder, DRAFT, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(StateError::write(&store.path.join(DRAFT), e)),
        }
        Ok((store, state))
    }

    /// The state's own name, for messages.
    pub(crate) fn file(&self) -> PathBuf {
        self.path.join(FILE)
    }

    fn read(&self) -> Result<RunTime, StateError> {
        let file = self.file();
        let wrong = |e: Errno| StateError::read(&file, e);
        let refused = |what: &str| {
            let what = io::Error::new(io::ErrorKind::InvalidInput, what);
            Err(StateError::read(&file, what))
        };
        // A pipe in its place must not hold the daemon up.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let open = match openat(&self.folder, FILE, flags, Mode::empty()) {
            Ok(open) => open,
            Err(Errno::NOENT) => return Ok(RunTime::default()),
            Err(Errno::LOOP) => return refused("it is a symbolic link"),
            Err(e) => return Err(wrong(e)),
        };
        let about = fstat(&open).map_err(wrong)?;
        if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile {
            return refused("it is no regular file");
        }
        if !is_own(&about) || others_write(&about) {
            return refused(
                "others than the daemon's user may write it: look at it, and chown it or chmod go-w it",
            );
        }
        let mut bytes = Vec::new();
        File::from(open)
            .take(FILE_MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| StateError::read(&file, e))?;
        codec::decode(&bytes).map_err(|why| StateError::Unreadable { file, why })
    }

    /// Puts a state in the place of the one that is there. When this returns it outlives a loss of power; on an
    /// error the one before stands.
    ///
    /// # Errors
    /// [`StateError::Write`].
    pub(crate) fn write(&self, state: &RunTime, before: &RunTime) -> Result<(), StateError> {
        let wrong = |source: io::Error| StateError::write(&self.file(), source);
        let bytes = codec::encode(state).map_err(|e| wrong(e.into()))?;
        if let Err(Unreadable::Senseless(what)) = codec::decode(&bytes) {
            return Err(wrong(io::Error::new(io::ErrorKind::InvalidInput, what)));
        }
        self.draft(&bytes).map_err(wrong)?;
        renameat(&self.folder, DRAFT, &self.folder, FILE).map_err(|e| {
            self.forget_draft();
            wrong(e.into())
        })?;
        (self.sync_folder)(&self.folder).map_err(|e| {
            // Which of the two a loss of power would leave is not known: at least no reader sees the new one.
            let again = codec::encode(before).map_err(io::Error::from);
            let restored = again.and_then(|bytes| self.draft(&bytes)).and_then(|()| {
                Ok(renameat(&self.folder, DRAFT, &self.folder, FILE)?)
            });
            if let Err(e) = restored {
                tracing::error!(file = %self.file().display(), "the state before could not be put back: {e}");
            }
            wrong(e.into())
        })
    }

    /// Writes the file that is to become the state, to the disk.
    fn draft(&self, bytes: &[u8]) -> io::Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let draft = openat(&self.folder, DRAFT, flags, PRIVATE)?;
        let mut draft = File::from(draft);
        let written = draft.write_all(bytes).and_then(|()| draft.sync_all());
        if written.is_err() {
            self.forget_draft();
        }
        written
    }

    fn forget_draft(&self) {
        // Whatever is left of it is cleaned away at the next start.
        let _ = unlinkat(&self.folder, DRAFT, AtFlags::empty());
    }
}
