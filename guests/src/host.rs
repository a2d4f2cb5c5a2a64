//! palisade on the host, by its command line: building it, serving a configuration, starting machines, asking
//! for the ledger.
//!
//! All that this crate knows of palisade's arguments and files is here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::command;
use crate::setup::Kernel;
use crate::vm::Console;
use crate::{Layout, setup::Setup};

/// How long the daemon may take to serve, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

const TICK: Duration = Duration::from_millis(50);

/// The host's only accelerator in these scenarios.
const PARENT: &str = "dsa0";

/// Builds a program of the workspace as it is released, whose package has its name, and returns where it is.
pub(crate) fn build(layout: &Layout, program: &str) -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    println!("    building {program}");
    let messages = command::run(
        Command::new(cargo)
            .current_dir(layout.workspace())
            .args(["build", "--release", "--package", program, "--bin", program])
            .arg("--message-format=json-render-diagnostics"),
    )
    .with_context(|| format!("{program} cannot be built"))?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<CargoMessage>(line).ok())
        .find_map(|message| message.executable)
        .with_context(|| format!("{program} was built, but cargo does not say where it is"))
}

#[derive(Deserialize)]
struct CargoMessage {
    executable: Option<PathBuf>,
}

/// The program, told that its log goes to a file.
fn palisade(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("NO_COLOR", "1");
    command
}

/// Whether a tenant's unit has virtual command registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VirtualCommands {
    /// Not there: the guest numbers its PASIDs itself.
    Off,
    /// There: the guest asks the host for each.
    Current,
}

/// One tenant of a configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tenant<'a> {
    pub(crate) name: &'a str,
    /// How many PASIDs it may hold.
    pub(crate) quota: u32,
    /// How many functions its guest has, each a queue of the shared parent.
    pub(crate) functions: usize,
    pub(crate) virtual_commands: VirtualCommands,
}

/// A running `palisade serve`. It ends with this value.
#[derive(Debug)]
pub(crate) struct Daemon {
    program: PathBuf,
    process: Child,
    folder: tempfile::TempDir,
    log: PathBuf,
}

/// Who holds which PASID, as the host tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// How many are out, over all tenants.
    pub(crate) outstanding: u32,
    holdings: BTreeMap<String, Vec<Holding>>,
}

/// One PASID of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Holding {
    /// The host's number.
    pub(crate) pasid: u32,
    /// The guest's number, where it has one.
    pub(crate) guest: Option<u32>,
}

#[derive(Deserialize)]
struct LedgerDocument {
    outstanding: u32,
    tenants: Vec<TenantDocument>,
}

#[derive(Deserialize)]
struct TenantDocument {
    name: String,
    pasids: Vec<Holding>,
}

impl Ledger {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let document: LedgerDocument =
            serde_json::from_str(text).context("the ledger is not understood")?;
        let holdings = document.tenants.into_iter();
        Ok(Self {
            outstanding: document.outstanding,
            holdings: holdings.map(|t| (t.name, t.pasids)).collect(),
        })
    }

    /// What a tenant holds.
    pub(crate) fn of(&self, tenant: &str) -> &[Holding] {
        self.holdings.get(tenant).map_or(&[], Vec::as_slice)
    }

    /// The host's numbers of a tenant.
    pub(crate) fn host_pasids(&self, tenant: &str) -> BTreeSet<u32> {
        self.of(tenant)
            .iter()
            .map(|holding| holding.pasid)
            .collect()
    }

    /// The guest's numbers of a tenant.
    pub(crate) fn guest_pasids(&self, tenant: &str) -> BTreeSet<u32> {
        let guest = self.of(tenant).iter().filter_map(|holding| holding.guest);
        guest.collect()
    }
}

fn configuration(tenants: &[Tenant<'_>]) -> String {
    let mut text = format!(
        "control = \"control.sock\"\n\n[[parent]]\nname = \"{PARENT}\"\nbdf = \"6a:01.0\"\n\
         sharing = \"mediated\"\n"
    );
    // Writing to a string cannot fail.
    for tenant in tenants {
        let name = tenant.name;
        let commands = match tenant.virtual_commands {
            VirtualCommands::Off => "off",
            VirtualCommands::Current => "current",
        };
        let _ = write!(
            text,
            "\n[[tenant]]\nname = \"{name}\"\nquota = {}\n\
             unit = {{ socket = \"{name}-unit.sock\", virtual_commands = \"{commands}\" }}\n",
            tenant.quota
        );
        for index in 0..tenant.functions {
            let _ = write!(
                text,
                "\n[[tenant.function]]\nparent = \"{PARENT}\"\ntype = \"dedicated-queue\"\n\
                 socket = \"{name}-{index}.sock\"\n"
            );
        }
    }
    text
}

impl Daemon {
    /// Serves these tenants on one shared accelerator, and waits until it answers.
    pub(crate) fn start(
        layout: &Layout,
        program: &Path,
        scenario: &str,
        tenants: &[Tenant<'_>],
    ) -> anyhow::Result<Self> {
        // Addresses of sockets are short; the workspace's path need not be.
        let folder = tempfile::Builder::new()
            .prefix("palisade-host-")
            .tempdir()?;
        let configuration_file = folder.path().join("host.toml");
        fs::write(&configuration_file, configuration(tenants))?;
        fs::create_dir_all(layout.logs())?;
        let log = layout.logs().join(format!("{scenario}.host"));
        let output = File::create(&log)?;
        let process = palisade(program)
            .arg("serve")
            .arg("--config")
            .arg(&configuration_file)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("cannot start palisade serve")?;
        let mut daemon = Self {
            program: program.to_owned(),
            process,
            folder,
            log,
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            daemon.expect_alive()?;
            match daemon.ledger() {
                Ok(_) => return Ok(daemon),
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context("palisade serve does not answer"));
                }
                Err(_) => std::thread::sleep(TICK),
            }
        }
    }

    fn expect_alive(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.process.try_wait()? {
            let said = fs::read_to_string(&self.log).unwrap_or_default();
            bail!("palisade serve ended with {status}: {}", said.trim());
        }
        Ok(())
    }

    /// Asks for the ledger.
    pub(crate) fn ledger(&self) -> anyhow::Result<Ledger> {
        let answer = command::run(self.ctl().args(["ledger", "--json"]))?;
        Ledger::parse(&answer)
    }

    /// Waits until the ledger satisfies `enough`, and returns it.
    pub(crate) fn wait_for_ledger(
        &self,
        what: &str,
        enough: impl Fn(&Ledger) -> bool,
    ) -> anyhow::Result<Ledger> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ledger = self.ledger()?;
            if enough(&ledger) {
                return Ok(ledger);
            }
            ensure!(
                Instant::now() < deadline,
                "the ledger does not become what it must be ({what}): {ledger:?}"
            );
            std::thread::sleep(TICK);
        }
    }

    /// Has a function made for a tenant, a queue of the shared parent, and returns its UUID.
    pub(crate) fn make_function(&self, tenant: &str) -> anyhow::Result<String> {
        let create = ["mdev", "create", "--tenant", tenant, "--parent", PARENT];
        let answer =
            command::run(
                self.ctl()
                    .args(create)
                    .args(["--type", "dedicated-queue", "--json"]),
            )?;
        let answer: serde_json::Value =
            serde_json::from_str(&answer).context("what was made is not understood")?;
        let uuid = &answer["change"]["create-mdev"]["uuid"];
        Ok(uuid
            .as_str()
            .context("what was made has no UUID")?
            .to_owned())
    }

    /// Has a function removed.
    pub(crate) fn remove_function(&self, uuid: &str) -> anyhow::Result<()> {
        command::run(self.ctl().args(["mdev", "remove", uuid])).map(|_| ())
    }

    fn ctl(&self) -> Command {
        let mut command = palisade(&self.program);
        command.arg("ctl").arg("--socket");
        command.arg(self.folder.path().join("control.sock"));
        command
    }

    /// The command that starts a machine at the sockets of `tenant`. It ends when its guest reboots.
    pub(crate) fn machine(&self, tenant: &str, boot: &Boot<'_>, console: &Console) -> Command {
        let mut command = self.attached(tenant);
        boot.add_to(&mut command, console);
        command
    }

    /// The same for a machine whose guest may reboot.
    pub(crate) fn restarting(&self, tenant: &str, boot: &Boot<'_>, console: &Console) -> Command {
        let mut command = self.attached(tenant);
        command.arg("--reboot");
        boot.add_to(&mut command, console);
        command
    }

    fn attached(&self, tenant: &str) -> Command {
        let mut command = palisade(&self.program);
        command
            .args(["vm", "--tenant", tenant, "--config"])
            .arg(self.folder.path().join("host.toml"));
        command
    }

    /// Ends it as an operator does, and checks that it ends well.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.expect_alive()?;
        let pid = i32::try_from(self.process.id())?;
        let pid = Pid::from_raw(pid).context("the daemon has no process id")?;
        kill_process(pid, Signal::TERM).context("cannot end palisade serve")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait()? {
                ensure!(
                    status.success(),
                    "palisade serve ended with {status} on SIGTERM"
                );
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "palisade serve does not end on SIGTERM"
            );
            std::thread::sleep(TICK);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !matches!(self.process.try_wait(), Ok(Some(_))) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// What a machine boots.
#[derive(Debug)]
pub(crate) struct Boot<'a> {
    pub(crate) setup: &'a Setup,
    pub(crate) kernel: &'a Kernel,
    pub(crate) initrd: &'a Path,
    pub(crate) kernel_arguments: String,
    /// The processor, as QEMU names it.
    pub(crate) cpu: String,
    /// How its own host is started, where it has one.
    pub(crate) host: &'static [&'static str],
}

impl Boot<'_> {
    /// The command that starts a machine at the sockets that a configuration names for a tenant.
    pub(crate) fn attached(
        &self,
        program: &Path,
        config: &Path,
        tenant: &str,
        console: &Console,
    ) -> Command {
        let mut command = palisade(program);
        command.args(["vm", "--tenant", tenant, "--config"]);
        command.arg(config);
        self.add_to(&mut command, console);
        command
    }

    /// The command that starts a machine with a host of its own.
    pub(crate) fn alone(&self, program: &Path, console: &Console) -> Command {
        let mut command = palisade(program);
        command.arg("vm").args(self.host);
        self.add_to(&mut command, console);
        command
    }

    fn add_to(&self, command: &mut Command, console: &Console) {
        command
            .arg("--kernel")
            .arg(&self.kernel.image)
            .arg("--initrd")
            .arg(self.initrd)
            .arg("--qemu")
            .arg(&self.setup.qemu)
            .arg("--append")
            .arg(&self.kernel_arguments)
            .arg("--cpu")
            .arg(&self.cpu)
            .arg("--")
            .args(["-vga", "none", "-nic", "none"])
            .args(console.qemu_arguments());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_has_each_tenant_with_its_functions() {
        let text = configuration(&[
            Tenant {
                name: "alice",
                quota: 7,
                functions: 2,
                virtual_commands: VirtualCommands::Off,
            },
            Tenant {
                name: "bob",
                quota: 9,
                functions: 1,
                virtual_commands: VirtualCommands::Current,
            },
        ]);
        assert_eq!(text.matches("[[tenant]]").count(), 2);
        assert_eq!(text.matches("[[tenant.function]]").count(), 3);
        assert!(text.contains("socket = \"alice-1.sock\""));
        assert!(
            text.contains("unit = { socket = \"bob-unit.sock\", virtual_commands = \"current\" }")
        );
    }

    #[test]
    fn a_ledger_is_read() {
        let ledger = Ledger::parse(
            r#"{"outstanding":3,"tenants":[
                {"name":"alice","pid":12,"quota":7,"pasids":[
                    {"pasid":5,"guest":1,"references":2,"state":"active"},
                    {"pasid":6,"guest":null,"references":1,"state":"active"}]},
                {"name":"bob","pid":null,"quota":9,"pasids":[
                    {"pasid":8,"guest":1,"references":0,"state":"idle"}]}]}"#,
        )
        .unwrap();
        assert_eq!(ledger.outstanding, 3);
        assert_eq!(ledger.host_pasids("alice"), BTreeSet::from([5, 6]));
        assert_eq!(ledger.guest_pasids("alice"), BTreeSet::from([1]));
        assert_eq!(ledger.host_pasids("nobody"), BTreeSet::new());
        assert!(Ledger::parse("{}").is_err());
    }
}
