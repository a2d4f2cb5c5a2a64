//! What the kernel says.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, bail};

/// `O_NONBLOCK`: reading ends where the log ends.
const NON_BLOCKING: i32 = 0o4000;

/// The kernel's log. Each message is read once.
#[derive(Debug)]
pub struct KernelLog {
    file: File,
}

impl KernelLog {
    /// Opens it at its oldest message.
    ///
    /// # Errors
    /// The kernel does not allow it.
    pub fn open() -> anyhow::Result<Self> {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(NON_BLOCKING)
            .open("/dev/kmsg")
            .context("cannot open the kernel's log")?;
        Ok(Self { file })
    }

    /// The messages since the last call, without what the kernel puts before them.
    ///
    /// # Errors
    /// The log cannot be read, or has lost messages since.
    pub fn new_messages(&mut self) -> anyhow::Result<Vec<String>> {
        let mut messages = Vec::new();
        let mut record = vec![0; 8192];
        loop {
            match self.file.read(&mut record) {
                Ok(0) => return Ok(messages),
                Ok(len) => {
                    let text = String::from_utf8_lossy(&record[..len]);
                    if let Some((_, message)) = text.split_once(';') {
                        messages.extend(message.lines().next().map(str::to_owned));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(messages),
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    bail!("the kernel's log has overflowed: what happened is not known")
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot read the kernel's log"),
            }
        }
    }
}
