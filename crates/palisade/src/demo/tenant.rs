//! A tenant's process: the bundled driver, told what to do on standard input.

use std::{
    io::{BufRead, StdinLock, Write, stdin, stdout},
    time::{Duration, Instant},
};

use anyhow::Context;
use palisade_driver::{FaultReport, FunctionAddress, SweepMode, SweepPlan, Tenant, WorkloadPlan};
use palisade_iommu::FaultReason;
use palisade_units::{GuestPasid, Iova, PASID_COUNT};

use super::wire::{Command, Copied, Event, FaultLine, FunctionOrder, Order, Secret};

/// The tenant's memory in bytes.
const MEMORY_BYTES: u64 = 512 << 20;
/// Where a tenant's processes keep their secret.
const SECRET_AT: Iova = Iova::new(0x1122_3344_5000);
/// Progress is told this often at the most.
const TELL_EVERY: Duration = Duration::from_millis(50);

/// Runs a tenant until it is told to finish, or its standard input ends.
///
/// # Errors
/// What kept it from its work; the process that started it is told too.
pub fn run() -> anyhow::Result<()> {
    let outcome = work(&mut stdin().lock());
    if let Err(e) = &outcome {
        tell(&Event::Failed {
            what: format!("{e:#}"),
        })?;
    }
    outcome
}

fn tell(event: &Event) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    let mut out = stdout().lock();
    out.write_all(&line)?;
    out.flush()?;
    Ok(())
}

fn hear<T: serde::de::DeserializeOwned>(input: &mut StdinLock<'_>) -> anyhow::Result<Option<T>> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(
        serde_json::from_str(&line).context("an order that cannot be read")?,
    ))
}

fn address(function: &FunctionOrder) -> anyhow::Result<FunctionAddress> {
    Ok(FunctionAddress {
        bdf: function.bdf.parse()?,
        socket: function.socket.clone(),
    })
}

/// Tells how far the work is, not too often.
struct Teller {
    what: &'static str,
    of: u64,
    last: Option<Instant>,
}

impl Teller {
    fn new(what: &'static str, of: u64) -> Self {
        Self {
            what,
            of,
            last: None,
        }
    }

    fn done(&mut self, done: u64) {
        if done < self.of && self.last.is_some_and(|last| last.elapsed() < TELL_EVERY) {
            return;
        }
        self.last = Some(Instant::now());
        // Whoever does not listen to progress will not miss it.
        let _ = tell(&Event::Progress {
            done,
            of: self.of,
            what: self.what.to_owned(),
        });
    }
}

fn work(input: &mut StdinLock<'_>) -> anyhow::Result<()> {
    let order: Order = hear(input)?.context("no order")?;
    let mediated = address(&order.mediated)?;
    let exclusive = order.exclusive.as_ref().map(address).transpose()?;
    let functions: Vec<FunctionAddress> = std::iter::once(mediated.clone())
        .chain(exclusive.clone())
        .collect();
    let mut tenant = Tenant::connect(&order.unit_socket, &functions, MEMORY_BYTES)?;
    let processes = [
        tenant.start_process()?,
        tenant.start_process()?,
        tenant.start_process()?,
    ];
    let secret = format!(
        "{} keeps this to herself or himself: {:016x}",
        order.name,
        noise(order.seed)
    );
    for process in processes {
        tenant.plant(process, SECRET_AT, secret.as_bytes())?;
    }
    let plan = WorkloadPlan {
        copy_bytes: order.copy_bytes,
        seed: order.seed,
        ..WorkloadPlan::default()
    };
    let mut teller = Teller::new("copies and verifies", plan.copy_bytes);
    let outcome = tenant.run_workload(mediated.bdf, processes, &plan, &mut |done| {
        teller.done(done)
    })?;
    tell(&Event::Copied(Copied {
        host_pasids: tenant.pasids().into_iter().map(GuestPasid::get).collect(),
        copied_bytes: outcome.copied_bytes,
        copy_gib_per_s: outcome.copy_gib_per_s(),
        memcpy_gib_per_s: outcome.memcpy_gib_per_s(),
        page_requests: outcome.page_requests,
        // An outcome without an error is one in which every byte was compared.
        verified: outcome.copied_bytes >= order.copy_bytes,
        secrets: processes
            .iter()
            .map(|p| Secret {
                pasid: p.get(),
                iova: SECRET_AT.get(),
                len_bytes: secret.len() as u64,
            })
            .collect(),
        secret: secret.clone(),
    }))?;
    while let Some(command) = hear(input)? {
        match command {
            Command::Sweep {
                mode,
                targets,
                secret,
            } => {
                let function = match mode {
                    SweepMode::Mediated => Some(&mediated),
                    SweepMode::Exclusive => exclusive.as_ref(),
                };
                let function = function.context("told to sweep a function that it has not")?;
                tell(&sweep(&mut tenant, function, mode, &targets, &secret)?)?;
            }
            Command::Check => {
                let mut intact = true;
                for process in processes {
                    let mut found = vec![0; secret.len()];
                    tenant.peek(process, SECRET_AT, &mut found)?;
                    intact &= found == secret.as_bytes();
                }
                tell(&Event::Checked { intact })?;
            }
            Command::Finish => break,
        }
    }
    tenant.finish()?;
    Ok(())
}

/// A number that looks like nothing else (splitmix64).
fn noise(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn sweep(
    tenant: &mut Tenant,
    function: &FunctionAddress,
    mode: SweepMode,
    targets: &[Secret],
    secret: &str,
) -> anyhow::Result<Event> {
    let plan = SweepPlan {
        mode,
        pasids: SweepPlan::ALL,
        targets: targets.iter().map(|t| Iova::new(t.iova)).collect(),
        secret: secret.as_bytes().to_vec(),
    };
    let what = match mode {
        SweepMode::Mediated => "sweeps his slice",
        SweepMode::Exclusive => "sweeps his own device",
    };
    let mut teller = Teller::new(what, PASID_COUNT.into());
    let swept = tenant.sweep(function.bdf, &plan, &mut |done| teller.done(done))?;
    Ok(Event::Swept {
        faults: swept.first_faults.iter().map(fault_line).collect(),
        outcome: swept,
    })
}

fn fault_line(fault: &FaultReport) -> FaultLine {
    FaultLine {
        bdf: fault.bdf.to_string(),
        pasid: fault.pasid.map(GuestPasid::get),
        iova: fault.at.get(),
        access: fault.access.to_string(),
        reason_code: fault.reason.get(),
        reason: FaultReason::from_code(fault.reason.get()).map_or(
            "a reason that the specification does not name".to_owned(),
            |r| r.to_string(),
        ),
    }
}
