//! A process that copies its own memory by one queue, over and over, and checks every byte.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::buffer::{Buffer, Pattern};
use crate::dsa::{Copy, OnFault, Outcome, WorkQueue};
use crate::report::Report;

const SOURCE_BYTES: usize = 1 << 20;
const DESTINATION_BYTES: usize = 1 << 20;
const LONGEST_COPY_BYTES: u64 = 128 << 10;

/// So often a copy goes to memory that nobody has touched.
const FRESH_EVERY: u64 = 16;

/// So often the host hears of it.
const NOTE_EVERY: Duration = Duration::from_millis(500);

/// Longer than any scenario lasts.
const LONGEST: Duration = Duration::from_secs(1200);

/// What a worker process is started with.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Its name in the report, one word.
    pub name: String,
    /// The queue's device file.
    pub queue: PathBuf,
    /// It works until this file is there.
    pub stop: PathBuf,
    /// Its bytes differ from those of others.
    pub seed: u64,
    /// How it is to end.
    pub ending: Ending,
}

/// How a worker's work must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// When it is told to, with every copy done.
    Stopped,
    /// When its queue is taken from it: by the first copy that is not done. Those before are, to the byte.
    Cut,
}

impl Ending {
    const fn word(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Cut => "cut",
        }
    }
}

impl FromStr for Ending {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> anyhow::Result<Self> {
        let known = [Self::Stopped, Self::Cut];
        let found = known.into_iter().find(|ending| ending.word() == word);
        found.with_context(|| format!("a worker ends stopped or cut, not {word}"))
    }
}

impl Worker {
    /// As arguments of this program.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        vec![
            "worker".to_owned(),
            self.name.clone(),
            self.queue.display().to_string(),
            self.stop.display().to_string(),
            self.seed.to_string(),
            self.ending.word().to_owned(),
        ]
    }

    /// Starts it as a process of its own.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn start(&self) -> anyhow::Result<Child> {
        Command::new("/proc/self/exe")
            .args(self.arguments())
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start the worker {}", self.name))
    }

    /// From those arguments, the word `worker` taken off.
    ///
    /// # Errors
    /// They are not five, or not understood.
    pub fn from_arguments(arguments: &[String]) -> anyhow::Result<Self> {
        let [name, queue, stop, seed, ending] = arguments else {
            bail!("worker takes NAME QUEUE STOP-FILE SEED ENDING");
        };
        Ok(Self {
            name: name.clone(),
            queue: queue.into(),
            stop: stop.into(),
            seed: seed.parse().context("SEED")?,
            ending: ending.parse()?,
        })
    }
}

#[derive(Debug, Default)]
struct Done {
    copies: u64,
    bytes: u64,
    /// How the last copy ended that was not done.
    cut: Option<String>,
}

/// Works, and reports progress and how it came out, as one check by the worker's name.
///
/// # Errors
/// The report port cannot be opened.
pub fn run(worker: &Worker) -> anyhow::Result<()> {
    let report = Report::open()?;
    let outcome = work(worker, &report);
    report.outcome(
        &worker.name,
        outcome.map(|done| {
            let cut = done.cut.map(|why| format!(", then {why}"));
            let cut = cut.unwrap_or_default();
            format!("{} copies, {} bytes{cut}", done.copies, done.bytes)
        }),
    );
    Ok(())
}

fn work(worker: &Worker, report: &Report) -> anyhow::Result<Done> {
    let queue = WorkQueue::open(&worker.queue)?;
    let source = Buffer::filled(SOURCE_BYTES, Pattern(worker.seed))?;
    let mut destination = Buffer::filled(DESTINATION_BYTES, Pattern(!worker.seed))?;
    let mut choice = Choice(worker.seed);
    let started = Instant::now();
    let mut noted = started;
    let mut done = Done::default();
    // At least one copy; then as long as nobody minds.
    while done.copies == 0 || !worker.stop.exists() {
        ensure!(
            started.elapsed() < LONGEST,
            "nobody has ended the work after {} s",
            LONGEST.as_secs()
        );
        if done.copies % FRESH_EVERY == FRESH_EVERY - 1 {
            destination = Buffer::untouched(DESTINATION_BYTES)?;
        }
        let len = 1 + choice.below(LONGEST_COPY_BYTES);
        let from = usize::try_from(choice.below(SOURCE_BYTES as u64 - len))?;
        let to = usize::try_from(choice.below(DESTINATION_BYTES as u64 - len))?;
        let finished = queue.copy(Copy {
            from: source.address(from),
            to: destination.address(to),
            len_bytes: u32::try_from(len)?,
            on_fault: OnFault::Block,
        });
        let missed = match finished {
            Ok(finished) if finished.outcome == Outcome::Success => None,
            Ok(finished) => Some(finished.outcome.to_string()),
            Err(late) => Some(late.to_string()),
        };
        match (missed, worker.ending) {
            (None, _) => {}
            (missed, Ending::Cut) => {
                done.cut = missed;
                return Ok(done);
            }
            (Some(why), Ending::Stopped) => {
                bail!("copy {} of {len} bytes: {why}", done.copies)
            }
        }
        destination
            .expect_pattern(to, Pattern(worker.seed), from, usize::try_from(len)?)
            .with_context(|| format!("copy {} of {len} bytes", done.copies))?;
        done.copies += 1;
        done.bytes += len;
        if done.copies == 1 || noted.elapsed() > NOTE_EVERY {
            report.note(&worker.name, done.copies);
            noted = Instant::now();
        }
    }
    source.expect_pattern(0, Pattern(worker.seed), 0, SOURCE_BYTES)?;
    ensure!(
        worker.ending == Ending::Stopped,
        "its queue was to be taken from it, but all copies were done"
    );
    Ok(done)
}

/// Numbers that look random and can be had again.
struct Choice(u64);

impl Choice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(0x5851_F42D_4C95_7F2D)
            .wrapping_add(0x1405_7B7E_F767_814F);
        (self.0 >> 33) % bound.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_reads_back_its_own_arguments() {
        let worker = Worker {
            name: "first".into(),
            queue: "/dev/dsa/wq0.0".into(),
            stop: "/tmp/stop".into(),
            seed: 9,
            ending: Ending::Cut,
        };
        let arguments = worker.arguments();
        let again = Worker::from_arguments(&arguments[1..]).unwrap();
        assert_eq!(again.arguments(), arguments);
        assert!(Worker::from_arguments(&arguments).is_err());
    }
}
