//! What a machine has said on its report port.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use palisade_guest_program::protocol::{Answer, Line};

/// How often the listener looks whether it shall end.
const TICK: Duration = Duration::from_millis(20);

/// The longest line of a report. What a guest sends beyond is cut off.
const LONGEST_LINE_BYTES: u64 = 64 << 10;

/// Everything said so far.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    lines: Vec<Line>,
}

impl Seen {
    pub(super) fn push(&mut self, line: Line) {
        self.lines.push(line);
    }

    /// Whether the guest has said that its scenario is over.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.lines.contains(&Line::Done)
    }

    /// The last fact told under `key`.
    #[must_use]
    pub fn note(&self, key: &str) -> Option<&str> {
        self.lines.iter().rev().find_map(|line| match line {
            Line::Note { key: told, value } if told == key => Some(value.as_str()),
            _ => None,
        })
    }

    /// How `check` came out, if it has: its detail, or the reason why it failed. One that came out both ways
    /// failed.
    #[must_use]
    pub fn check(&self, check: &str) -> Option<Result<&str, &str>> {
        let failed = self.lines.iter().find_map(|line| match line {
            Line::Fail {
                check: told,
                reason,
            } if told == check => Some(Err(reason.as_str())),
            _ => None,
        });
        failed.or_else(|| {
            self.lines.iter().find_map(|line| match line {
                Line::Pass {
                    check: told,
                    detail,
                } if told == check => Some(Ok(detail.as_str())),
                _ => None,
            })
        })
    }

    /// How often `check` passed: once in each boot, if the machine was booted again.
    #[must_use]
    pub fn passes(&self, check: &str) -> usize {
        let passed = |line: &&Line| matches!(line, Line::Pass { check: told, .. } if told == check);
        self.lines.iter().filter(passed).count()
    }

    /// All checks that failed, with their reasons.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines.iter().filter_map(|line| match line {
            Line::Fail { check, reason } => Some((check.as_str(), reason.as_str())),
            _ => None,
        })
    }
}

/// Listens for a machine's report port. A launcher may start QEMU more than once: each connection is heard.
#[derive(Debug)]
pub(super) struct Listener {
    lines: Receiver<Line>,
    current: Arc<Mutex<Option<UnixStream>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    pub(super) fn start(listener: UnixListener, log: File) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        let (sender, lines) = channel();
        let current = Arc::new(Mutex::new(None));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (current, stop) = (Arc::clone(&current), Arc::clone(&stop));
            move || listen(&listener, &sender, &current, &stop, log)
        });
        Ok(Self {
            lines,
            current,
            stop,
            thread: Some(thread),
        })
    }

    /// The next line, or none after `patience`.
    pub(super) fn next(&self, patience: Duration) -> Option<Line> {
        self.lines.recv_timeout(patience).ok()
    }

    /// Whether there is a guest whose lines may still come. Those of one that is gone can be had already.
    pub(super) fn is_connected(&self) -> bool {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.is_some()
    }

    /// Answers a guest that waits.
    pub(super) fn send(&self, answer: Answer) -> std::io::Result<()> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match current.as_ref() {
            Some(mut stream) => stream.write_all(format!("{}\n", answer.word()).as_bytes()),
            None => Err(ErrorKind::NotConnected.into()),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = current.as_ref() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        drop(current);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(
    listener: &UnixListener,
    lines: &Sender<Line>,
    current: &Mutex<Option<UnixStream>>,
    stop: &AtomicBool,
    mut log: File,
) {
    while !stop.load(Ordering::Acquire) {
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(TICK);
            continue;
        };
        let Ok(writer) = stream
            .set_nonblocking(false)
            .and_then(|()| stream.try_clone())
        else {
            continue;
        };
        *current.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer);
        if stop.load(Ordering::Acquire) {
            // The end may have been asked for before there was a stream to shut down.
            return;
        }
        read_lines(stream, lines, &mut log);
        *current.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn read_lines(stream: UnixStream, lines: &Sender<Line>, log: &mut File) {
    use std::io::Read;

    let mut reader = BufReader::new(stream);
    loop {
        let mut bytes = Vec::new();
        let read = reader
            .by_ref()
            .take(LONGEST_LINE_BYTES)
            .read_until(b'\n', &mut bytes);
        if !matches!(read, Ok(len) if len > 0) {
            return;
        }
        // The log is for people; a full disk shows elsewhere.
        let _ = log.write_all(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(line) = text.parse()
            && lines.send(line).is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_each_connection_are_heard_and_noise_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("report");
        let log = folder.path().join("log");
        let listener = UnixListener::bind(&socket).unwrap();
        let listener = Listener::start(listener, File::create(&log).unwrap()).unwrap();
        let patience = Duration::from_secs(10);
        for value in ["1", "2"] {
            let mut guest = UnixStream::connect(&socket).unwrap();
            writeln!(guest, "noise\r\nPALISADE: note boot {value}\r").unwrap();
            let line = Line::Note {
                key: "boot".into(),
                value: value.into(),
            };
            assert_eq!(listener.next(patience), Some(line));
            listener.send(Answer::GoOn).unwrap();
            let mut answer = String::new();
            BufReader::new(guest).read_line(&mut answer).unwrap();
            assert_eq!(answer, "go\n");
        }
        drop(listener);
        assert!(std::fs::read_to_string(&log).unwrap().contains("noise"));
    }

    #[test]
    fn a_check_that_came_out_both_ways_failed() {
        let mut seen = Seen::default();
        for text in [
            "pass a fine",
            "pass b fine",
            "fail b broken",
            "note k 1",
            "note k 2",
        ] {
            seen.push(format!("PALISADE: {text}").parse().unwrap());
        }
        assert_eq!(seen.check("a"), Some(Ok("fine")));
        assert_eq!(seen.check("b"), Some(Err("broken")));
        assert_eq!(seen.check("c"), None);
        assert_eq!((seen.passes("a"), seen.passes("c")), (1, 0));
        assert_eq!(seen.note("k"), Some("2"));
        assert_eq!(seen.failures().collect::<Vec<_>>(), [("b", "broken")]);
        assert!(!seen.is_done());
    }
}
