//! Finding a QEMU that can do vfio-user.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::VmError;

/// The first version with the vfio-user device.
const OLDEST: Version = Version {
    major: 10,
    minor: 1,
};

/// A version of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Version {
    /// Reads `QEMU emulator version 11.1.3 (…)`.
    fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once(" version ")?;
        let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.parse().ok()?;
        Some(Self { major, minor })
    }
}

/// A QEMU that was checked.
#[derive(Clone, Debug)]
pub struct Qemu {
    program: PathBuf,
    version: Version,
}

impl Qemu {
    /// Checks that `program` is a QEMU of at least 10.1 with the device vfio-user-pci.
    ///
    /// # Errors
    /// [`VmError`], which says what to do about it.
    pub fn find(program: &Path) -> Result<Self, VmError> {
        let run = |arguments: &[&str]| {
            Command::new(program)
                .args(arguments)
                .stdin(Stdio::null())
                .output()
                .map_err(|source| VmError::NoQemu {
                    program: program.to_owned(),
                    source,
                })
        };
        let said = run(&["--version"])?;
        let text = String::from_utf8_lossy(&said.stdout);
        let first = text.lines().next().unwrap_or_default();
        let version = Version::parse(first).ok_or_else(|| VmError::UnknownVersion {
            program: program.to_owned(),
            said: first.to_owned(),
        })?;
        if version < OLDEST {
            return Err(VmError::TooOld {
                program: program.to_owned(),
                found: version,
            });
        }
        let help = run(&["-device", "vfio-user-pci,help"])?;
        if !help.status.success() {
            let said = String::from_utf8_lossy(&help.stderr).trim().to_owned();
            return Err(VmError::NoVfioUser {
                program: program.to_owned(),
                said,
            });
        }
        Ok(Self {
            program: program.to_owned(),
            version,
        })
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn pretend(script: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("qemu");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        (folder, program)
    }

    #[test]
    fn a_version_is_read() {
        let version = Version::parse("QEMU emulator version 11.1.3 (Debian 1:11.1.3+ds-1)");
        assert_eq!(
            version,
            Some(Version {
                major: 11,
                minor: 1
            })
        );
        assert_eq!(Version::parse("bash: 5.2"), None);
    }

    #[test]
    fn an_older_qemu_is_refused_with_what_to_do() {
        let (_folder, program) = pretend("echo QEMU emulator version 10.0.2");
        let error = Qemu::find(&program).unwrap_err().to_string();
        assert!(
            error.contains("is QEMU 10.0") && error.contains("10.1 or newer"),
            "{error}"
        );
    }

    #[test]
    fn one_without_the_device_is_refused() {
        let (_folder, program) = pretend(
            "case $1 in --version) echo QEMU emulator version 11.1.0;; *) echo no such device >&2; exit 1;; esac",
        );
        let error = Qemu::find(&program).unwrap_err().to_string();
        assert!(
            error.contains("without the device") && error.contains("no such device"),
            "{error}"
        );
    }

    #[test]
    fn none_at_all_is_refused() {
        let error = Qemu::find(Path::new("/nowhere/qemu"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("--qemu"), "{error}");
    }
}
