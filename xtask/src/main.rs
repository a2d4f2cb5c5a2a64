//! Developer commands: `cargo xtask …`.

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
    /// Run scenarios with real guests under QEMU
    Guest(guest::Arguments),
    /// Run every interleaving of threads that meet in the PASID authority
    Interleavings,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
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
