//! `reboot`: a guest reboots, in order and by a reset in the middle of everything. Each boot finds the unit as the
//! first did, and the host has nothing of the one before.
//!
//! Shows R6 (an unmodified driver) and R33 (what a tenant held is given back) over resets.

use std::time::Duration;

use anyhow::ensure;
use palisade_guest_program::protocol::Answer;

use super::{Bench, Scenario, expect_checks};
use crate::host::{Daemon, Tenant, VirtualCommands};
use crate::vm::{Console, Guest};

pub(super) fn scenario() -> Scenario {
    Scenario::own(
        "reboot",
        "a guest reboots, in order and by a reset; the ledger is as after the first boot",
        run,
    )
}

const PATIENCE: Duration = Duration::from_secs(300);

const TENANT: &str = "alice";

const QUOTA: u32 = 100;

/// What ends a boot, for all but the last.
const ENDS: [Answer; 3] = [Answer::Reboot, Answer::Reset, Answer::Reboot];

fn run(bench: &Bench<'_>) -> anyhow::Result<Vec<String>> {
    let kernel = &bench.setup.newest;
    let image = bench.image(kernel)?;
    let tenants = [Tenant {
        name: TENANT,
        quota: QUOTA,
        functions: 1,
        virtual_commands: VirtualCommands::Off,
    }];
    let daemon = Daemon::start(bench.layout, bench.palisade()?, "reboot", &tenants)?;
    let before = daemon.ledger()?;
    let boot = bench.boot(kernel, &image, "reboot", &[]);
    let console = Console::new(bench.layout, "reboot")?;
    let mut guest = Guest::start(daemon.restarting(TENANT, &boot, &console), console)?;

    wait_for_boot(&mut guest, 1)?;
    let first = daemon.ledger()?;
    ensure!(
        first.of(TENANT).len() > before.of(TENANT).len(),
        "a process has the queue open, but the ledger is {first:?}"
    );
    for (ended, end) in ENDS.into_iter().enumerate() {
        guest.answer(end)?;
        wait_for_boot(&mut guest, ended + 2)?;
        let again = daemon.ledger()?;
        ensure!(
            again == first,
            "after a {} the ledger is {again:?}, after the first boot it was {first:?}",
            end.word()
        );
    }
    guest.go_on()?;
    let seen = guest.finish(PATIENCE)?;
    let mut told = expect_checks("guest", &seen, &["boot"])?;
    told.push(format!(
        "{} boots, each with {:?} in the ledger",
        seen.passes("boot"),
        first.of(TENANT)
    ));
    daemon.wait_for_ledger("as before the machine", |ledger| *ledger == before)?;
    daemon.stop()?;
    Ok(told)
}

fn wait_for_boot(guest: &mut Guest, boot: usize) -> anyhow::Result<()> {
    guest.wait_for(&format!("copy in boot {boot}"), PATIENCE, |seen| {
        seen.passes("boot") >= boot || seen.failures().next().is_some()
    })?;
    let failures: Vec<_> = guest.seen().failures().collect();
    ensure!(failures.is_empty(), "in boot {boot}: {failures:?}");
    Ok(())
}
