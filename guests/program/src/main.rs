//! The program that a guest's init script runs.

use std::process::ExitCode;

use anyhow::bail;
use palisade_guest_program::scenario::{Worker, run_this_boot, run_worker};

const USAGE: &str = "palisade-guest-program init
    run the scenario that the kernel's command line names (palisade.scenario=NAME)
palisade-guest-program worker NAME QUEUE STOP-FILE SEED stopped|cut
    copy by the work queue QUEUE until STOP-FILE is there, or until the queue is taken away, and check every byte";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("palisade-guest-program: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> anyhow::Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["init"] => run_this_boot(),
        ["worker", ..] => run_worker(&Worker::from_arguments(&arguments[1..])?),
        ["--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => bail!("unknown arguments; usage:\n{USAGE}"),
    }
}
