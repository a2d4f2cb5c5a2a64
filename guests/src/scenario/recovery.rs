//! `recovery`: the function is reset through sysfs, and its queue taken away and its driver unbound and bound again,
//! under load. The process that copies loses its queue and does not hang; what comes after it works, a process on
//! another function of the same accelerator does not notice, and the host has nothing left over.
//!
//! Shows R6 (an unmodified driver, in the paths that are seldom taken), R33 (what was held is given back) and R65
//! (nothing hangs on work in flight).

use std::time::Duration;

use anyhow::ensure;

use super::{Bench, Scenario, expect_checks};
use crate::host::{Daemon, Tenant, VirtualCommands};
use crate::vm::{Console, Guest};

pub(super) fn scenario() -> Scenario {
    Scenario::own(
        "recovery",
        "a function is reset, and unbound and bound again, under load; another goes on",
        run,
    )
}

const PATIENCE: Duration = Duration::from_secs(300);

const TENANT: &str = "alice";

const QUOTA: u32 = 100;

/// The guest's processes that lose their queue, in order.
const WORKERS: [&str; 2] = ["reset-worker", "disable-worker"];

/// What the guest must have checked.
const CHECKS: &[&str] = &[
    "bring-up",
    "reset",
    "reset-worker",
    "copy-after-reset",
    "disable",
    "disable-worker",
    "rebind",
    "enable-after-bind",
    "copy-after-bind",
    "disable-after-bind",
    "bystander",
];

/// What the process on the other function is called.
const BYSTANDER: &str = "bystander";

/// One that everything is done to, and one that nothing is.
const FUNCTIONS: usize = 2;

fn run(bench: &Bench<'_>) -> anyhow::Result<Vec<String>> {
    let kernel = &bench.setup.newest;
    let image = bench.image(kernel)?;
    let tenants = [Tenant {
        name: TENANT,
        quota: QUOTA,
        functions: FUNCTIONS,
        virtual_commands: VirtualCommands::Off,
    }];
    let daemon = Daemon::start(bench.layout, bench.palisade()?, "recovery", &tenants)?;
    let before = daemon.ledger()?;
    let boot = bench.boot(kernel, &image, "recovery", &[]);
    let console = Console::new(bench.layout, "recovery")?;
    let mut guest = Guest::start(daemon.machine(TENANT, &boot, &console), console)?;

    let mut held = Vec::new();
    for worker in WORKERS {
        // The other one has copied before, too.
        guest.wait_for(&format!("copies by {worker}"), PATIENCE, |seen| {
            seen.note(worker).is_some() && seen.note(BYSTANDER).is_some()
        })?;
        held.push(daemon.ledger()?.outstanding);
        guest.go_on()?;
    }
    let seen = guest.finish(PATIENCE)?;
    let mut told = expect_checks("guest", &seen, CHECKS)?;
    ensure!(
        held.iter().all(|&count| count == held[0]) && held[0] > before.outstanding,
        "with a process at work the guest held {held:?} PASIDs, one figure for each process"
    );
    told.push(format!("{held:?} PASIDs were held while processes worked"));
    daemon.wait_for_ledger("as before the machine", |ledger| *ledger == before)?;
    daemon.stop()?;
    Ok(told)
}
