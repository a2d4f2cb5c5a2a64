//! `kill`: a machine is killed in the middle of its copies. The other does not notice, and the host has
//! everything back.
//!
//! Shows R33 (death of a tenant) and R65 (nothing hangs on it).

use std::time::Duration;

use anyhow::ensure;

use super::pair::{self, Machine, Sweep};
use super::{Bench, Scenario, expect_checks};
use crate::host::{Daemon, Tenant, VirtualCommands};

pub(super) fn scenario() -> Scenario {
    Scenario::own(
        "kill",
        "a machine is killed in mid-copy; the other goes on, the ledger returns",
        run,
    )
}

const PATIENCE: Duration = Duration::from_secs(300);

const VICTIM: &str = "alice";
const OTHER: &str = "bob";

const QUOTA: u32 = 100;

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
    let start = |tenant, seed| {
        Machine {
            tenant,
            seed,
            sweep: Sweep::None,
        }
        .start(bench, &daemon, &image, "kill")
    };
    let mut victim = start(VICTIM, 1)?;
    pair::wait_for_work(&mut victim, PATIENCE)?;
    let mut other = start(OTHER, 2)?;
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
    daemon.wait_for_ledger("the killed machine's PASIDs are given back", |ledger| {
        ledger.of(VICTIM) == before.of(VICTIM)
    })?;
    pair::wait_for_more_work(&mut other, PATIENCE)?;

    let mut told = vec![format!(
        "{VICTIM} was killed after {} copies, with PASIDs {:?}",
        pair::all_copies(&killed),
        during.host_pasids(VICTIM)
    )];
    let seen = pair::end(other, PATIENCE)?;
    told.extend(expect_checks(OTHER, &seen, pair::CHECKS)?);
    // Its sockets serve the next machine.
    let mut again = start(VICTIM, 3)?;
    pair::wait_for_work(&mut again, PATIENCE)?;
    let seen = pair::end(again, PATIENCE)?;
    told.extend(expect_checks("alice again", &seen, pair::CHECKS)?);
    daemon.wait_for_ledger("as before the machines", |ledger| *ledger == before)?;
    daemon.stop()?;
    Ok(told)
}
