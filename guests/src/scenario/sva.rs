//! `sva`: a stock kernel turns shared virtual addressing on, and a process copies its own memory.
//!
//! Shows R3 (the device sees what the process sees, after unmapping too), R6 (an unmodified driver), R38 (what may
//! not be written is not), R41 (no stale translation), R62 (page requests and their answers), R73 (real work).

use std::time::Duration;

use super::{Bench, Scenario, expect_checks};
use crate::vm::{Console, Guest};

pub(super) fn scenario() -> Scenario {
    Scenario::own(
        "sva",
        "a guest process copies its own memory: pages touched, untouched, wrong",
        run,
    )
}

const PATIENCE: Duration = Duration::from_secs(300);

/// What the guest must have checked.
const CHECKS: &[&str] = &[
    "bring-up",
    "open",
    "touched",
    "untouched-destination",
    "untouched-source",
    "fault-without-blocking",
    "unmapped-again",
    "large-pages",
    "large-untouched",
    "wrong-unmapped-source",
    "wrong-unmapped-destination",
    "wrong-kernel-source",
    "wrong-kernel-destination",
    "wrong-non-canonical-source",
    "wrong-non-canonical-destination",
    "read-only-destination",
    "record-at-wrong-address",
    "goes-on",
];

fn run(bench: &Bench<'_>) -> anyhow::Result<Vec<String>> {
    let image = bench.image(&bench.setup.newest)?;
    let boot = bench.boot(&bench.setup.newest, &image, "sva", &[]);
    let console = Console::new(bench.layout, "sva")?;
    let command = boot.alone(bench.palisade()?, &console);
    let guest = Guest::start(command, console)?;
    let seen = guest.finish(PATIENCE)?;
    expect_checks("guest", &seen, CHECKS)
}
