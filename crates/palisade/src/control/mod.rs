//! The operator's socket: a question a line, one JSON document as the answer.
//!
//! Only the owner of the host may ask, or root: the socket is made so that nobody else can open it, and who
//! opened it is asked again.

mod clock;
mod events;
mod ledger;
mod limits;
mod question;
#[cfg(test)]
mod tests;

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::Context;
use rustix::{
    io::Errno,
    net::sockopt::socket_peercred,
    process::{Uid, geteuid},
};
use serde::{Serialize, de::DeserializeOwned};

pub(crate) use clock::WallClock;
pub(crate) use events::Names;
pub use events::{EventLine, EventPage};
pub use ledger::{Ledger, LedgerBinding, LedgerLine, LedgerTenant};
pub use limits::{GroupLine, Groups, Origin, Reserved, ReservedRange};
use question::QUESTION_MAX_BYTES;
pub use question::{Change, Changed, Kept, NewLimit, NewQuota, Question, Refusal};

/// A peer that does not speak or listen for this long is hung up on.
const PATIENCE: Duration = Duration::from_secs(5);
/// A host may have to write a change to a slow disk before it answers.
const PATIENCE_WITH_HOST: Duration = Duration::from_secs(120);

/// What a host can be asked for.
pub(crate) trait Books {
    /// Who holds which PASID.
    fn ledger(&self) -> Ledger;
    /// What happened from the event with this number on.
    fn events(&self, since: u64) -> EventPage;
    /// The tree of limits.
    fn groups(&self) -> Groups;
    /// Which PASIDs no tenant gets.
    fn reserved(&self) -> Reserved;
    /// Changes a limit; when it returns, the change is kept.
    fn change(&self, change: Change) -> Result<Changed, Refusal>;
}

/// Asks the host behind `socket` for its ledger.
///
/// # Errors
/// Where nobody answers, or answers with a [`Refusal`].
pub fn ask_ledger(socket: &Path) -> anyhow::Result<Ledger> {
    ask(socket, &Question::Ledger)
}

/// Asks the host behind `socket` for its events from number `since` on.
///
/// # Errors
/// Where nobody answers, or answers with a [`Refusal`].
pub fn ask_events(socket: &Path, since: u64) -> anyhow::Result<EventPage> {
    ask(socket, &Question::Events { since })
}

/// Asks the host behind `socket` for its groups.
///
/// # Errors
/// Where nobody answers, or answers with a [`Refusal`].
pub fn ask_groups(socket: &Path) -> anyhow::Result<Groups> {
    ask(socket, &Question::Groups)
}

/// Asks the host behind `socket` what is reserved.
///
/// # Errors
/// Where nobody answers, or answers with a [`Refusal`].
pub fn ask_reserved(socket: &Path) -> anyhow::Result<Reserved> {
    ask(socket, &Question::Reserved)
}

/// Has the host behind `socket` change a limit.
///
/// # Errors
/// Where nobody answers, or answers with a [`Refusal`].
pub fn request(socket: &Path, change: Change) -> anyhow::Result<Changed> {
    ask(socket, &Question::Change(change))
}

fn ask<T: DeserializeOwned>(socket: &Path, question: &Question) -> anyhow::Result<T> {
    let mut stream = UnixStream::connect(socket).with_context(|| {
        format!(
            "{}: no host answers; name with --socket what the configuration of a running host calls `control`",
            socket.display()
        )
    })?;
    stream.set_read_timeout(Some(PATIENCE_WITH_HOST))?;
    let mut line = serde_json::to_vec(question)?;
    line.push(b'\n');
    // A host that refuses before it has read everything hangs up on the rest; its answer is there even so.
    let sent = stream.write_all(&line);
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    if let Ok(refusal) = serde_json::from_str::<Refusal>(&answer) {
        return Err(refusal.into());
    }
    sent.context("ask")?;
    read.context("read the answer")?;
    serde_json::from_str(&answer).context("the answer cannot be read")
}

/// Whether a process of `peer` may ask a host of `owner`.
fn may_ask(peer: Uid, owner: Uid) -> bool {
    peer.is_root() || peer == owner
}

/// Answers one client. What goes wrong with it is its own matter.
pub(crate) fn answer(stream: &UnixStream, books: &impl Books) -> anyhow::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let peer = socket_peercred(stream)?;
    if !may_ask(peer.uid, geteuid()) {
        let what = "only root and the user that the host runs as may ask";
        send(stream, &Refusal::new(Errno::PERM, what))?;
        anyhow::bail!(
            "process {} of user {} is refused: {what}",
            peer.pid.as_raw_nonzero(),
            peer.uid.as_raw()
        );
    }
    let mut line = Vec::new();
    BufReader::new(stream)
        .take(QUESTION_MAX_BYTES)
        .read_until(b'\n', &mut line)?;
    match serde_json::from_slice(&line) {
        Ok(Question::Ledger) => send(stream, &books.ledger()),
        Ok(Question::Events { since }) => send(stream, &books.events(since)),
        Ok(Question::Groups) => send(stream, &books.groups()),
        Ok(Question::Reserved) => send(stream, &books.reserved()),
        Ok(Question::Change(change)) => match books.change(change) {
            Ok(changed) => send(stream, &changed),
            Err(refusal) => send(stream, &refusal),
        },
        Err(e) => {
            let what = format!(
                "this is no question of at most {QUESTION_MAX_BYTES} bytes, such as \"ledger\" or \
                 {{\"events\":{{\"since\":0}}}}: {e}"
            );
            send(stream, &Refusal::new(Errno::INVAL, what))
        }
    }
}

fn send<T: Serialize>(mut stream: &UnixStream, answer: &T) -> anyhow::Result<()> {
    stream.write_all(&serde_json::to_vec(answer)?)?;
    Ok(())
}
