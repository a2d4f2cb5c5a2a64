//! The launcher: an unmodified QEMU and guest beside the host.
//!
//! A VT-d unit is a page of registers at the address that the ACPI table DMAR names. The unit's
//! registers stand in a BAR of a vfio-user function, so the launcher has to know where the firmware
//! will put that BAR before it can write the table: it starts the machine once without one, reads the
//! address from the machine's monitor, and starts it for real.

mod command;
mod dmar;
mod probe;
mod qemu;
mod qmp;

use std::{
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use palisade_units::Bdf;

pub use command::{Machine, OnReboot};
pub use dmar::{DmarError, TableFormat, write_dmar};
pub use qemu::{Qemu, Version};

/// How long the firmware may take to place the unit's registers.
const FIRMWARE_DEADLINE: Duration = Duration::from_secs(30);

/// A function that the guest is to see: its place and the socket that serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The place on the guest's root bus.
    pub bdf: Bdf,
    /// The vfio-user socket.
    pub socket: PathBuf,
}

/// Why a machine could not be started or did not run.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// The program is not there or cannot be run.
    #[error("{}: cannot be run (install QEMU 10.1 or newer, or name it with --qemu)", program.display())]
    NoQemu {
        /// What was tried.
        program: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The program does not say a version that can be read.
    #[error("{}: does not say a QEMU version but {said:?}; name QEMU 10.1 or newer with --qemu", program.display())]
    UnknownVersion {
        /// The program.
        program: PathBuf,
        /// Its first line.
        said: String,
    },
    /// vfio-user came with 10.1.
    #[error("{}: is QEMU {found}, but the vfio-user device needs 10.1 or newer; name another with --qemu", program.display())]
    TooOld {
        /// The program.
        program: PathBuf,
        /// Its version.
        found: Version,
    },
    /// Built without the device.
    #[error("{}: was built without the device vfio-user-pci ({said}); name another with --qemu", program.display())]
    NoVfioUser {
        /// The program.
        program: PathBuf,
        /// What it said.
        said: String,
    },
    /// A file that the machine needs is not there.
    #[error("{}: {what} cannot be read", file.display())]
    Missing {
        /// The file.
        file: PathBuf,
        /// What it was to be.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The first start ended before the firmware placed the registers.
    #[error("QEMU ended ({status}) before its firmware placed the unit's registers: {said}")]
    EndedEarly {
        /// How it ended.
        status: ExitStatus,
        /// The last of what it said.
        said: String,
    },
    /// The first start never placed the registers.
    #[error("the firmware did not place the registers of the unit at {unit} within {} s: has the machine a function there?", FIRMWARE_DEADLINE.as_secs())]
    NotPlaced {
        /// Where the unit was to be.
        unit: Bdf,
    },
    /// The monitor broke the conversation.
    #[error("QEMU's monitor: {0}")]
    Monitor(String),
    /// The table could not be made.
    #[error(transparent)]
    Dmar(#[from] DmarError),
    /// Anything else of the host's.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl VmError {
    fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// Starts the machine: once to learn where the unit's registers are, then with the table that says so.
/// `work` is a folder for the table and the monitor's socket. Returns the running QEMU.
///
/// # Errors
/// [`VmError`]; nothing is left running then.
pub fn start(
    qemu: &Qemu,
    machine: &Machine,
    unit: &Served,
    functions: &[Served],
    work: &Path,
) -> Result<std::process::Child, VmError> {
    let base = probe::unit_base(qemu, machine, unit, functions, work)?;
    tracing::info!(base = format_args!("{base:#x}"), unit = %unit.bdf, "the firmware placed the unit's registers");
    let table = work.join("dmar.bin");
    let scopes: Vec<Bdf> = functions.iter().map(|f| f.bdf).collect();
    write_dmar(&table, TableFormat::Body, base, &scopes)?;
    let mut command = machine.command(qemu, unit, functions);
    command
        .arg("-acpitable")
        .arg(dmar::acpitable_argument(&table));
    command.spawn().map_err(VmError::io("start QEMU"))
}
