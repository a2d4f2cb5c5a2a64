//! `edu`: the example's device, served by the example's own program; a program in the guest has it by `vfio-pci`.
//!
//! Shows R76 (a device of one's own), R3 (what is not mapped is not reached).

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::{Bench, Scenario, expect_checks};
use crate::host;
use crate::vm::{Console, Guest};

pub(super) fn scenario() -> Scenario {
    Scenario::own(
        "edu",
        "the example's device in the hands of a guest's program",
        run,
    )
}

const PATIENCE: Duration = Duration::from_secs(300);

/// How long the example may take to open its sockets.
const OPENING: Duration = Duration::from_secs(20);

/// The example's program, and the tenant that its file for the launcher names.
const PROGRAM: &str = "palisade-example-edu";
const TENANT: &str = "edu";

/// What the guest must have checked.
const CHECKS: &[&str] = &[
    "edu-identity",
    "edu-factorial",
    "edu-copy-64",
    "edu-copy-32",
    "edu-unmapped",
    "edu-given-back",
];

/// A running example. It ends with this value.
struct Example {
    process: Child,
    folder: tempfile::TempDir,
}

impl Example {
    fn start(bench: &Bench<'_>) -> anyhow::Result<Self> {
        let program = host::build(bench.layout, PROGRAM)?;
        // Addresses of sockets are short; the workspace's path need not be.
        let folder = tempfile::Builder::new().prefix("palisade-edu-").tempdir()?;
        let file = bench.layout.workspace().join("examples/edu/machine.toml");
        fs::copy(&file, folder.path().join("machine.toml"))
            .with_context(|| format!("cannot copy {}", file.display()))?;
        fs::create_dir_all(bench.layout.logs())?;
        let output = File::create(bench.layout.logs().join("edu.host"))?;
        let process = Command::new(program)
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("cannot start the example")?;
        let mut example = Self { process, folder };
        let deadline = Instant::now() + OPENING;
        while !example.folder.path().join("edu.sock").exists() {
            if let Some(status) = example.process.try_wait()? {
                bail!("the example ended with {status}");
            }
            if Instant::now() > deadline {
                bail!("the example opens no socket");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(example)
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn run(bench: &Bench<'_>) -> anyhow::Result<Vec<String>> {
    let kernel = &bench.setup.newest;
    let image = bench.image(kernel)?;
    let example = Example::start(bench)?;
    let boot = bench.boot(kernel, &image, "edu", &[]);
    let console = Console::new(bench.layout, "edu")?;
    let config = example.folder.path().join("machine.toml");
    let command = boot.attached(bench.palisade()?, &config, TENANT, &console);
    let guest = Guest::start(command, console)?;
    let seen = guest.finish(PATIENCE)?;
    expect_checks("guest", &seen, CHECKS)
}
