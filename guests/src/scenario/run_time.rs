//! `run-time`: a function that the operator makes while the host runs is there in the machine that starts next,
//! and is not taken away from under it.
//!
//! Shows R68 (mediated devices come and go by UUID) and R72 (removal leaves nothing behind) with stock drivers.

use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::pair::{self, Machine, Sweep};
use super::{Bench, Scenario, expect_checks};
use crate::host::{Daemon, Tenant, VirtualCommands};

pub(super) fn scenario() -> Scenario {
    Scenario::own(
        "run-time",
        "a function made while the host runs works in the next machine, and goes after it",
        run,
    )
}

const PATIENCE: Duration = Duration::from_secs(300);

const ALICE: &str = "alice";

const QUOTA: u32 = 100;

fn run(bench: &Bench<'_>) -> anyhow::Result<Vec<String>> {
    let image = bench.image(&bench.setup.newest)?;
    let tenants = [Tenant {
        name: ALICE,
        quota: QUOTA,
        functions: 1,
        virtual_commands: VirtualCommands::Off,
    }];
    let daemon = Daemon::start(bench.layout, bench.palisade()?, "run-time", &tenants)?;
    let before = daemon.ledger()?;
    let mut made = Vec::new();
    // One for each process, which the machine would not start work without.
    for _ in 1..pair::FUNCTIONS {
        made.push(daemon.make_function(ALICE)?);
    }
    let machine = Machine {
        tenant: ALICE,
        seed: 1,
        sweep: Sweep::None,
    };
    let mut alice = machine.start(bench, &daemon, &image, "run-time")?;
    pair::wait_for_work(&mut alice, PATIENCE)?;
    let mut told = Vec::new();
    for uuid in &made {
        let Err(refusal) = daemon.remove_function(uuid) else {
            bail!("function {uuid} was removed while a machine used it");
        };
        let refusal = format!("{refusal:#}");
        ensure!(
            refusal.contains("EBUSY") && refusal.contains(ALICE),
            "the refusal to remove what is in use does not say by whom: {refusal}"
        );
        told.push(format!("{uuid} is not removed while {ALICE} uses it"));
    }
    pair::wait_for_more_work(&mut alice, PATIENCE)?;
    let seen = pair::end(alice, PATIENCE)?;
    told.extend(expect_checks(ALICE, &seen, pair::CHECKS)?);
    daemon.wait_for_ledger("as before the machine", |ledger| *ledger == before)?;
    for uuid in &made {
        let removed = daemon.remove_function(uuid);
        removed.with_context(|| format!("{uuid} is not removed though nobody uses it"))?;
        told.push(format!("{uuid} is removed after it"));
    }
    daemon.stop()?;
    Ok(told)
}
