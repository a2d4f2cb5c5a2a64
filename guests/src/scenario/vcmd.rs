//! `vcmd`: Linux 6.1 takes its PASIDs from the host. Its numbers are the host's, and the quota ends.
//!
//! Shows R9 (the guest's numbers are the ledger's), R55 and R57 (virtual commands, charged to the tenant).

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::{Bench, Scenario, expect_checks};
use crate::host::{Daemon, Ledger, Tenant, VirtualCommands};
use crate::vm::{Console, Guest};

pub(super) fn scenario() -> Scenario {
    Scenario::own(
        "vcmd",
        "a kernel allocates and frees PASIDs at the host, until its quota is gone",
        run,
    )
}

const PATIENCE: Duration = Duration::from_secs(300);

const TENANT: &str = "alice";

const QUOTA: u32 = 300;

/// What the guest must have checked.
const CHECKS: &[&str] = &[
    "allocator-registered",
    "quota-ends-in-enospc",
    "free-all",
    "allocate-again",
];

fn run(bench: &Bench<'_>) -> anyhow::Result<Vec<String>> {
    let kernel = &bench.setup.allocator;
    let image = bench.image(kernel)?;
    let tenants = [Tenant {
        name: TENANT,
        quota: QUOTA,
        functions: 1,
        virtual_commands: VirtualCommands::Current,
    }];
    let daemon = Daemon::start(bench.layout, bench.palisade()?, "vcmd", &tenants)?;
    let before = daemon.ledger()?;
    let boot = bench.boot(kernel, &image, "vcmd", &[]);
    let console = Console::new(bench.layout, "vcmd")?;
    let mut guest = Guest::start(daemon.machine(TENANT, &boot, &console), console)?;

    guest.wait_for("list of PASIDs", PATIENCE, |seen| {
        seen.check("quota-ends-in-enospc").is_some()
    })?;
    let full = daemon.ledger()?;
    let told_ids = guest.seen().note("vcmd-ids").context("no ids were told")?;
    let ids = parse_ranges(told_ids)?;
    check_full(&ids, &full)?;
    let mut told = vec![format!(
        "guest and ledger agree on {} PASIDs of a quota of {QUOTA}: {told_ids}",
        ids.len()
    )];

    guest.go_on()?;
    guest.wait_for("freeing", PATIENCE, |seen| seen.check("free-all").is_some())?;
    let freed = daemon.ledger()?;
    ensure!(
        freed.guest_pasids(TENANT).is_disjoint(&ids),
        "freed by the guest, but still in the ledger: {:?}",
        freed.guest_pasids(TENANT)
    );
    guest.go_on()?;
    let seen = guest.finish(PATIENCE)?;
    told.extend(expect_checks("guest", &seen, CHECKS)?);
    daemon.wait_for_ledger("as before the machine", |ledger| *ledger == before)?;
    daemon.stop()?;
    Ok(told)
}

/// The guest's numbers are the ledger's, on both of its sides, and nothing of the quota is left.
fn check_full(ids: &BTreeSet<u32>, ledger: &Ledger) -> anyhow::Result<()> {
    ensure!(!ids.is_empty(), "the guest got no PASID");
    ensure!(
        ledger.guest_pasids(TENANT) == *ids,
        "the guest has PASIDs {ids:?}, the ledger {:?}",
        ledger.guest_pasids(TENANT)
    );
    for holding in ledger.of(TENANT) {
        if let Some(guest) = holding.guest {
            ensure!(
                guest == holding.pasid,
                "the guest was given {guest}, which is {} to the host",
                holding.pasid
            );
        }
    }
    let held = ledger.of(TENANT).len();
    ensure!(
        u32::try_from(held)? == QUOTA,
        "refused at {held} PASIDs, the quota is {QUOTA}"
    );
    Ok(())
}

/// From `1-3,7`.
fn parse_ranges(text: &str) -> anyhow::Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    for range in text.split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse()?, last.parse()?);
        if last.saturating_sub(first) > QUOTA {
            bail!("the guest tells of PASIDs {range}, beyond any quota");
        }
        ids.extend(first..=last);
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_guest_writes_them() {
        assert_eq!(parse_ranges("").unwrap(), BTreeSet::new());
        assert_eq!(parse_ranges("1-3,7").unwrap(), BTreeSet::from([1, 2, 3, 7]));
        assert!(parse_ranges("1-4000000000").is_err());
        assert!(parse_ranges("x").is_err());
    }
}
