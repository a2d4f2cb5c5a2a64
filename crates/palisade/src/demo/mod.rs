//! The demo: a host, one shared accelerator, two tenants, and one of them turns hostile.
//!
//! The host runs in this process; each tenant is a process of its own that reaches the host over
//! vfio-user sockets only.

mod bars;
mod child;
mod report;
mod tenant;
mod wire;

use std::{
    path::Path,
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail, ensure};
use palisade_driver::{SweepMode, SweepOutcome};

use crate::{config::HostConfig, host::Host};
use bars::Bars;
use child::Child;
use wire::{Command, Copied, Event, FaultLine, FunctionOrder, Order};

pub use report::{LedgerReport, Report, TenantReport};
pub use tenant::run as run_tenant;

/// What each tenant copies at least, in bytes.
const COPY_BYTES: u64 = 256 << 20;
/// Past this the demo has failed, whatever hangs.
const DEADLINE: Duration = Duration::from_secs(120);
/// How often the ledger is looked at for its peak.
const LEDGER_LOOK: Duration = Duration::from_millis(5);

/// How the demo is shown while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Bars, on a terminal.
    Bars,
    /// Nothing until the end.
    Quiet,
}

/// The demo's host: a shared parent with a slice for each tenant, and a second parent that is bob's.
fn config(folder: &Path) -> anyhow::Result<HostConfig> {
    let text = r#"
[[parent]]
name = "dsa0"
bdf = "6a:01.0"
queues = 8

[[parent]]
name = "dsa1"
bdf = "6f:01.0"
sharing = "exclusive"
queues = 8

[[tenant]]
name = "alice"
unit = { socket = "alice-unit.sock" }
[[tenant.function]]
parent = "dsa0"
type = "dedicated-queue"
socket = "alice-dsa.sock"

[[tenant]]
name = "bob"
unit = { socket = "bob-unit.sock" }
[[tenant.function]]
parent = "dsa0"
type = "dedicated-queue"
socket = "bob-dsa.sock"
[[tenant.function]]
parent = "dsa1"
type = "exclusive"
socket = "bob-own-dsa.sock"
"#;
    Ok(HostConfig::parse(&folder.join("demo.toml"), text)?)
}

fn order(config: &HostConfig, name: &str, seed: u64) -> anyhow::Result<Order> {
    let tenant = config
        .tenant(name)
        .context("the demo's tenant is not configured")?;
    let mut functions = tenant.functions.iter().map(|f| FunctionOrder {
        bdf: f.guest_bdf.to_string(),
        socket: f.socket.clone(),
    });
    Ok(Order {
        name: name.to_owned(),
        unit_socket: tenant.iommu.socket().to_owned(),
        mediated: functions
            .next()
            .context("the demo's tenant has no function")?,
        exclusive: functions.next(),
        copy_bytes: COPY_BYTES,
        seed,
    })
}

/// The running demo.
struct Demo {
    host: Host,
    children: Vec<Child>,
    events: mpsc::Receiver<(usize, Event)>,
    bars: Bars,
    peak: u32,
    deadline: Instant,
}

const ALICE: usize = 0;
const BOB: usize = 1;

/// Runs the whole demo.
///
/// # Errors
/// What kept it from running to its end. A fence that did not hold is no error but a report that is not
/// [`Report::ok`].
pub fn run(progress: Progress) -> anyhow::Result<Report> {
    let folder = tempfile::Builder::new()
        .prefix("palisade-demo-")
        .tempdir()?;
    let config = config(folder.path())?;
    let host = Host::start(&config).context("start the host")?;
    let before = host.outstanding();
    let (sender, events) = mpsc::channel();
    let children = ["alice", "bob"]
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let seed = u64::try_from(index)? + 1;
            Child::start(index, &order(&config, name, seed)?, sender.clone())
        })
        .collect::<anyhow::Result<Vec<Child>>>()?;
    drop(sender);
    let mut demo = Demo {
        peak: before,
        host,
        children,
        events,
        bars: Bars::new(progress),
        deadline: Instant::now() + DEADLINE,
    };
    let [alice, bob] = demo.both_copied()?;
    let mut faults = Vec::new();
    let mut sweep = Vec::new();
    for mode in [SweepMode::Mediated, SweepMode::Exclusive] {
        let (outcome, seen) = demo.sweep(mode, &alice)?;
        sweep.push(outcome);
        faults.extend(seen);
    }
    let intact = demo.intact()?;
    let pids: Vec<u32> = demo.children.iter().map(Child::pid).collect();
    let peak = demo.peak;
    demo.finish()?;
    let after = demo.settled(before);
    demo.bars.clear();
    demo.host.stop();
    let tenant = |name: &str, pid: u32, copied: &Copied| TenantReport {
        name: name.to_owned(),
        pid,
        host_pasids: copied.host_pasids.clone(),
        copied_bytes: copied.copied_bytes,
        copy_gib_per_s: copied.copy_gib_per_s,
        page_requests: copied.page_requests,
        verified: copied.verified,
    };
    let mut report = Report {
        ok: false,
        tenants: vec![
            tenant("alice", pids[ALICE], &alice),
            tenant("bob", pids[BOB], &bob),
        ],
        memcpy_gib_per_s: (alice.memcpy_gib_per_s + bob.memcpy_gib_per_s) / 2.0,
        sweep,
        faults,
        ledger: LedgerReport {
            before,
            peak,
            after,
        },
        intact,
    };
    report.ok = report.holds();
    Ok(report)
}

impl Demo {
    /// The next event of a tenant; progress is shown and passed over.
    fn event(&mut self) -> anyhow::Result<(usize, Event)> {
        loop {
            self.peak = self.peak.max(self.host.outstanding());
            ensure!(
                Instant::now() < self.deadline,
                "the demo took over {} s",
                DEADLINE.as_secs()
            );
            match self.events.recv_timeout(LEDGER_LOOK) {
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("both tenants ended before their work")
                }
                Ok((tenant, Event::Progress { done, of, what })) => {
                    self.bars
                        .show(&self.children[tenant].name, tenant, done, of, &what);
                }
                Ok((tenant, Event::Failed { what })) => {
                    bail!("tenant {}: {what}", self.children[tenant].name)
                }
                Ok(event) => return Ok(event),
            }
        }
    }

    fn both_copied(&mut self) -> anyhow::Result<[Copied; 2]> {
        let mut copied: [Option<Copied>; 2] = [None, None];
        loop {
            if let [Some(alice), Some(bob)] = &copied {
                return Ok([alice.clone(), bob.clone()]);
            }
            match self.event()? {
                (tenant, Event::Copied(work)) => copied[tenant] = Some(work),
                (tenant, other) => return Err(self.unexpected(tenant, &other)),
            }
        }
    }

    fn sweep(
        &mut self,
        mode: SweepMode,
        alice: &Copied,
    ) -> anyhow::Result<(SweepOutcome, Vec<FaultLine>)> {
        self.children[BOB].tell(&Command::Sweep {
            mode,
            targets: alice.secrets.clone(),
            secret: alice.secret.clone(),
        })?;
        match self.event()? {
            (BOB, Event::Swept { outcome, faults }) => Ok((outcome, faults)),
            (tenant, other) => Err(self.unexpected(tenant, &other)),
        }
    }

    fn intact(&mut self) -> anyhow::Result<bool> {
        self.children[ALICE].tell(&Command::Check)?;
        match self.event()? {
            (ALICE, Event::Checked { intact }) => Ok(intact),
            (tenant, other) => Err(self.unexpected(tenant, &other)),
        }
    }

    fn unexpected(&self, tenant: usize, event: &Event) -> anyhow::Error {
        anyhow!(
            "tenant {} said out of turn: {event:?}",
            self.children[tenant].name
        )
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        for child in &mut self.children {
            child.tell(&Command::Finish)?;
        }
        for child in &mut self.children {
            child.wait(self.deadline)?;
        }
        Ok(())
    }

    /// What is still out once the host has noticed that the tenants are gone, or what has not come back
    /// after a while.
    fn settled(&self, before: u32) -> u32 {
        let patience = Instant::now() + Duration::from_secs(5);
        while self.host.outstanding() != before && Instant::now() < patience {
            std::thread::sleep(LEDGER_LOOK);
        }
        self.host.outstanding()
    }
}
