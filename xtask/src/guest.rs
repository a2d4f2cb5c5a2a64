//! `cargo xtask guest`: real guests.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::bail;
use palisade_guests::Layout;
use palisade_guests::scenario::{self, Bench, Scenario};
use palisade_guests::setup::{self, Freshness, Setup};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Scenarios to run, or groups of them such as matrix; all of them if none is named
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Only tell which scenarios there are
    #[arg(long, conflicts_with_all = ["names", "set_up", "renew"])]
    list: bool,
    /// Only download and build what guests need
    #[arg(long, conflicts_with = "names")]
    set_up: bool,
    /// Look for newer packages than those that are there
    #[arg(long)]
    renew: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.list {
        for scenario in scenario::all() {
            println!("{:24} {}", scenario.name, scenario.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let scenarios = chosen(&arguments.names)?;
    let freshness = match arguments.renew {
        true => Freshness::Renew,
        false => Freshness::Keep,
    };
    let layout = Layout::of_this_workspace();
    let started = Instant::now();
    let setup = match setup::prepare(&layout, freshness) {
        Ok(setup) => setup,
        Err(error) => {
            eprintln!("error: set-up failed, nothing was run: {error:#}");
            // What cannot be set up is not skipped.
            println!("0 passed, {} failed", scenarios.len());
            return Ok(ExitCode::FAILURE);
        }
    };
    tell(&layout, &setup);
    println!("set-up took {:.1} s", started.elapsed().as_secs_f32());
    if arguments.set_up {
        return Ok(ExitCode::SUCCESS);
    }
    Ok(run_all(&scenarios, &Bench::new(&layout, &setup)))
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<Scenario>> {
    if names.is_empty() {
        return Ok(scenario::all());
    }
    let mut scenarios = Vec::new();
    for name in names {
        let found = Scenario::find(name);
        if found.is_empty() {
            let known: Vec<String> = scenario::all().into_iter().map(|s| s.name).collect();
            bail!(
                "there is no scenario {name}; there are {}",
                known.join(", ")
            );
        }
        scenarios.extend(found);
    }
    Ok(scenarios)
}

fn tell(layout: &Layout, setup: &Setup) {
    println!("QEMU {} as {}", setup.qemu_version, setup.qemu.display());
    for kernel in [&setup.newest, &setup.stable, &setup.allocator] {
        println!("Linux {}", kernel.release);
    }
    println!("accel-config {}", setup.accel_config.version);
    println!("what guests say goes to {}", layout.logs().display());
}

fn run_all(scenarios: &[Scenario], bench: &Bench<'_>) -> ExitCode {
    let (mut passed, mut failed) = (0, 0);
    for scenario in scenarios {
        println!("{} ...", scenario.name);
        let outcome = scenario.run(bench);
        let seconds = outcome.took.as_secs_f32();
        match outcome.result {
            Ok(lines) => {
                passed += 1;
                for line in lines {
                    println!("    {}", line.trim_end());
                }
                println!("{} passed in {seconds:.1} s", scenario.name);
            }
            Err(error) => {
                failed += 1;
                println!("    {error:#}");
                println!("{} FAILED in {seconds:.1} s", scenario.name);
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
