//! `accel-config`: the distribution's own tool lists, configures, enables and disables the accelerator.
//!
//! Shows R6 (an unmodified driver, and what its users configure it with) and R73 (real work on the queue so made).

use std::time::Duration;

use super::{Bench, Scenario, expect_checks};
use crate::host::{Daemon, Tenant, VirtualCommands};
use crate::vm::{Console, Guest};

pub(super) fn scenario() -> Scenario {
    Scenario::own(
        "accel-config",
        "Debian's accel-config lists, loads and saves a configuration, enables and disables",
        run,
    )
}

const PATIENCE: Duration = Duration::from_secs(300);

const TENANT: &str = "alice";

const QUOTA: u32 = 100;

/// What the guest must have checked.
const CHECKS: &[&str] = &[
    "list-unconfigured",
    "load-config",
    "list-enabled",
    "copy",
    "save-config",
    "disable-wq",
    "disable-device",
    "load-config-alone",
    "enable-device",
    "enable-wq",
    "copy-again",
];

fn run(bench: &Bench<'_>) -> anyhow::Result<Vec<String>> {
    let kernel = &bench.setup.newest;
    let image = bench.image_with_accel_config(kernel)?;
    let tenants = [Tenant {
        name: TENANT,
        quota: QUOTA,
        functions: 1,
        virtual_commands: VirtualCommands::Off,
    }];
    let daemon = Daemon::start(bench.layout, bench.palisade()?, "accel-config", &tenants)?;
    let before = daemon.ledger()?;
    let boot = bench.boot(kernel, &image, "accel-config", &[]);
    let console = Console::new(bench.layout, "accel-config")?;
    let guest = Guest::start(daemon.machine(TENANT, &boot, &console), console)?;
    let seen = guest.finish(PATIENCE)?;
    let mut told = vec![format!("accel-config {}", bench.setup.accel_config.version)];
    told.extend(expect_checks("guest", &seen, CHECKS)?);
    daemon.wait_for_ledger("as before the machine", |ledger| *ledger == before)?;
    daemon.stop()?;
    Ok(told)
}
