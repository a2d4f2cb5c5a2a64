//! The tests with real guests, each by its name.

mod hello;
mod kill;
mod pair;
mod sva;
mod two_vms;
mod vcmd;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use crate::Layout;
use crate::host::{self, Boot};
use crate::setup::{Kernel, Setup};
use crate::vm::{Seen, image_for, kernel_arguments};

/// What scenarios run with.
#[derive(Debug)]
pub struct Bench<'a> {
    layout: &'a Layout,
    setup: &'a Setup,
    palisade: OnceCell<PathBuf>,
}

impl<'a> Bench<'a> {
    /// With what set-up made in that workspace.
    #[must_use]
    pub fn new(layout: &'a Layout, setup: &'a Setup) -> Self {
        Self {
            layout,
            setup,
            palisade: OnceCell::new(),
        }
    }

    /// The program, built when the first scenario asks for it.
    fn palisade(&self) -> anyhow::Result<&Path> {
        if let Some(program) = self.palisade.get() {
            return Ok(program);
        }
        let program = host::build(self.layout)?;
        Ok(self.palisade.get_or_init(|| program))
    }

    /// The image for a kernel.
    fn image(&self, kernel: &Kernel) -> anyhow::Result<PathBuf> {
        image_for(self.layout, self.setup, kernel)
    }

    /// What a machine boots to run the guest's side of a scenario.
    fn boot<'b>(
        &'b self,
        kernel: &'b Kernel,
        image: &'b Path,
        scenario: &str,
        more: &[&str],
    ) -> Boot<'b> {
        // The accelerator's driver refuses a processor without that instruction, which emulation has not.
        let mut arguments = vec!["setcpuid=movdir64b"];
        arguments.extend(more);
        Boot {
            setup: self.setup,
            kernel,
            initrd: image,
            kernel_arguments: kernel_arguments(scenario, &arguments),
        }
    }
}

/// A test.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it shows, for people.
    pub about: &'static str,
    run: fn(&Bench<'_>) -> anyhow::Result<Vec<String>>,
}

/// All of them, quickest first.
pub const ALL: &[Scenario] = &[
    hello::SCENARIO,
    vcmd::SCENARIO,
    sva::SCENARIO,
    two_vms::SCENARIO,
    kill::SCENARIO,
];

/// How a scenario came out.
#[derive(Debug)]
pub struct Outcome {
    /// What was seen, a line each, or why it failed.
    pub result: anyhow::Result<Vec<String>>,
    /// How long it took.
    pub took: Duration,
}

impl Scenario {
    /// The scenario of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        ALL.iter().copied().find(|scenario| scenario.name == name)
    }

    /// Runs it to its end.
    #[must_use]
    pub fn run(&self, bench: &Bench<'_>) -> Outcome {
        let started = Instant::now();
        let result = (self.run)(bench);
        Outcome {
            result,
            took: started.elapsed(),
        }
    }
}

/// Checks that each of `checks` passed in the guest and nothing failed, and tells them.
fn expect_checks(guest: &str, seen: &Seen, checks: &[&str]) -> anyhow::Result<Vec<String>> {
    let failures: Vec<String> = seen
        .failures()
        .map(|(check, reason)| format!("{check}: {reason}"))
        .collect();
    ensure!(failures.is_empty(), "{guest}: {}", failures.join("\n    "));
    let mut told = Vec::new();
    for check in checks {
        match seen.check(check) {
            Some(Ok(detail)) => told.push(format!("{guest}: {check} {detail}")),
            _ => bail!("{guest}: the check {check} was not done"),
        }
    }
    Ok(told)
}
