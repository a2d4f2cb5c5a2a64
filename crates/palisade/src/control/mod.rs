//! The operator's socket: a question a line, one JSON document as the answer.
//!
//! Only the owner of the host may ask, or root: the socket is made so that nobody else can open it, and who
//! opened it is asked again.

mod clock;
mod events;
mod ledger;
mod limits;
mod mdevs;
mod patient;
mod question;
#[cfg(test)]
mod tests;

use std::{
    io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Write},
    os::{fd::BorrowedFd, unix::net::UnixStream},
    path::Path,
    time::{Duration, Instant},
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
pub use mdevs::{MdevLine, Mdevs};
use patient::Patient;
pub(crate) use question::Ends;
use question::QUESTION_MAX_BYTES;
pub use question::{Change, Changed, Kept, NewLimit, NewQuota, Question, Refusal};

/// A client has this long for its whole question.
const PATIENCE_WITH_QUESTION: Duration = Duration::from_secs(5);
/// And this long to take its whole answer, which may be the ledger of 2^20 PASIDs.
const PATIENCE_WITH_ANSWER: Duration = Duration::from_secs(60);
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
    /// The functions of the tenants.
    fn mdevs(&self) -> Mdevs;
    /// Changes a limit or a function; when it returns, the change is kept.
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

/// Asks the host behind `socket` for the functions of its tenants.
///
/// # Errors
/// Where nobody answers, or answers with a [`Refusal`].
pub fn ask_mdevs(socket: &Path) -> anyhow::Result<Mdevs> {
    ask(socket, &Question::Mdevs)
}

/// Has the host behind `socket` change a limit or a function.
///
/// # Errors
/// Where nobody answers, or answers with a [`Refusal`].
pub fn request(socket: &Path, change: Change) -> anyhow::Result<Changed> {
    ask(socket, &Question::Change(change))
}

fn ask<T: DeserializeOwned>(socket: &Path, question: &Question) -> anyhow::Result<T> {
    let mut stream = UnixStream::connect(socket).map_err(|e| no_host(socket, e))?;
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
    let hung_up = || match question {
        Question::Change(_) => {
            "the host hung up before it had answered; ask it whether the change is in force"
        }
        _ => "the host hung up before it had answered",
    };
    sent.with_context(hung_up)?;
    read.with_context(hung_up)?;
    serde_json::from_str(&answer).with_context(hung_up)
}

/// Why nobody can be asked, and what to do.
fn no_host(socket: &Path, error: io::Error) -> anyhow::Error {
    let what = match error.kind() {
        ErrorKind::NotFound => {
            "no host answers, since there is no such socket: name with --socket what the configuration of a running \
             host calls `control`"
        }
        ErrorKind::ConnectionRefused => {
            "no host answers: the one that made this socket has ended, and `palisade serve` starts one"
        }
        ErrorKind::PermissionDenied => {
            "only root and the user that the host runs as may ask it, and whom the folders above let through"
        }
        _ => "no host can be asked there",
    };
    anyhow::Error::new(error).context(format!("{}: {what}", socket.display()))
}

/// Whether a process of `peer` may ask a host of `owner`.
fn may_ask(peer: Uid, owner: Uid) -> bool {
    peer.is_root() || peer == owner
}

/// Answers one client. What goes wrong with it is its own matter. `stop` is readable from the moment on at which
/// the host stops.
pub(crate) fn answer(
    stream: &UnixStream,
    stop: BorrowedFd<'_>,
    books: &impl Books,
) -> anyhow::Result<()> {
    stream.set_nonblocking(true)?;
    let client = Client { stream, stop };
    let peer = socket_peercred(stream)?;
    if !may_ask(peer.uid, geteuid()) {
        let what = "only root and the user that the host runs as may ask";
        client.send(&Refusal::new(Errno::PERM, what))?;
        anyhow::bail!(
            "process {} of user {} is refused: {what}",
            peer.pid.as_raw_nonzero(),
            peer.uid.as_raw()
        );
    }
    match client.question()? {
        Ok(Question::Ledger) => client.send(&books.ledger()),
        Ok(Question::Events { since }) => client.send(&books.events(since)),
        Ok(Question::Groups) => client.send(&books.groups()),
        Ok(Question::Reserved) => client.send(&books.reserved()),
        Ok(Question::Mdevs) => client.send(&books.mdevs()),
        Ok(Question::Change(change)) => match books.change(change) {
            Ok(changed) => client.send(&changed),
            Err(refusal) => client.send(&refusal),
        },
        Err(refusal) => client.send(&refusal),
    }
}

/// One connection at the host's end.
struct Client<'a> {
    stream: &'a UnixStream,
    stop: BorrowedFd<'a>,
}

impl Client<'_> {
    /// Has the client do something for so long and no longer.
    fn within(&self, patience: Duration) -> Patient<'_> {
        Patient::new(self.stream, self.stop, Instant::now() + patience)
    }

    /// What is asked, or why it is no question.
    fn question(&self) -> io::Result<Result<Question, Refusal>> {
        let mut line = Vec::new();
        BufReader::new(self.within(PATIENCE_WITH_QUESTION))
            .take(QUESTION_MAX_BYTES)
            .read_until(b'\n', &mut line)?;
        let is_cut = u64::try_from(line.len()).is_ok_and(|len| len >= QUESTION_MAX_BYTES);
        if is_cut && !line.ends_with(b"\n") {
            let what = format!(
                "this is no question of at most {QUESTION_MAX_BYTES} bytes; names have 64 at the most"
            );
            return Ok(Err(Refusal::new(Errno::INVAL, what)));
        }
        Ok(serde_json::from_slice(&line).map_err(|e| {
            let what = format!(
                "this is no question, such as \"ledger\" or {{\"events\":{{\"since\":0}}}}: {e}"
            );
            Refusal::new(Errno::INVAL, what)
        }))
    }

    fn send<T: Serialize>(&self, answer: &T) -> anyhow::Result<()> {
        let mut out = BufWriter::new(self.within(PATIENCE_WITH_ANSWER));
        serde_json::to_writer(&mut out, answer)?;
        out.flush()?;
        Ok(())
    }
}
