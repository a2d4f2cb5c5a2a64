//! The table that tells a guest where its unit is.

use std::path::{Path, PathBuf};

use palisade_units::Bdf;
use palisade_vtd::dmar;

/// How the table is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableFormat {
    /// What follows the 36-byte header: QEMU makes the header itself.
    Body,
    /// With header and checksum, as firmware has it.
    Whole,
}

/// Why a table could not be written.
#[derive(Debug, thiserror::Error)]
pub enum DmarError {
    /// A description that no table can hold.
    #[error("the DMAR table")]
    Table(#[from] dmar::DmarError),
    /// The file cannot be written.
    #[error("{}: cannot be written", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Writes the table for a unit whose registers are at `base` and that translates for `scopes`.
///
/// # Errors
/// [`DmarError`].
pub fn write_dmar(
    file: &Path,
    format: TableFormat,
    base: u64,
    scopes: &[Bdf],
) -> Result<(), DmarError> {
    let bytes = match format {
        TableFormat::Body => dmar::body(base, scopes)?,
        TableFormat::Whole => dmar::table(base, scopes)?,
    };
    std::fs::write(file, bytes).map_err(|source| DmarError::Write {
        file: file.to_owned(),
        source,
    })
}

/// QEMU's argument for a body in `file`.
pub(super) fn acpitable_argument(file: &Path) -> std::ffi::OsString {
    let mut argument = std::ffi::OsString::from(
        "sig=DMAR,rev=1,oem_id=PALISD,oem_table_id=PALISADE,oem_rev=1,asl_compiler_id=PLSD,asl_compiler_rev=1,data=",
    );
    argument.push(file);
    argument
}
