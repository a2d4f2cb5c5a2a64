use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::ValueEnum;
use palisade_host::{
    config::HostConfig,
    vm::{TableFormat, write_dmar},
};
use palisade_units::Bdf;

use super::served;

/// How the table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Without the 36-byte header: for QEMU's -acpitable sig=DMAR,…,data=FILE
    Body,
    /// With header and checksum
    Table,
}

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where the guest's firmware puts BAR 0 of the unit, as in 0xfebf1000
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    base: u64,
    /// A function that the unit translates for, as in 00:11.0; may be repeated
    #[arg(
        long = "function",
        value_name = "BDF",
        required_unless_present = "config"
    )]
    functions: Vec<Bdf>,
    /// Take the functions of a tenant from a configuration, and from its host if that runs
    #[arg(
        long,
        value_name = "FILE",
        requires = "tenant",
        conflicts_with = "functions"
    )]
    config: Option<PathBuf>,
    /// The tenant in the configuration
    #[arg(long, value_name = "NAME", requires = "config")]
    tenant: Option<String>,
    /// What the file holds
    #[arg(long, value_enum, default_value_t = Format::Body)]
    format: Format,
    /// The file to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

fn address(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|e| format!("{e}: write an address as in 0xfebf1000"))
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut scopes = arguments.functions.clone();
    if let (Some(file), Some(name)) = (&arguments.config, &arguments.tenant) {
        let config = HostConfig::load(file)?;
        let tenant = config
            .tenant(name)
            .with_context(|| format!("{}: there is no tenant {name:?}", file.display()))?;
        let mut functions = served::configured(tenant);
        match served::made_at_run_time(&config, tenant) {
            Ok(made) => functions.extend(made),
            // The table may be written before the host runs.
            Err(e) => tracing::warn!("functions made at run time are not in the table: {e:#}"),
        }
        scopes = functions.iter().map(|f| f.bdf).collect();
    }
    let format = match arguments.format {
        Format::Body => TableFormat::Body,
        Format::Table => TableFormat::Whole,
    };
    write_dmar(&arguments.output, format, arguments.base, &scopes)?;
    Ok(ExitCode::SUCCESS)
}
