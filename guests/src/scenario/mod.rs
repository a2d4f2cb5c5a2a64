//! The tests with real guests, each by its name.

mod accel_config;
mod edu;
mod hello;
mod kill;
mod matrix;
mod pair;
mod reboot;
mod recovery;
mod run_time;
mod shared_queue;
mod sva;
mod two_vms;
mod vcmd;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use crate::Layout;
use crate::host::{self, Boot};
use crate::image::Extra;
use crate::setup::{Kernel, Movdir64b, Setup};
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
        let program = host::build(self.layout, "palisade")?;
        Ok(self.palisade.get_or_init(|| program))
    }

    /// The image for a kernel.
    fn image(&self, kernel: &Kernel) -> anyhow::Result<PathBuf> {
        image_for(self.layout, self.setup, kernel, Extra::None)
    }

    /// The image for a kernel, with the distribution's tool for accelerators.
    fn image_with_accel_config(&self, kernel: &Kernel) -> anyhow::Result<PathBuf> {
        let extra = Extra::AccelConfig(&self.setup.accel_config);
        image_for(self.layout, self.setup, kernel, extra)
    }

    /// What a machine boots to run the guest's side of a scenario.
    fn boot<'b>(
        &'b self,
        kernel: &'b Kernel,
        image: &'b Path,
        scenario: &str,
        more: &[&str],
    ) -> Boot<'b> {
        let mut arguments = more.to_vec();
        let cpu = match kernel.movdir64b() {
            Movdir64b::KernelArgument => {
                arguments.push("setcpuid=movdir64b");
                "max"
            }
            Movdir64b::Processor => "max,x-force-features=on,+movdir64b",
        };
        Boot {
            setup: self.setup,
            kernel,
            initrd: image,
            kernel_arguments: kernel_arguments(scenario, &arguments),
            cpu: cpu.to_owned(),
            host: &[],
        }
    }
}

/// A test.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What it shows, for people.
    pub about: String,
    run: Run,
}

/// What a scenario does.
#[derive(Debug, Clone, Copy)]
enum Run {
    /// Something of its own.
    Own(fn(&Bench<'_>) -> anyhow::Result<Vec<String>>),
    /// One cell of the matrix.
    Cell(matrix::Cell),
}

/// All of them, quickest first.
#[must_use]
pub fn all() -> Vec<Scenario> {
    let mut all = vec![
        hello::scenario(),
        edu::scenario(),
        vcmd::scenario(),
        sva::scenario(),
        accel_config::scenario(),
        two_vms::scenario(),
        kill::scenario(),
        reboot::scenario(),
        run_time::scenario(),
        recovery::scenario(),
        shared_queue::scenario(),
    ];
    all.extend(matrix::scenarios());
    all
}

/// How a scenario came out.
#[derive(Debug)]
pub struct Outcome {
    /// What was seen, a line each, or why it failed.
    pub result: anyhow::Result<Vec<String>>,
    /// How long it took.
    pub took: Duration,
}

impl Scenario {
    /// The scenario of that name, or all of the group of that name: `matrix` is a group, and `matrix-6.1` is one.
    #[must_use]
    pub fn find(name: &str) -> Vec<Self> {
        let group = format!("{name}-");
        let mut found = all();
        found.retain(|scenario| scenario.name == name || scenario.name.starts_with(&group));
        found
    }

    fn own(name: &str, about: &str, run: fn(&Bench<'_>) -> anyhow::Result<Vec<String>>) -> Self {
        Self {
            name: name.to_owned(),
            about: about.to_owned(),
            run: Run::Own(run),
        }
    }

    /// Runs it to its end.
    #[must_use]
    pub fn run(&self, bench: &Bench<'_>) -> Outcome {
        let started = Instant::now();
        let result = match self.run {
            Run::Own(run) => run(bench),
            Run::Cell(cell) => cell.run(bench, &self.name),
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_is_found_by_its_name_and_a_group_by_its_own() {
        let names =
            |name| -> Vec<String> { Scenario::find(name).into_iter().map(|s| s.name).collect() };
        assert_eq!(names("sva"), ["sva"]);
        assert_eq!(names("matrix-6.1-sm-off"), ["matrix-6.1-sm-off"]);
        let group = names("matrix-6.1");
        assert!(group.len() > 5 && group.iter().all(|name| name.starts_with("matrix-6.1-")));
        assert_eq!(names("matrix").len(), 3 * group.len());
        assert_eq!(names("mat"), Vec::<String>::new());
    }
}
