//! The lines that a guest writes on its report port, one event each.
//!
//! ```text
//! PALISADE: pass CHECK DETAIL…
//! PALISADE: fail CHECK REASON…
//! PALISADE: note KEY VALUE…
//! PALISADE: done
//! ```
//!
//! A check or a key is one word. Everything else on the port is noise and is skipped. The host writes an
//! [`Answer`], one word on a line, for a guest that waits until the host has looked at something.

use std::fmt;
use std::str::FromStr;

/// What each line of the protocol starts with.
pub const PREFIX: &str = "PALISADE: ";

/// What the host writes to a waiting guest, with a line feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Continue.
    GoOn,
    /// Reboot in order: drivers shut their devices down.
    Reboot,
    /// Reset the machine at once, with everything at work.
    Reset,
}

impl Answer {
    const ALL: [Self; 3] = [Self::GoOn, Self::Reboot, Self::Reset];

    /// The word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::GoOn => "go",
            Self::Reboot => "reboot",
            Self::Reset => "reset",
        }
    }

    /// The answer of that word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|answer| answer.word() == word)
    }
}

/// What a guest writes into its kernel's log before it makes the device access what it may not. A fault that
/// the kernel tells of before is nobody's wish.
pub const FAULTS_PROVOKED: &str = "palisade: faults are provoked from here on";

/// What it writes when the kernel has told of all that were provoked. The next is nobody's wish again.
pub const FAULTS_OVER: &str = "palisade: no more faults are provoked";

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A check came out as it must.
    Pass {
        /// Its name, one word.
        check: String,
        /// What was seen; may be empty.
        detail: String,
    },
    /// A check did not.
    Fail {
        /// Its name, one word.
        check: String,
        /// Why, for people.
        reason: String,
    },
    /// A fact that the host may use.
    Note {
        /// What it is about, one word.
        key: String,
        /// The fact.
        value: String,
    },
    /// The scenario is over, whatever came of it. The guest powers off after this.
    Done,
}

/// The text is not a line of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a line of the protocol")]
pub struct NotALine;

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        let (kind, word, rest) = match self {
            Self::Pass { check, detail } => ("pass", check, detail),
            Self::Fail { check, reason } => ("fail", check, reason),
            Self::Note { key, value } => ("note", key, value),
            Self::Done => return f.write_str("done"),
        };
        write!(f, "{kind} {word}")?;
        if rest.is_empty() {
            return Ok(());
        }
        // One event is one line, whatever an error message contains.
        write!(f, " {}", rest.replace(['\n', '\r'], " "))
    }
}

impl FromStr for Line {
    type Err = NotALine;

    fn from_str(text: &str) -> Result<Self, NotALine> {
        let start = text.find(PREFIX).ok_or(NotALine)?;
        let text = text.get(start + PREFIX.len()..).ok_or(NotALine)?.trim();
        if text == "done" {
            return Ok(Self::Done);
        }
        let (kind, rest) = text.split_once(' ').ok_or(NotALine)?;
        let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        if word.is_empty() {
            return Err(NotALine);
        }
        let (word, rest) = (word.to_owned(), rest.trim().to_owned());
        match kind {
            "pass" => Ok(Self::Pass {
                check: word,
                detail: rest,
            }),
            "fail" => Ok(Self::Fail {
                check: word,
                reason: rest,
            }),
            "note" => Ok(Self::Note {
                key: word,
                value: rest,
            }),
            _ => Err(NotALine),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_reads_back_as_it_was_written() {
        for line in [
            Line::Pass {
                check: "copy-touched".into(),
                detail: String::new(),
            },
            Line::Fail {
                check: "copy-untouched".into(),
                reason: "status 0x13 at 0x7f00 after 4096 bytes".into(),
            },
            Line::Note {
                key: "copies".into(),
                value: "17".into(),
            },
            Line::Done,
        ] {
            assert_eq!(line.to_string().parse(), Ok(line.clone()));
            assert_eq!(format!("noise {line}\r\n").parse(), Ok(line));
        }
    }

    #[test]
    fn a_reason_of_several_lines_is_one_event() {
        let line = Line::Fail {
            check: "bring-up".into(),
            reason: "first\nsecond".into(),
        };
        assert_eq!(line.to_string(), "PALISADE: fail bring-up first second");
    }

    #[test]
    fn an_answer_is_known_by_its_word() {
        for answer in Answer::ALL {
            assert_eq!(Answer::of_word(answer.word()), Some(answer));
        }
        assert_eq!(Answer::of_word("stop"), None);
    }

    #[test]
    fn noise_is_not_a_line() {
        for text in [
            "",
            "PALISADE: ",
            "PALISADE: pass",
            "PALISADE: else word",
            "done",
        ] {
            assert_eq!(text.parse::<Line>(), Err(NotALine), "{text:?}");
        }
    }
}
