//! A caller's descriptor is a number that may be of no open file, or be closed by another thread in the next moment.
//! To borrow it would be to promise otherwise, so it is duplicated by the kernel, which says EBADF where there is none.

use std::os::fd::OwnedFd;

use palisade_memory::Protection;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use crate::error::Failure;

/// A descriptor of the same file, to be mapped.
pub(crate) fn duplicate(fd: i32, protection: Protection) -> Result<OwnedFd, Failure> {
    if fd < 0 {
        return Err(Failure::new(
            Errno::BADF,
            format!("{fd} is not a descriptor"),
        ));
    }
    let duplicated = by_pidfd(fd).or_else(|errno| match errno {
        // Before Linux 5.6, and where a filter of system calls takes it for a debugger's.
        Errno::NOSYS | Errno::PERM => by_name(fd, protection),
        errno => Err(errno),
    });
    duplicated.map_err(|errno| Failure::new(errno, format!("descriptor {fd}: {errno}")))
}

fn by_pidfd(fd: i32) -> Result<OwnedFd, Errno> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    pidfd_getfd(own, fd, PidfdGetfdFlags::empty())
}

/// Opens the file anew, which files without a name allow too, though not every kind of file does.
fn by_name(fd: i32, protection: Protection) -> Result<OwnedFd, Errno> {
    let access = match protection {
        Protection::ReadOnly => OFlags::RDONLY,
        Protection::ReadWrite => OFlags::RDWR,
    };
    let name = format!("/proc/self/fd/{fd}");
    match open(name, access | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => Err(Errno::BADF),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_descriptor_is_duplicated_and_the_callers_stays_open() {
        let ways: [fn(i32) -> Result<OwnedFd, Errno>; 2] =
            [by_pidfd, |fd| by_name(fd, Protection::ReadWrite)];
        for way in ways {
            let mut file = tempfile::tempfile().unwrap();
            let mut same = std::fs::File::from(way(file.as_raw_fd()).unwrap());
            same.write_all(b"here").unwrap();
            drop(same);
            file.rewind().unwrap();
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "here");
        }
    }

    #[test]
    fn a_number_that_is_no_descriptor_is_told_so() {
        for fd in [-1, i32::MIN, 0x00ff_ffff] {
            let refused = duplicate(fd, Protection::ReadOnly).unwrap_err();
            assert_eq!(refused.value(), -9);
        }
        let refused = by_name(0x00ff_ffff, Protection::ReadOnly);
        assert_eq!(refused.err(), Some(Errno::BADF));
        let refused = by_pidfd(0x00ff_ffff);
        assert_eq!(refused.err(), Some(Errno::BADF));
    }
}
