//! The operator's socket: a question a line, one JSON document as the answer.

mod events;

use std::{
    fmt,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::Context;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub(crate) use events::WallClock;
pub use events::{EventLine, EventPage};

/// Longer questions are refused.
const QUESTION_MAX_BYTES: u64 = 256;
/// A peer that does not speak or listen for this long is hung up on.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who holds which PASID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// PASIDs out, over all tenants.
    pub outstanding: u32,
    /// The tenants, in the order of the configuration.
    pub tenants: Vec<LedgerTenant>,
}

/// One tenant's part of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerTenant {
    /// Its name.
    pub name: String,
    /// The process that it is at the moment.
    pub pid: Option<i32>,
    /// How many PASIDs it may hold.
    pub quota: u32,
    /// What it holds.
    pub pasids: Vec<LedgerLine>,
}

/// One PASID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerLine {
    /// The host's number.
    pub pasid: u32,
    /// The guest's number for it.
    pub guest: Option<u32>,
    /// References: entries and queues that use it.
    pub references: u32,
    /// idle, active or free-pending.
    pub state: String,
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} PASIDs out", self.outstanding)?;
        for tenant in &self.tenants {
            let process = tenant
                .pid
                .map_or("nobody".to_owned(), |pid| format!("process {pid}"));
            writeln!(
                f,
                "{} ({process}): {} of {}",
                tenant.name,
                tenant.pasids.len(),
                tenant.quota
            )?;
            for line in &tenant.pasids {
                let guest = line.guest.map_or("-".to_owned(), |g| g.to_string());
                writeln!(
                    f,
                    "  {:>7} guest {guest:>7} {:<12} {} references",
                    line.pasid, line.state, line.references
                )?;
            }
        }
        Ok(())
    }
}

/// The answer to a question that could not be answered.
#[derive(Debug, Serialize, Deserialize)]
struct Refusal {
    error: String,
}

/// What a host can be asked for.
pub(crate) trait Books {
    /// Who holds which PASID.
    fn ledger(&self) -> Ledger;
    /// What happened from the event with this number on.
    fn events(&self, since: u64) -> EventPage;
}

/// Asks the host behind `socket` for its ledger.
///
/// # Errors
/// Where nobody answers, or answers with a refusal.
pub fn ask_ledger(socket: &Path) -> anyhow::Result<Ledger> {
    ask(socket, "ledger")
}

/// Asks the host behind `socket` for its events from number `since` on.
///
/// # Errors
/// Where nobody answers, or answers with a refusal.
pub fn ask_events(socket: &Path, since: u64) -> anyhow::Result<EventPage> {
    ask(socket, &format!("events {since}"))
}

fn ask<T: DeserializeOwned>(socket: &Path, question: &str) -> anyhow::Result<T> {
    let mut stream = UnixStream::connect(socket).with_context(|| {
        format!(
            "{}: no host answers; name with --socket what the configuration of a running host calls `control`",
            socket.display()
        )
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{question}\n").as_bytes())?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .context("read the answer")?;
    if let Ok(refusal) = serde_json::from_str::<Refusal>(&answer) {
        anyhow::bail!("the host refuses: {}", refusal.error);
    }
    serde_json::from_str(&answer).context("the answer cannot be read")
}

/// Answers one client. What goes wrong with it is its own matter.
pub(crate) fn answer(stream: &UnixStream, books: &impl Books) -> anyhow::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut question = String::new();
    BufReader::new(stream)
        .take(QUESTION_MAX_BYTES)
        .read_line(&mut question)?;
    let question = question.trim_end();
    let since = question
        .strip_prefix("events ")
        .and_then(|n| n.parse().ok());
    let answer = match (question, since) {
        ("ledger", _) => serde_json::to_vec(&books.ledger())?,
        (_, Some(since)) => serde_json::to_vec(&books.events(since))?,
        (other, None) => serde_json::to_vec(&Refusal {
            error: format!("{other:?} is no question: \"ledger\" and \"events NUMBER\" are"),
        })?,
    };
    let mut stream = stream;
    stream.write_all(&answer)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Few;

    impl Books for Few {
        fn ledger(&self) -> Ledger {
            Ledger {
                outstanding: 3,
                tenants: Vec::new(),
            }
        }

        fn events(&self, since: u64) -> EventPage {
            EventPage {
                events: Vec::new(),
                dropped: 0,
                next: since,
            }
        }
    }

    fn ask(question: &str) -> String {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(question.as_bytes()).unwrap();
        answer(&ours, &Few).unwrap();
        drop(ours);
        let mut text = String::new();
        theirs.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn the_ledger_is_one_document() {
        assert_eq!(ask("ledger\n"), r#"{"outstanding":3,"tenants":[]}"#);
    }

    #[test]
    fn events_are_asked_for_by_number() {
        assert_eq!(ask("events 7\n"), r#"{"events":[],"dropped":0,"next":7}"#);
    }

    #[test]
    fn anything_else_is_refused_in_words() {
        assert!(ask("ledgers\n").contains("is no question"));
        assert!(ask("events -1\n").contains("is no question"));
        assert!(ask(&"x".repeat(300)).contains("is no question"));
    }
}
