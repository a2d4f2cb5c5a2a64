use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Child, ExitCode},
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};
use palisade_host::{
    config::{HostConfig, TenantConfig},
    host::Host,
    vm::{self, Machine, OnReboot, Qemu, Served},
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use super::served;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The guest's kernel
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// The guest's initial file system
    #[arg(long, value_name = "FILE")]
    initrd: PathBuf,
    /// QEMU 10.1 or newer
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-x86_64")]
    qemu: PathBuf,
    /// More kernel arguments, behind console=ttyS0 intel_iommu=on,sm_on
    #[arg(
        long,
        value_name = "ARGUMENTS",
        default_value = "setcpuid=movdir64b",
        allow_hyphen_values = true
    )]
    append: String,
    /// The guest's memory
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    memory: String,
    /// QEMU's accelerator; under kvm the guest cannot write the portals with MOVDIR64B
    #[arg(long, value_name = "NAME", default_value = "tcg")]
    accel: String,
    /// QEMU's CPU model; the guest's shared virtual addressing needs one with LA57
    #[arg(long, value_name = "MODEL", default_value = "max")]
    cpu: String,
    /// Virtual CPUs
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    cpus: u8,
    /// Let the guest reboot; without this a reboot ends the machine
    #[arg(long)]
    reboot: bool,
    /// Accelerator functions that the guest gets, 1 to 8, each one queue of the shared parent
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8), conflicts_with = "config")]
    functions: u8,
    /// The unit is not told of new entries: it looks at the guest's tables on a miss
    #[arg(long, conflicts_with = "config")]
    no_caching_mode: bool,
    /// Attach to the sockets of a running `palisade serve` with this configuration instead
    #[arg(long, value_name = "FILE", requires = "tenant")]
    config: Option<PathBuf>,
    /// The tenant in the configuration
    #[arg(long, value_name = "NAME", requires = "config")]
    tenant: Option<String>,
    /// Passed on to QEMU
    #[arg(last = true, value_name = "QEMU ARGUMENTS")]
    arguments: Vec<OsString>,
}

/// A host for one machine, with one shared parent.
fn own_config(folder: &Path, arguments: &Arguments) -> anyhow::Result<HostConfig> {
    use std::fmt::Write as _;
    let caching_mode = if arguments.no_caching_mode {
        "off"
    } else {
        "on"
    };
    let mut text = format!(
        "[[parent]]\nname = \"dsa0\"\nbdf = \"6a:01.0\"\n\n\
         [[tenant]]\nname = \"vm\"\nunit = {{ socket = \"unit.sock\", caching_mode = \"{caching_mode}\" }}\n",
    );
    for index in 0..arguments.functions {
        write!(
            text,
            "\n[[tenant.function]]\nparent = \"dsa0\"\ntype = \"dedicated-queue\"\nsocket = \"dsa{index}.sock\"\n"
        )?;
    }
    Ok(HostConfig::parse(&folder.join("vm.toml"), &text)?)
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let machine = Machine {
        kernel: arguments.kernel.clone(),
        initrd: arguments.initrd.clone(),
        append: arguments.append.clone(),
        memory: arguments.memory.clone(),
        accel: arguments.accel.clone(),
        cpu: arguments.cpu.clone(),
        cpus: arguments.cpus,
        on_reboot: if arguments.reboot {
            OnReboot::Restart
        } else {
            OnReboot::End
        },
        arguments: arguments.arguments.clone(),
    };
    machine.check()?;
    let configured = match (&arguments.config, &arguments.tenant) {
        (Some(file), Some(name)) => Some(configured(file, name)?),
        _ => None,
    };
    let qemu = Qemu::find(&arguments.qemu)?;
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("watch for signals")?;
    let work = tempfile::Builder::new().prefix("palisade-vm-").tempdir()?;
    let (host, tenant, made) = match configured {
        Some((tenant, made)) => (None, tenant, made),
        None => {
            let config = own_config(work.path(), arguments)?;
            let tenant = config.tenants.first().cloned();
            let tenant = tenant.context("the machine has no tenant")?;
            let host = Host::start(&config).context("start the host")?;
            (Some(host), tenant, Vec::new())
        }
    };
    let unit = served::unit(&tenant)?;
    let mut functions = served::configured(&tenant);
    functions.extend(made);
    let mut guest = vm::start(&qemu, &machine, &unit, &functions, work.path())?;
    let outcome = wait(&mut guest, &mut signals);
    if let Some(host) = host {
        host.stop();
    }
    outcome
}

/// A tenant of a host that runs, and the functions that it got at run time.
fn configured(file: &Path, name: &str) -> anyhow::Result<(TenantConfig, Vec<Served>)> {
    let config = HostConfig::load(file)?;
    let tenant = config
        .tenant(name)
        .with_context(|| format!("{}: there is no tenant {name:?}", file.display()))?;
    let unit = served::unit(tenant)?;
    for socket in std::iter::once(&unit.socket).chain(tenant.functions.iter().map(|f| &f.socket)) {
        ensure!(
            socket.exists(),
            "{}: nobody serves it: start `palisade serve --config {}` first",
            socket.display(),
            file.display()
        );
    }
    let made = served::made_at_run_time(&config, tenant)
        .context("ask for the functions made at run time")?;
    Ok((tenant.clone(), made))
}

/// Waits for the end of QEMU, or ends it on a signal.
fn wait(guest: &mut Child, signals: &mut Signals) -> anyhow::Result<ExitCode> {
    loop {
        if let Some(status) = guest.try_wait()? {
            tracing::info!(%status, "QEMU ended");
            let code = status
                .code()
                .and_then(|c| u8::try_from(c).ok())
                .unwrap_or(1);
            return Ok(ExitCode::from(code));
        }
        if signals.pending().next().is_some() {
            guest.kill()?;
            guest.wait()?;
            return Ok(ExitCode::FAILURE);
        }
        thread::sleep(Duration::from_millis(20));
    }
}
