//! The program `palisade`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
