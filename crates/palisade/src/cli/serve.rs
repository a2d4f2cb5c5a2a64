use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use palisade_host::{config::HostConfig, host::Host};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = HostConfig::load(&arguments.config)?;
    // Before anything is opened, so that a signal never leaves sockets behind.
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("watch for signals")?;
    let host = Host::start(&config).context("start the host")?;
    tracing::info!(
        parents = config.parents.len(),
        tenants = config.tenants.len(),
        "serving; SIGTERM or SIGINT ends it"
    );
    if let Some(signal) = signals.forever().next() {
        tracing::info!(signal, "ending");
    }
    host.stop();
    Ok(ExitCode::SUCCESS)
}
