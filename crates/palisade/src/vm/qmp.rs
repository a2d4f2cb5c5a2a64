//! As much of QEMU's monitor protocol as the launcher needs: one JSON document a line.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use palisade_units::Bdf;
use serde_json::{Value, json};

use super::VmError;

const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// A conversation with the monitor of one machine.
pub(super) struct Monitor {
    lines: BufReader<UnixStream>,
}

impl Monitor {
    pub(super) fn connect(socket: &Path) -> Result<Self, VmError> {
        let stream =
            UnixStream::connect(socket).map_err(VmError::io("connect to QEMU's monitor"))?;
        stream
            .set_read_timeout(Some(ANSWER_DEADLINE))
            .map_err(VmError::io("set a time limit"))?;
        let mut monitor = Self {
            lines: BufReader::new(stream),
        };
        let greeting = monitor.line()?;
        if greeting.get("QMP").is_none() {
            return Err(VmError::Monitor(format!("greeted with {greeting}")));
        }
        monitor.execute("qmp_capabilities")?;
        Ok(monitor)
    }

    fn line(&mut self) -> Result<Value, VmError> {
        let mut line = String::new();
        let read = self
            .lines
            .read_line(&mut line)
            .map_err(VmError::io("read from QEMU's monitor"))?;
        if read == 0 {
            return Err(VmError::Monitor("hung up".to_owned()));
        }
        serde_json::from_str(&line).map_err(|e| VmError::Monitor(format!("said {line:?}: {e}")))
    }

    /// One command; events that come in between are passed over.
    pub(super) fn execute(&mut self, command: &str) -> Result<Value, VmError> {
        let request = format!("{}\n", json!({ "execute": command }));
        self.lines
            .get_mut()
            .write_all(request.as_bytes())
            .map_err(VmError::io("write to QEMU's monitor"))?;
        loop {
            let mut answer = self.line()?;
            if let Some(error) = answer.get("error") {
                return Err(VmError::Monitor(format!("{command}: {error}")));
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    /// The address of BAR 0 of a function on the root bus, once the firmware has set one.
    pub(super) fn bar0(&mut self, bdf: Bdf) -> Result<Option<u64>, VmError> {
        Ok(bar0_in(&self.execute("query-pci")?, bdf))
    }
}

/// Looks a function up in the answer to `query-pci`.
fn bar0_in(buses: &Value, bdf: Bdf) -> Option<u64> {
    let bus = buses.as_array()?.iter().find(|b| b["bus"] == bdf.bus())?;
    let device = bus["devices"].as_array()?.iter().find(|d| {
        d["bus"] == bdf.bus() && d["slot"] == bdf.device() && d["function"] == bdf.function()
    })?;
    let region = device["regions"]
        .as_array()?
        .iter()
        .find(|r| r["bar"] == 0)?;
    // An unset BAR reads as all ones, or as zero.
    region["address"]
        .as_u64()
        .filter(|a| *a != 0 && *a < u64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_found_once_it_is_placed() {
        let answer = |address: i64| {
            json!([{ "bus": 0, "devices": [
                { "bus": 0, "slot": 2, "function": 0, "regions": [{ "bar": 0, "address": 1 }] },
                { "bus": 0, "slot": 16, "function": 0, "regions": [{ "bar": 0, "address": address }] },
            ]}])
        };
        let unit = Bdf::new(0, 0x10, 0);
        assert_eq!(bar0_in(&answer(0xfebf_1000), unit), Some(0xfebf_1000));
        assert_eq!(bar0_in(&answer(-1), unit), None);
        assert_eq!(bar0_in(&answer(0), unit), None);
        assert_eq!(bar0_in(&json!([]), unit), None);
    }
}
