//! QEMU's command line.

use std::{
    ffi::OsString,
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use palisade_units::Bdf;

use super::{Qemu, Served, VmError};

/// What a guest needs before it turns shared virtual addressing on, and a console.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 intel_iommu=on,sm_on";

/// What becomes of the machine when its guest reboots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnReboot {
    /// QEMU ends.
    End,
    /// The machine is reset, as metal is: its firmware places everything anew, the kernel starts again.
    Restart,
}

/// The machine around the guest.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The guest's kernel.
    pub kernel: PathBuf,
    /// The guest's initial file system.
    pub initrd: PathBuf,
    /// What is put behind the kernel arguments that the guest needs.
    pub append: String,
    /// Memory, as QEMU spells sizes (`1G`).
    pub memory: String,
    /// QEMU's accelerator.
    pub accel: String,
    /// QEMU's CPU model. The first stage of the guest's unit has five levels only on one with LA57.
    pub cpu: String,
    /// Virtual CPUs.
    pub cpus: u8,
    /// What a reboot of the guest does.
    pub on_reboot: OnReboot,
    /// What is put behind everything else.
    pub arguments: Vec<OsString>,
}

impl Machine {
    /// Whether the files are there, to be asked before anything is started.
    ///
    /// # Errors
    /// [`VmError::Missing`].
    pub fn check(&self) -> Result<(), VmError> {
        for (file, what) in [(&self.kernel, "the kernel"), (&self.initrd, "the initrd")] {
            File::open(file).map_err(|source| VmError::Missing {
                file: file.clone(),
                what,
                source,
            })?;
        }
        Ok(())
    }

    /// The whole command line but for the DMAR table.
    pub(super) fn command(&self, qemu: &Qemu, unit: &Served, functions: &[Served]) -> Command {
        let mut command = Command::new(qemu.program());
        command
            .args(["-machine", "q35,memory-backend=memory"])
            .arg("-object")
            .arg(format!(
                "memory-backend-memfd,id=memory,size={},share=on",
                self.memory
            ))
            .args(["-m", &self.memory, "-accel", &self.accel, "-cpu", &self.cpu])
            .args(["-smp", &self.cpus.to_string()]);
        if self.on_reboot == OnReboot::End {
            command.arg("-no-reboot");
        }
        if !self
            .arguments
            .iter()
            .any(|a| a == "-display" || a == "-nographic" || a == "-serial")
        {
            command.arg("-nographic");
        }
        command
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&self.initrd);
        command
            .arg("-append")
            .arg(format!("{KERNEL_ARGUMENTS} {}", self.append).trim_end());
        for served in std::iter::once(unit).chain(functions) {
            command
                .arg("-device")
                .arg(device_argument(served.bdf, &served.socket));
        }
        command.args(&self.arguments);
        command
    }
}

fn device_argument(bdf: Bdf, socket: &Path) -> String {
    serde_json::json!({
        "driver": "vfio-user-pci",
        "socket": { "path": socket.to_string_lossy(), "type": "unix" },
        "addr": format!("{:x}.{}", bdf.device(), bdf.function()),
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_named_by_its_place_and_socket() {
        let argument = device_argument(Bdf::new(0, 0x11, 1), Path::new("/run/a \"b\".sock"));
        let value: serde_json::Value = serde_json::from_str(&argument).unwrap();
        assert_eq!(value["addr"], "11.1");
        assert_eq!(value["socket"]["path"], "/run/a \"b\".sock");
    }
}
