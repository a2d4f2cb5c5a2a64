//! Saying what was seen.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::sync::Mutex;

use anyhow::Context;

use crate::protocol::{Answer, Line};

/// The report port: the second serial port, which the kernel does not write to.
const PORT: &str = "/dev/ttyS1";

/// Where lines go. Each is one write, so that lines of several processes never mix.
#[derive(Debug)]
pub struct Report {
    port: Mutex<File>,
}

impl Report {
    /// Opens the report port.
    ///
    /// # Errors
    /// The port cannot be opened.
    pub fn open() -> anyhow::Result<Self> {
        let port = OpenOptions::new()
            .read(true)
            .write(true)
            .open(PORT)
            .with_context(|| format!("cannot open the report port {PORT}"))?;
        Ok(Self {
            port: Mutex::new(port),
        })
    }

    /// Says that a check came out as it must.
    pub fn pass(&self, check: &str, detail: impl ToString) {
        self.say(&Line::Pass {
            check: check.to_owned(),
            detail: detail.to_string(),
        });
    }

    /// Says that a check failed.
    pub fn fail(&self, check: &str, reason: impl ToString) {
        self.say(&Line::Fail {
            check: check.to_owned(),
            reason: reason.to_string(),
        });
    }

    /// Says how a check came out: its detail, or the whole chain of its error.
    pub fn outcome<T: ToString>(&self, check: &str, outcome: anyhow::Result<T>) {
        match outcome {
            Ok(detail) => self.pass(check, detail),
            Err(error) => self.fail(check, format!("{error:#}")),
        }
    }

    /// Tells a fact.
    pub fn note(&self, key: &str, value: impl ToString) {
        self.say(&Line::Note {
            key: key.to_owned(),
            value: value.to_string(),
        });
    }

    /// Says that the scenario is over.
    pub fn done(&self) {
        self.say(&Line::Done);
    }

    /// Waits until the host says to go on.
    ///
    /// # Errors
    /// The port cannot be read, or the host says something else.
    pub fn wait_for_host(&self) -> anyhow::Result<()> {
        match self.wait_for_answer()? {
            Answer::GoOn => Ok(()),
            other => anyhow::bail!("the host says {}, which is not for here", other.word()),
        }
    }

    /// Waits until the host says something.
    ///
    /// # Errors
    /// The port cannot be read.
    pub fn wait_for_answer(&self) -> anyhow::Result<Answer> {
        let port = File::open(PORT).context("cannot open the report port for reading")?;
        for line in BufReader::new(port).lines() {
            if let Some(answer) = Answer::of_word(line?.trim()) {
                return Ok(answer);
            }
        }
        anyhow::bail!("the report port ended while waiting for the host")
    }

    fn say(&self, line: &Line) {
        let text = format!("{line}\n");
        let write = |mut port: &File| -> io::Result<()> {
            port.write_all(text.as_bytes())?;
            port.flush()
        };
        let written = match self.port.lock() {
            Ok(port) => write(&port),
            Err(poisoned) => write(&poisoned.into_inner()),
        };
        if let Err(error) = written {
            // The console is all that is left to complain to; the host sees that `done` is missing.
            eprintln!("cannot write to the report port: {error}");
        }
    }
}
