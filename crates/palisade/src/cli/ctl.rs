use std::{
    io::{Write, stderr, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

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
    /// What happened to PASIDs: allocated, bound, refused, freed
    Events {
        /// From this event on
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        since: u64,
        /// Go on with what happens from now on, until interrupted
        #[arg(long)]
        follow: bool,
        /// Print one JSON document, or with --follow one for each event
        #[arg(long)]
        json: bool,
    },
}

/// How often a host is asked for what is new.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let socket = &arguments.socket;
    match arguments.question {
        Question::Ledger { json } => ledger(socket, json)?,
        Question::Events {
            since,
            follow: false,
            json: true,
        } => {
            let page = control::ask_events(socket, since)?;
            writeln!(stdout(), "{}", serde_json::to_string_pretty(&page)?)?;
        }
        Question::Events {
            since,
            follow,
            json,
        } => events(socket, since, follow, json)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn ledger(socket: &Path, json: bool) -> anyhow::Result<()> {
    let ledger = control::ask_ledger(socket)?;
    if json {
        writeln!(stdout(), "{}", serde_json::to_string_pretty(&ledger)?)?;
    } else {
        write!(stdout(), "{ledger}")?;
    }
    Ok(())
}

fn events(socket: &Path, mut since: u64, follow: bool, json: bool) -> anyhow::Result<()> {
    loop {
        let page = control::ask_events(socket, since)?;
        let mut out = stdout().lock();
        if page.dropped > 0 {
            writeln!(
                stderr(),
                "{} earlier events are no longer kept",
                page.dropped
            )?;
        }
        for event in &page.events {
            if json {
                writeln!(out, "{}", serde_json::to_string(event)?)?;
            } else {
                writeln!(out, "{event}")?;
            }
        }
        out.flush()?;
        if !follow {
            return Ok(());
        }
        since = page.next;
        thread::sleep(FOLLOW_EVERY);
    }
}
