use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;
use palisade_host::control;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The control socket that the host's configuration names
    #[arg(
        long,
        value_name = "PATH",
        global = true,
        default_value = "control.sock"
    )]
    socket: PathBuf,
    #[command(subcommand)]
    question: Question,
}

#[derive(Debug, Subcommand)]
enum Question {
    /// Who holds which PASID
    Ledger {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Question::Ledger { json } = arguments.question;
    let ledger = control::ask_ledger(&arguments.socket)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&ledger)?);
    } else {
        print!("{ledger}");
    }
    Ok(ExitCode::SUCCESS)
}
