//! A running machine.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use palisade_guest_program::protocol::{Answer, FAULTS_OVER, FAULTS_PROVOKED};
use rustix::process::{Pid, Signal, kill_process};

use super::launch::{Console, Ports};
use super::report::{Listener, Seen};

/// How often a machine is looked at while it says nothing.
const TICK: Duration = Duration::from_millis(100);

/// How long a machine may take to switch itself off, and a launcher to end after its machine.
const LAST_PATIENCE: Duration = Duration::from_secs(30);

/// So many lines of a log go into an error.
const TOLD_LINES: usize = 12;

/// A started machine: the process that we started, which is QEMU or ends with it. When this value goes, so do
/// they.
#[derive(Debug)]
pub struct Guest {
    process: Child,
    ended: Option<ExitStatus>,
    listener: Listener,
    seen: Seen,
    ports: Ports,
    started: Instant,
}

impl Guest {
    /// Starts `command`, which must start a QEMU with the ports of `console`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(mut command: Command, console: Console) -> anyhow::Result<Self> {
        let Console { listener, ports } = console;
        let listener = Listener::start(listener, File::create(&ports.report)?)?;
        let launcher = File::create(&ports.launcher)?;
        let process = command
            .stdin(Stdio::null())
            .stdout(launcher.try_clone()?)
            .stderr(launcher)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self {
            process,
            ended: None,
            listener,
            seen: Seen::default(),
            ports,
            started: Instant::now(),
        })
    }

    /// What it has said, as far as it was waited for.
    #[must_use]
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// How long ago it was started.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits until what it has said satisfies `enough`.
    ///
    /// # Errors
    /// It ends before, or does not say so in good time.
    pub fn wait_for(
        &mut self,
        what: &str,
        patience: Duration,
        enough: impl Fn(&Seen) -> bool,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        while !enough(&self.seen) {
            if let Some(line) = self.listener.next(TICK) {
                self.seen.push(line);
                continue;
            }
            if let Some(status) = self.poll()? {
                self.hear_the_rest();
                ensure!(
                    enough(&self.seen),
                    "{} ended with {status} before {what}{}",
                    self.ports.name,
                    self.last_words()
                );
            }
            ensure!(
                !self.seen.is_done(),
                "{} came to its end without {what}{}",
                self.ports.name,
                self.last_words()
            );
            ensure!(
                Instant::now() < deadline,
                "{}: no {what} in {} s{}",
                self.ports.name,
                patience.as_secs(),
                self.last_words()
            );
        }
        Ok(())
    }

    /// Lets a guest that waits for us go on.
    ///
    /// # Errors
    /// It is not there.
    pub fn go_on(&self) -> anyhow::Result<()> {
        self.answer(Answer::GoOn)
    }

    /// Answers a guest that waits for us.
    ///
    /// # Errors
    /// It is not there.
    pub fn answer(&self, answer: Answer) -> anyhow::Result<()> {
        self.listener
            .send(answer)
            .with_context(|| format!("{} cannot be told to {}", self.ports.name, answer.word()))
    }

    /// Waits until the scenario is over and the machine has switched itself off, and returns all it said.
    ///
    /// # Errors
    /// It does not come to that in good time, its process fails, or its kernel found something broken.
    pub fn finish(mut self, patience: Duration) -> anyhow::Result<Seen> {
        self.wait_for("end of the scenario", patience, Seen::is_done)?;
        let status = self.wait_for_end()?;
        ensure!(
            status.success(),
            "{} said all it had to say, but ended with {status}{}",
            self.ports.name,
            self.last_words()
        );
        let console = fs::read(&self.ports.console)?;
        let complaints = complaints(&String::from_utf8_lossy(&console));
        ensure!(
            complaints.is_empty(),
            "{}: its kernel complains:\n    {}",
            self.ports.name,
            complaints.join("\n    ")
        );
        Ok(std::mem::take(&mut self.seen))
    }

    /// Ends the machine as a crash would: SIGKILL to QEMU itself. Returns when what we started has ended too.
    ///
    /// # Errors
    /// There is no QEMU to kill, or its launcher does not end with it.
    pub fn kill(mut self) -> anyhow::Result<Seen> {
        let pid = self
            .qemu_pid()
            .with_context(|| format!("{} is not running", self.ports.name))?;
        kill_process(pid, Signal::KILL)
            .with_context(|| format!("cannot kill {}", self.ports.name))?;
        self.wait_for_end()?;
        self.hear_the_rest();
        Ok(std::mem::take(&mut self.seen))
    }

    /// What it said last may still be on its way.
    /// What it said before it ended, which a busy machine may take a while to hand over.
    fn hear_the_rest(&mut self) {
        let deadline = Instant::now() + LAST_PATIENCE;
        loop {
            let is_last = !self.listener.is_connected() || Instant::now() > deadline;
            while let Some(line) = self.listener.next(TICK) {
                self.seen.push(line);
            }
            if is_last {
                return;
            }
        }
    }

    fn poll(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.process.try_wait()?;
        }
        Ok(self.ended)
    }

    fn wait_for_end(&mut self) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + LAST_PATIENCE;
        loop {
            if let Some(status) = self.poll()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} does not end{}", self.ports.name, self.last_words());
            }
            std::thread::sleep(TICK);
        }
    }

    /// QEMU's process, if it is running. A launcher has it as a child, so that its id is QEMU's own word.
    fn qemu_pid(&self) -> anyhow::Result<Pid> {
        let text = fs::read_to_string(&self.ports.pid).context("QEMU has not told its id")?;
        let pid: i32 = text.trim().parse().context("QEMU's id is not a number")?;
        // The id may be another's by now; QEMU is the one with our file on its command line.
        let command = fs::read(format!("/proc/{pid}/cmdline")).context("QEMU has ended")?;
        let ours = self.ports.pid.display().to_string();
        ensure!(
            command
                .split(|byte| *byte == 0)
                .any(|word| word == ours.as_bytes()),
            "QEMU has ended"
        );
        Pid::from_raw(pid).ok_or_else(|| anyhow!("QEMU's id is {pid}"))
    }

    fn last_words(&self) -> String {
        let mut words = String::new();
        for (check, reason) in self.seen.failures() {
            words.push_str(&format!("\n    {check}: {reason}"));
        }
        for log in [&self.ports.launcher, &self.ports.console] {
            let lines = last_lines(log);
            if !lines.is_empty() {
                words.push_str(&format!("\n    {} ends with\n{lines}", log.display()));
            }
        }
        words
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Ok(pid) = self.qemu_pid() {
            let _ = kill_process(pid, Signal::KILL);
        }
        if !matches!(self.poll(), Ok(Some(_))) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// What a kernel says when it finds itself or its hardware broken, at any time.
const BROKEN: [&str; 10] = [
    "WARNING:",
    "BUG:",
    "Oops",
    "Call Trace",
    "blocked for more than",
    "nobody cared",
    "malfunction",
    "Invalidation Time-out",
    "Invalidation Queue Error",
    "VT-d detected",
];

/// What it says of an access that its tables forbid.
const FAULT: [&str; 3] = ["handling fault status", "[fault reason", "fault addr"];

/// How the log of a boot starts.
const BOOT: &str = "Linux version ";

/// What a kernel complains of. Of what processes make the device do wrong it may tell from there on where the
/// guest says that they do, until it says that they do no more, or boots again.
fn complaints(console: &str) -> Vec<String> {
    let mut provoked = false;
    let mut found = Vec::new();
    let has = |line: &str, words: &[&str]| words.iter().any(|word| line.contains(word));
    for line in console.lines() {
        if line.contains(BOOT) || line.contains(FAULTS_OVER) {
            provoked = false;
        } else if line.contains(FAULTS_PROVOKED) {
            provoked = true;
        } else if has(line, &BROKEN) || (!provoked && has(line, &FAULT)) {
            found.push(line.trim_end().to_owned());
        }
    }
    found
}

fn last_lines(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.trim_end())
        .filter(|line| !line.is_empty())
        .map(|line| format!("        {line}"))
        .collect();
    lines[lines.len().saturating_sub(TOLD_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Layout;

    /// A machine that is a shell script.
    fn start(folder: &tempfile::TempDir, script: &str) -> Guest {
        let console = Console::new(&Layout::at(folder.path()), "test").unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Guest::start(command, console).unwrap()
    }

    #[test]
    fn a_kernels_complaints_are_found() {
        let console = "[ 1.0] iommu: Default domain type: Translated\r\n\
                       [ 2.0] WARNING: CPU: 0 PID: 1 at drivers/iommu/intel/iommu.c:1\r\n";
        let found = complaints(console);
        assert_eq!(found.len(), 1);
        assert!(found[0].ends_with("iommu.c:1"));
    }

    #[test]
    fn a_fault_is_a_complaint_unless_the_guest_provokes_it() {
        let fault = "[ 3.0] DMAR: [DMA Read NO_PASID] Request device [00:11.0] fault addr 0x0 \
                     [fault reason 0x71] SM: Present bit in first-level paging entry is clear\n\
                     [ 3.0] DMAR: DRHD: handling fault status reg 2\n";
        assert_eq!(complaints(fault).len(), 2);
        let provoked = format!("[ 2.0] {FAULTS_PROVOKED}\n{fault}");
        assert_eq!(complaints(&provoked), [""; 0]);
        let again = format!("{provoked}[ 0.0] Linux version 7.3.4\n{fault}");
        assert_eq!(complaints(&again).len(), 2);
        let over = format!("{provoked}[ 3.1] {FAULTS_OVER}\n{fault}");
        assert_eq!(complaints(&over).len(), 2);
        let broken = format!("{provoked}[ 4.0] BUG: unable to handle page fault\n");
        assert_eq!(complaints(&broken).len(), 1);
    }

    #[test]
    fn a_machine_that_ends_early_is_told_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let guest = start(&folder, "echo no firmware; exit 3");
        let error = guest
            .finish(Duration::from_secs(10))
            .unwrap_err()
            .to_string();
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(error.contains("no firmware"), "{error}");
    }

    #[test]
    fn a_machine_that_says_nothing_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let guest = start(&folder, "exec sleep 1000");
        let pid = guest.process.id();
        let error = guest.finish(Duration::from_millis(300)).unwrap_err();
        assert!(
            error.to_string().contains("no end of the scenario"),
            "{error}"
        );
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_machine_without_a_qemu_cannot_be_killed() {
        let folder = tempfile::tempdir().unwrap();
        let guest = start(&folder, "exec sleep 1000");
        let error = guest.kill().unwrap_err();
        assert!(error.to_string().contains("not running"), "{error}");
    }
}
