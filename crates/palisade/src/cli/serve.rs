use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use palisade_host::{config::HostConfig, host::Host};
use rustix::process::{Resource, getrlimit, setrlimit};
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
    raise_descriptor_limit();
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

/// Every connection of every tenant takes descriptors, and who has none left cannot take the ones that a tenant sends.
/// What a login gives a program is for programs that use `select`, so it is raised as far as the system lets it.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}
