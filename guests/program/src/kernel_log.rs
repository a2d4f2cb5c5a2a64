//! What the kernel says.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::protocol::{FAULTS_OVER, FAULTS_PROVOKED};

/// `O_NONBLOCK`: reading ends where the log ends.
const NON_BLOCKING: i32 = 0o4000;

/// Where it is read and written.
const LOG: &str = "/dev/kmsg";

/// How long a message that must come may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Says in the log that the faults from here on are wanted.
///
/// # Errors
/// The kernel does not allow it.
pub fn expect_faults() -> anyhow::Result<()> {
    std::fs::write(LOG, format!("<4>{FAULTS_PROVOKED}")).context("cannot write the kernel's log")
}

/// Says in the log that no more of them are. The kernel must have told of each by now.
///
/// # Errors
/// The kernel does not allow it.
pub fn expect_no_more_faults() -> anyhow::Result<()> {
    std::fs::write(LOG, format!("<4>{FAULTS_OVER}")).context("cannot write the kernel's log")
}

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
            .open(LOG)
            .context("cannot open the kernel's log")?;
        Ok(Self { file })
    }

    /// Waits for a message in which each of `words` is, and returns it.
    ///
    /// # Errors
    /// The log cannot be read, or does not say so in good time; the error has what it says instead.
    pub fn wait_for(&mut self, words: &[String]) -> anyhow::Result<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while Instant::now() < deadline {
            for message in self.new_messages()? {
                if words.iter().all(|word| message.contains(word)) {
                    return Ok(message);
                }
                seen.push(message);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!(
            "the kernel does not tell of {}, but: {}",
            words.join(", "),
            seen.join("; ")
        )
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
