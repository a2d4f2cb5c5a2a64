//! Serves the device, and a unit beside it, to one machine: `palisade-example-edu FOLDER`.

use std::path::PathBuf;

use anyhow::Context;
use edu::Edu;
use palisade_host::host::{OwnHost, OwnMachine};
use palisade_units::Bdf;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1);
    let folder = PathBuf::from(folder.context("say in which folder the sockets are to be")?);
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let machine = OwnMachine {
        unit_socket: folder.join("unit.sock"),
        socket: folder.join("edu.sock"),
        guest_bdf: Bdf::new(0, 0x11, 0),
        quota: 1000,
    };
    let make = |function| Ok(Edu::new(function)? as _);
    let _host = OwnHost::serve(&machine, Box::new(make))?;
    println!("serving in {}; SIGTERM or SIGINT ends it", folder.display());
    signals.forever().next();
    Ok(())
}
