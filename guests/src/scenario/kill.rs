//! `kill`: a machine is killed in the middle of its copies. The other does not notice, and the host has
//! everything back.

use std::time::Duration;

use anyhow::ensure;

use super::pair::{self, Machine, Sweep};
use super::{Bench, Scenario, expect_checks};
use crate::host::{Daemon, Tenant, VirtualCommands};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "kill",
    about: "a machine is killed in mid-copy; the other goes on, the ledger returns",
    run,
};

const PATIENCE: Duration = Duration::from_secs(300);

const VICTIM: &str = "alice";
const OTHER: &str = "bob";

const QUOTA: u32 = 100;

/// The victim would copy for as long, if it could.
const VICTIM_SECONDS: u64 = 600;

/// The other copies for so long: the kill falls into it, and some work comes after.
const OTHER_SECONDS: u64 = 12;

/// The victim starts again for so long, since its sockets must be usable again.
const AGAIN_SECONDS: u64 = 3;

fn run(bench: &Bench<'_>) -> anyhow::Result<Vec<String>> {
    let image = bench.image(&bench.setup.newest)?;
    let tenant = |name| Tenant {
        name,
        quota: QUOTA,
        functions: pair::FUNCTIONS,
        virtual_commands: VirtualCommands::Off,
    };
    let tenants = [tenant(VICTIM), tenant(OTHER)];
    let daemon = Daemon::start(bench.layout, bench.palisade()?, "kill", &tenants)?;
    let before = daemon.ledger()?;
    let start = |tenant, seconds, seed| {
        Machine {
            tenant,
            seconds,
            seed,
            sweep: Sweep::None,
        }
        .start(bench, &daemon, &image, "kill")
    };
    let mut victim = start(VICTIM, VICTIM_SECONDS, 1)?;
    pair::wait_for_work(&mut victim, PATIENCE)?;
    let mut other = start(OTHER, OTHER_SECONDS, 2)?;
    pair::wait_for_work(&mut other, PATIENCE)?;

    let during = daemon.ledger()?;
    ensure!(
        during.host_pasids(VICTIM).len() > before.host_pasids(VICTIM).len(),
        "the machine that copies holds no PASID: {during:?}"
    );
    let killed = victim.kill()?;
    ensure!(
        !killed.is_done(),
        "the machine had ended before it was killed"
    );
    let copies = pair::all_copies(other.seen());
    daemon.wait_for_ledger("the killed machine's PASIDs are given back", |ledger| {
        ledger.of(VICTIM) == before.of(VICTIM)
    })?;
    other.wait_for("copies after the kill", PATIENCE, |seen| {
        pair::all_copies(seen) > copies
    })?;

    let mut told = vec![format!(
        "{VICTIM} was killed after {} copies, with PASIDs {:?}",
        pair::all_copies(&killed),
        during.host_pasids(VICTIM)
    )];
    let seen = other.finish(PATIENCE)?;
    told.extend(expect_checks(OTHER, &seen, pair::CHECKS)?);
    let seen = start(VICTIM, AGAIN_SECONDS, 3)?.finish(PATIENCE)?;
    told.extend(expect_checks("alice again", &seen, pair::CHECKS)?);
    daemon.wait_for_ledger("as before the machines", |ledger| *ledger == before)?;
    daemon.stop()?;
    Ok(told)
}
