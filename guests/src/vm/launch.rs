//! What a machine's QEMU is started with.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::image::Extra;
use crate::setup::{Kernel, Setup};
use crate::{Layout, image};

/// What every kernel of ours is told: where its console is, and to end instead of standing still.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 panic=-1 oops=panic";

/// A machine's serial ports: the console, which goes to a file, and the report port, which we talk to.
#[derive(Debug)]
pub struct Console {
    pub(super) listener: UnixListener,
    pub(super) ports: Ports,
}

/// Where the ports of a machine lead to.
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) name: String,
    pub(super) console: PathBuf,
    pub(super) report: PathBuf,
    pub(super) launcher: PathBuf,
    pub(super) pid: PathBuf,
    socket: PathBuf,
    // Addresses of sockets are short; the workspace's path need not be.
    _folder: tempfile::TempDir,
}

impl Console {
    /// Makes the ports of the machine `name`, one word, and forgets what an earlier one of that name said.
    ///
    /// # Errors
    /// The files or the socket cannot be made.
    pub fn new(layout: &Layout, name: &str) -> anyhow::Result<Self> {
        let logs = layout.logs();
        fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        let folder = tempfile::Builder::new().prefix("palisade-").tempdir()?;
        let socket = folder.path().join("report");
        let listener = UnixListener::bind(&socket)
            .with_context(|| format!("cannot listen at {}", socket.display()))?;
        let log = |ending: &str| logs.join(format!("{name}.{ending}"));
        let ports = Ports {
            name: name.to_owned(),
            console: log("console"),
            report: log("report"),
            launcher: log("launcher"),
            pid: folder.path().join("pid"),
            socket,
            _folder: folder,
        };
        for file in [&ports.console, &ports.report, &ports.launcher] {
            fs::write(file, "").with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(Self { listener, ports })
    }

    /// The arguments that give QEMU these ports and no screen.
    #[must_use]
    pub fn qemu_arguments(&self) -> Vec<String> {
        let port = |backend: String, id: &str| {
            [
                "-chardev".to_owned(),
                format!("{backend},id={id}"),
                "-serial".to_owned(),
                format!("chardev:{id}"),
            ]
        };
        let console = format!("file,path={}", escaped(&self.ports.console));
        let report = format!("socket,path={}", escaped(&self.ports.socket));
        let mut arguments = vec!["-display".to_owned(), "none".to_owned()];
        arguments.extend(port(console, "palisade-console"));
        arguments.extend(port(report, "palisade-report"));
        arguments.push("-pidfile".to_owned());
        arguments.push(self.ports.pid.display().to_string());
        arguments
    }
}

/// QEMU ends a value at a comma, unless there are two.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// Where the image for a kernel is, made anew.
///
/// # Errors
/// It cannot be written.
pub(crate) fn image_for(
    layout: &Layout,
    setup: &Setup,
    kernel: &Kernel,
    extra: Extra<'_>,
) -> anyhow::Result<PathBuf> {
    let name = match extra {
        Extra::None => format!("{}.cpio", kernel.release),
        Extra::AccelConfig(_) => format!("{}-accel-config.cpio", kernel.release),
    };
    let path = layout.guest().join("images").join(name);
    let contents = image::Contents {
        busybox: &setup.busybox,
        program: &setup.program,
        kernel,
        extra,
    };
    image::write(&path, &contents)?;
    Ok(path)
}

/// The kernel's command line for a scenario.
#[must_use]
pub(crate) fn kernel_arguments(scenario: &str, more: &[&str]) -> String {
    let mut arguments = format!("{KERNEL_ARGUMENTS} palisade.scenario={scenario}");
    for argument in more {
        arguments.push(' ');
        arguments.push_str(argument);
    }
    arguments
}

/// A machine without palisade: QEMU alone, for a guest that needs no accelerator.
#[derive(Debug)]
pub struct Direct<'a> {
    /// What set-up made.
    pub setup: &'a Setup,
    /// The kernel to boot.
    pub kernel: &'a Kernel,
    /// The guest's scenario.
    pub scenario: &'a str,
}

impl Direct<'_> {
    /// The command that starts it with these ports.
    ///
    /// # Errors
    /// The image cannot be made.
    pub fn command(&self, layout: &Layout, console: &Console) -> anyhow::Result<Command> {
        let initrd = image_for(layout, self.setup, self.kernel, Extra::None)?;
        let mut command = Command::new(&self.setup.qemu);
        command
            .args([
                "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "512M",
            ])
            .args(["-nodefaults", "-no-reboot"])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(initrd)
            .arg("-append")
            .arg(kernel_arguments(self.scenario, &[]))
            .args(console.qemu_arguments());
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_a_path_does_not_end_it() {
        assert_eq!(escaped(Path::new("/a,b/c")), "/a,,b/c");
    }

    #[test]
    fn a_scenario_stands_on_the_kernels_command_line() {
        let line = kernel_arguments("pair", &["palisade.seconds=3"]);
        assert!(line.ends_with(" palisade.scenario=pair palisade.seconds=3"));
        assert!(line.contains("console=ttyS0"));
    }
}
