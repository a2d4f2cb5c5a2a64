//! `shared-queue`: a guest process copies by a queue in shared mode, with its PASID in each descriptor.
//!
//! Shows R19 (a PASID in a descriptor passes the mediation like one in a register, and one that is not the guest's
//! does nothing), R66 (the guest uses its own names).

use std::time::Duration;

use super::{Bench, Scenario, expect_checks};
use crate::host::{Daemon, Tenant, VirtualCommands};
use crate::vm::{Console, Guest};

pub(super) fn scenario() -> Scenario {
    Scenario::own(
        "shared-queue",
        "a guest process copies by a queue in shared mode, its PASID in each descriptor",
        run,
    )
}

const PATIENCE: Duration = Duration::from_secs(300);

const TENANT: &str = "alice";

const QUOTA: u32 = 100;

/// One queue stays dedicated, for the process to learn its PASID by.
const FUNCTIONS: usize = 2;

/// What the launcher and [`Bench::boot`] put on the command line. The kernel heeds the last such word alone.
const WITHOUT_ENQCMD: &str = "setcpuid=movdir64b";

/// The driver offers shared queues only where the processor has the instruction for them.
const WITH_ENQCMD: &str = "setcpuid=movdir64b,enqcmd";

/// What the guest must have checked.
const CHECKS: &[&str] = &[
    "copy-dedicated",
    "open-shared",
    "copy-shared",
    "nobodys-pasid",
    "copy-again",
    "disable",
];

fn run(bench: &Bench<'_>) -> anyhow::Result<Vec<String>> {
    let kernel = &bench.setup.newest;
    let image = bench.image(kernel)?;
    let tenants = [Tenant {
        name: TENANT,
        quota: QUOTA,
        functions: FUNCTIONS,
        virtual_commands: VirtualCommands::Off,
    }];
    let daemon = Daemon::start(bench.layout, bench.palisade()?, "shared-queue", &tenants)?;
    let before = daemon.ledger()?;
    let mut boot = bench.boot(kernel, &image, "shared-queue", &["iomem=relaxed"]);
    boot.kernel_arguments = boot.kernel_arguments.replace(WITHOUT_ENQCMD, WITH_ENQCMD);
    let console = Console::new(bench.layout, "shared-queue")?;
    let guest = Guest::start(daemon.machine(TENANT, &boot, &console), console)?;
    let seen = guest.finish(PATIENCE)?;
    let told = expect_checks("guest", &seen, CHECKS)?;
    daemon.wait_for_ledger("as before the machine", |ledger| *ledger == before)?;
    daemon.stop()?;
    Ok(told)
}
