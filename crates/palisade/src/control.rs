//! The operator's socket: a question a line, one JSON document as the answer.

use std::{
    fmt,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

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

/// Asks the host behind `socket` for its ledger.
///
/// # Errors
/// Where nobody answers, or answers with a refusal.
pub fn ask_ledger(socket: &Path) -> anyhow::Result<Ledger> {
    let mut stream = UnixStream::connect(socket).with_context(|| {
        format!(
            "{}: no host answers; name with --socket what the configuration of a running host calls `control`",
            socket.display()
        )
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"ledger\n")?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .context("read the answer")?;
    if let Ok(refusal) = serde_json::from_str::<Refusal>(&answer) {
        anyhow::bail!("the host refuses: {}", refusal.error);
    }
    serde_json::from_str(&answer).context("the answer is no ledger")
}

/// Answers one client. What goes wrong with it is its own matter.
pub(crate) fn answer(stream: &UnixStream, ledger: impl FnOnce() -> Ledger) -> anyhow::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut question = String::new();
    BufReader::new(stream)
        .take(QUESTION_MAX_BYTES)
        .read_line(&mut question)?;
    let answer = match question.trim_end() {
        "ledger" => serde_json::to_vec(&ledger())?,
        other => serde_json::to_vec(&Refusal {
            error: format!("{other:?} is no question: \"ledger\" is"),
        })?,
    };
    let mut stream = stream;
    stream.write_all(&answer)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(question: &str) -> String {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(question.as_bytes()).unwrap();
        answer(&ours, || Ledger {
            outstanding: 3,
            tenants: Vec::new(),
        })
        .unwrap();
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
    fn anything_else_is_refused_in_words() {
        assert!(ask("ledgers\n").contains("is no question"));
        assert!(ask(&"x".repeat(300)).contains("is no question"));
    }
}
