//! Developer commands: `cargo xtask …`.

mod fuzz;
mod guest;
mod interleavings;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Let the fuzzer look for inputs that panic, hang or break an invariant
    Fuzz(fuzz::Arguments),
    /// Run scenarios with real guests under QEMU
    Guest(guest::Arguments),
    /// Run every interleaving of threads that meet in the PASID authority
    Interleavings,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Guest(arguments) => guest::run(&arguments),
        Command::Interleavings => interleavings::run(),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
