//! The command line.

mod ctl;
mod demo;
mod dmar;
mod serve;
mod served;
mod vm;

use std::{
    fmt::Display,
    io::{self, ErrorKind, IsTerminal, Write, stdout},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Share one accelerator between virtual machines, each guest process by its own addresses.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
struct Arguments {
    /// What is logged to standard error, as in palisade=debug,warn; the variable PALISADE_LOG serves too
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Two tenants share an accelerator in this terminal, and one of them turns hostile
    Demo(demo::Arguments),
    /// Serve the accelerators and tenants of a configuration until SIGTERM or SIGINT
    Serve(serve::Arguments),
    /// Start a virtual machine whose guest has the IOMMU unit and a mediated accelerator
    Vm(vm::Arguments),
    /// Write the DMAR table for a launcher of your own
    Dmar(dmar::Arguments),
    /// Ask a running host, or change its limits and functions
    Ctl(ctl::Arguments),
    /// A tenant of the demo, started by the demo itself
    #[command(hide = true)]
    DemoTenant,
}

/// Standard output does not take what is to be said.
#[derive(Debug, thiserror::Error)]
#[error("standard output cannot be written")]
struct Unsaid(#[source] io::Error);

/// Says one thing on standard output, with an end of line.
fn say(what: impl Display) -> Result<(), Unsaid> {
    let mut out = stdout().lock();
    writeln!(out, "{what}")
        .and_then(|()| out.flush())
        .map_err(Unsaid)
}

/// Whether whoever read the output has read enough, as `head` does: no error of anybody's.
fn nobody_listens(error: &anyhow::Error) -> bool {
    let unsaid = error.downcast_ref::<Unsaid>();
    unsaid.is_some_and(|Unsaid(e)| e.kind() == ErrorKind::BrokenPipe)
}

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = arguments
        .log
        .or_else(|| std::env::var("PALISADE_LOG").ok())
        .unwrap_or_else(|| match arguments.command {
            // The demo's attacks are what the demo reports, not what its log is for.
            Command::Demo(_) | Command::DemoTenant => "error".to_owned(),
            // The terminal is the guest's console.
            Command::Vm(_) => "warn".to_owned(),
            _ => "info".to_owned(),
        });
    let filter = match EnvFilter::try_new(&filter) {
        Ok(filter) => filter,
        Err(e) => {
            eprintln!("palisade: log filter {filter:?} (--log or PALISADE_LOG): {e}");
            return ExitCode::from(2);
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let outcome = match arguments.command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Vm(arguments) => vm::run(&arguments),
        Command::Dmar(arguments) => dmar::run(&arguments),
        Command::Ctl(arguments) => ctl::run(&arguments),
        Command::DemoTenant => palisade_host::demo::run_tenant().map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|e| {
        if nobody_listens(&e) {
            return ExitCode::SUCCESS;
        }
        eprintln!("palisade: {e:#}");
        ExitCode::FAILURE
    })
}
