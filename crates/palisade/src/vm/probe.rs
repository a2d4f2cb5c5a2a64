//! The first start: where does the firmware of this machine put the unit's registers?

use std::{
    io::Read,
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{FIRMWARE_DEADLINE, Machine, Qemu, Served, VmError, qmp::Monitor};

const POLL: Duration = Duration::from_millis(10);

/// Starts the machine without a table and stops it as soon as BAR 0 of the unit has an address. Disks are
/// opened so that nothing is written to them.
pub(super) fn unit_base(
    qemu: &Qemu,
    machine: &Machine,
    unit: &Served,
    functions: &[Served],
    work: &Path,
) -> Result<u64, VmError> {
    let socket = work.join("probe-monitor.sock");
    let _ = std::fs::remove_file(&socket);
    let child = machine
        .command(qemu, unit, functions)
        .args([
            "-snapshot",
            "-monitor",
            "none",
            "-serial",
            "null",
            "-display",
            "none",
            "-qmp",
        ])
        .arg(format!("unix:{},server=on,wait=off", socket.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(VmError::io("start QEMU"))?;
    let mut running = Running(child);
    let deadline = Instant::now() + FIRMWARE_DEADLINE;
    let mut monitor = None;
    while Instant::now() < deadline {
        if let Some(status) = running.0.try_wait().map_err(VmError::io("wait for QEMU"))? {
            let mut said = String::new();
            if let Some(mut stderr) = running.0.stderr.take() {
                let _ = stderr.read_to_string(&mut said);
            }
            return Err(VmError::EndedEarly {
                status,
                said: said.trim().to_owned(),
            });
        }
        if monitor.is_none() && socket.exists() {
            // The file is there a moment before QEMU listens.
            monitor = Monitor::connect(&socket).ok();
        }
        if let Some(monitor) = &mut monitor
            && let Some(base) = monitor.bar0(unit.bdf)?
        {
            return Ok(base);
        }
        thread::sleep(POLL);
    }
    Err(VmError::NotPlaced { unit: unit.bdf })
}

/// A process that does not outlive its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
