//! `hello`: each kernel boots our image and reports, without palisade. What fails here is set-up's fault.

use std::time::Duration;

use anyhow::ensure;

use super::{Bench, Scenario, expect_checks};
use crate::vm::{Console, Direct, Guest};

pub(super) fn scenario() -> Scenario {
    Scenario::own(
        "hello",
        "each kernel boots the image and reports, without an accelerator",
        run,
    )
}

const PATIENCE: Duration = Duration::from_secs(120);

fn run(bench: &Bench<'_>) -> anyhow::Result<Vec<String>> {
    let mut told = Vec::new();
    let setup = bench.setup;
    for kernel in [&setup.newest, &setup.stable, &setup.allocator] {
        let console = Console::new(bench.layout, &format!("hello-{}", kernel.release))?;
        let machine = Direct {
            setup: bench.setup,
            kernel,
            scenario: "hello",
        };
        let command = machine.command(bench.layout, &console)?;
        let mut guest = Guest::start(command, console)?;
        guest.wait_for("first word", PATIENCE, |seen| seen.note("uptime").is_some())?;
        let booted = guest.age();
        let seen = guest.finish(PATIENCE)?;
        told.extend(expect_checks(&kernel.release, &seen, &["memory", "hello"])?);
        let release = seen.note("release").unwrap_or_default();
        ensure!(
            release == kernel.release,
            "the guest runs Linux {release}, not {}",
            kernel.release
        );
        told.push(format!(
            "{release}: program started after {:.1} s",
            booted.as_secs_f32()
        ));
    }
    Ok(told)
}
