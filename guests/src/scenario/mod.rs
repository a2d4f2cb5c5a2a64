//! The tests with real guests, each by its name.

mod hello;

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use crate::Layout;
use crate::setup::Setup;
use crate::vm::Seen;

/// What scenarios run with.
#[derive(Debug)]
pub struct Bench<'a> {
    layout: &'a Layout,
    setup: &'a Setup,
}

impl<'a> Bench<'a> {
    /// With what set-up made in that workspace.
    #[must_use]
    pub fn new(layout: &'a Layout, setup: &'a Setup) -> Self {
        Self { layout, setup }
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
pub const ALL: &[Scenario] = &[hello::SCENARIO];

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
