use std::{
    io::{IsTerminal, stderr},
    process::ExitCode,
};

use palisade_host::demo::{self, Progress};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print one JSON document instead of a report for people
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let progress = if stderr().is_terminal() && !arguments.json {
        Progress::Bars
    } else {
        Progress::Quiet
    };
    let report = demo::run(progress)?;
    if arguments.json {
        super::say(serde_json::to_string_pretty(&report)?)?;
    } else {
        super::say(&report)?;
    }
    Ok(if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
