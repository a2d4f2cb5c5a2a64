//! `two-vms`: two machines on one accelerator at the same time, each with two processes on two queues. The
//! root of one of them tries the PASIDs of others.
//!
//! Shows R6 (two guest processes at once), R10 and R17 (several machines in one table), R11 and R19 (a hostile
//! guest programs others' PASIDs), R66 (a guest sees its own names).

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::pair::{self, Machine, Sweep};
use super::{Bench, Scenario, expect_checks};
use crate::host::{Daemon, Ledger, Tenant, VirtualCommands};
use crate::vm::Seen;

pub(super) fn scenario() -> Scenario {
    Scenario::own(
        "two-vms",
        "two machines share an accelerator, two processes each; one of them sweeps",
        run,
    )
}

const PATIENCE: Duration = Duration::from_secs(300);

const ALICE: &str = "alice";
const BOB: &str = "bob";

/// The quota of each.
const QUOTA: u32 = 100;

fn run(bench: &Bench<'_>) -> anyhow::Result<Vec<String>> {
    let image = bench.image(&bench.setup.newest)?;
    let tenant = |name, functions| Tenant {
        name,
        quota: QUOTA,
        functions,
        virtual_commands: VirtualCommands::Off,
    };
    let tenants = [
        tenant(ALICE, pair::FUNCTIONS),
        tenant(BOB, pair::FUNCTIONS_WITH_SWEEP),
    ];
    let daemon = Daemon::start(bench.layout, bench.palisade()?, "two-vms", &tenants)?;
    let before = daemon.ledger()?;
    let start = |tenant, sweep, seed| {
        Machine {
            tenant,
            seed,
            sweep,
        }
        .start(bench, &daemon, &image, "two-vms")
    };
    // The sweeper has the lower of the host's numbers. Some of the other's are then none of his own guest's,
    // and it shows whether they are refused.
    let mut bob = start(BOB, Sweep::Sampled, 2)?;
    pair::wait_for_work(&mut bob, PATIENCE)?;
    bob.wait_for("start of the sweep", PATIENCE, |seen| {
        seen.note("sweep-own").is_some() || seen.check("sweep").is_some()
    })?;
    if let Some(Err(reason)) = bob.seen().check("sweep") {
        bail!("the sweep did not start: {reason}");
    }
    let mut alice = start(ALICE, Sweep::None, 1)?;
    pair::wait_for_work(&mut alice, PATIENCE)?;
    let during = daemon.ledger()?;
    bob.go_on()?;
    check_disjoint(&during)?;
    bob.wait_for("end of the sweep", PATIENCE, |seen| {
        seen.check("sweep").is_some()
    })?;
    // Both go on as if nothing had been.
    pair::wait_for_more_work(&mut alice, PATIENCE)?;
    pair::wait_for_more_work(&mut bob, PATIENCE)?;

    let bobs = pair::end(bob, PATIENCE)?;
    let alices = pair::end(alice, PATIENCE)?;
    let mut told = expect_checks(ALICE, &alices, pair::CHECKS)?;
    told.extend(expect_checks(BOB, &bobs, pair::CHECKS_WITH_SWEEP)?);
    told.push(check_sweep(&bobs, &during)?);
    daemon.wait_for_ledger("as before the machines", |ledger| *ledger == before)?;
    daemon.stop()?;
    Ok(told)
}

/// No number is held by two, and both hold some.
fn check_disjoint(ledger: &Ledger) -> anyhow::Result<()> {
    let (alices, bobs) = (ledger.host_pasids(ALICE), ledger.host_pasids(BOB));
    ensure!(
        alices.is_disjoint(&bobs),
        "PASIDs of both: {alices:?} and {bobs:?}"
    );
    for (tenant, processes) in [(ALICE, 2), (BOB, 3)] {
        let guest = ledger.guest_pasids(tenant);
        ensure!(
            guest.len() >= processes,
            "{tenant} has {processes} processes, but PASIDs {guest:?} in the ledger"
        );
    }
    Ok(())
}

/// What was accepted are numbers of the sweeper's own guest, nothing else, and each try had an answer.
fn check_sweep(seen: &Seen, ledger: &Ledger) -> anyhow::Result<String> {
    let number = |key: &str| -> anyhow::Result<u32> {
        let value = seen
            .note(key)
            .with_context(|| format!("no {key} was told"))?;
        value.parse().with_context(|| format!("{key} {value}"))
    };
    let swept_with = number("sweep-own")?;
    ensure!(
        ledger
            .of(BOB)
            .iter()
            .any(|holding| holding.guest == Some(swept_with) && holding.pasid != swept_with),
        "the host calls PASID {swept_with} of {BOB}'s guest the same: whose names the guest sees is not shown"
    );
    let accepted = seen.note("sweep-accepted").context("no list was told")?;
    let accepted: BTreeSet<u32> = accepted
        .split(',')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .with_context(|| format!("accepted were {accepted}"))?;
    let own = ledger.guest_pasids(BOB);
    ensure!(
        accepted.is_subset(&own),
        "PASIDs {accepted:?} were accepted, but {BOB} has only {own:?}"
    );
    let (tried, refused) = (number("sweep-tried")?, number("sweep-refused")?);
    ensure!(
        usize::try_from(tried - refused)? == accepted.len(),
        "{tried} were tried, {refused} refused, and {} accepted",
        accepted.len()
    );
    let foreign: BTreeSet<u32> = ledger
        .host_pasids(ALICE)
        .difference(&own)
        .copied()
        .collect();
    ensure!(
        !foreign.is_empty(),
        "all of {ALICE}'s PASIDs are numbers of {BOB}'s own too: the sweep shows nothing"
    );
    Ok(format!(
        "{BOB} tried {tried} PASIDs: {refused} refused, {ALICE}'s {foreign:?} among them; accepted \
         {accepted:?}, his own are {own:?}"
    ))
}
