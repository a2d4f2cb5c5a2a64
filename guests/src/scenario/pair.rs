//! A machine with two processes at work, as `two-vms` and `kill` start it.

use std::path::Path;
use std::time::Duration;

use super::Bench;
use crate::host::Daemon;
use crate::vm::{Console, Guest, Seen};

/// The processes' names in reports.
const WORKERS: [&str; 2] = ["first", "second"];

/// How many functions such a machine needs: one for each process.
pub(super) const FUNCTIONS: usize = WORKERS.len();

/// And with a sweep, which has one of its own.
pub(super) const FUNCTIONS_WITH_SWEEP: usize = FUNCTIONS + 1;

/// What the guest must have checked.
pub(super) const CHECKS: &[&str] = &["bring-up", "first", "second"];

/// And with a sweep.
pub(super) const CHECKS_WITH_SWEEP: &[&str] =
    &["bring-up", "first", "second", "sweep", "fault-names"];

/// Whether the guest's root tries the PASIDs of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sweep {
    /// It does not.
    None,
    /// Some thousand of them.
    Sampled,
}

/// What a machine is asked to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Machine<'a> {
    pub(super) tenant: &'a str,
    /// Machines of different seeds copy different bytes.
    pub(super) seed: u64,
    pub(super) sweep: Sweep,
}

impl Machine<'_> {
    /// Starts it at its tenant's sockets. Its processes work until [`end`].
    pub(super) fn start(
        self,
        bench: &Bench<'_>,
        daemon: &Daemon,
        image: &Path,
        scenario: &str,
    ) -> anyhow::Result<Guest> {
        let seed = format!("palisade.seed={}", self.seed);
        let mut arguments = vec![seed.as_str()];
        if self.sweep == Sweep::Sampled {
            arguments.extend(["palisade.sweep=sampled", "iomem=relaxed"]);
        }
        let boot = bench.boot(&bench.setup.newest, image, "pair", &arguments);
        let console = Console::new(bench.layout, &format!("{scenario}-{}", self.tenant))?;
        Guest::start(daemon.machine(self.tenant, &boot, &console), console)
    }
}

/// Waits until both processes have copied.
pub(super) fn wait_for_work(guest: &mut Guest, patience: Duration) -> anyhow::Result<()> {
    let working = |seen: &Seen| WORKERS.iter().all(|&worker| copies(seen, worker) > 0);
    guest.wait_for("copies by both processes", patience, working)
}

/// Waits for some more copies by each process than there are now.
pub(super) fn wait_for_more_work(guest: &mut Guest, patience: Duration) -> anyhow::Result<()> {
    const MORE: u64 = 50;
    let enough = WORKERS.map(|worker| (worker, copies(guest.seen(), worker) + MORE));
    guest.wait_for("more copies by both processes", patience, |seen| {
        enough
            .iter()
            .all(|&(worker, enough)| copies(seen, worker) >= enough)
    })
}

/// Lets the processes end their work, waits until the machine is off, and returns what it said.
pub(super) fn end(mut guest: Guest, patience: Duration) -> anyhow::Result<Seen> {
    guest.wait_for("readiness to end", patience, |seen| {
        seen.note("waiting").is_some() || seen.is_done()
    })?;
    if !guest.seen().is_done() {
        guest.go_on()?;
    }
    guest.finish(patience)
}

/// How many copies both processes together have told of.
pub(super) fn all_copies(seen: &Seen) -> u64 {
    WORKERS.iter().map(|&worker| copies(seen, worker)).sum()
}

fn copies(seen: &Seen, worker: &str) -> u64 {
    seen.note(worker)
        .and_then(|copies| copies.parse().ok())
        .unwrap_or(0)
}
