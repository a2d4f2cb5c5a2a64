//! What a VMM's answer to a page request takes, alone and beside a client that floods the host with requests.
//!
//! A device asks for a page; the platform writes the request into the VMM's ring and rings its eventfd; the VMM's thread
//! wakes up, takes it and answers over its socket; the device hears of it. That whole way is timed, of one VMM. The
//! one that floods has connections of its own, and on each does as many requests as it gets answered: it allocates a PASID,
//! has everything that is cached forgotten, and frees the PASID. It is another tenant's, or the same one's.
//!
//! What is told is time on the clock, waking up included, so the number of processors counts: a flood of as many connections
//! as there are takes them all, whatever the host does. Nothing here has a peer, so no line has a goal.

mod host;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use palisade_benches::{Effort, Options, Report, Unit, percentile};
use palisade_container::{Client, Invalidate, Which};
use palisade_ioasid::PasidRange;
use palisade_iommu::{PageResponse, Requester};
use palisade_units::{Access, Iova};
use palisade_vfio::FaultRecord;

use host::{Host, MISSING, PATIENCE, Tenant};

const ROUNDS: usize = 10;
/// How many page requests are timed in a round.
const SAMPLES: usize = 300;

/// Times page requests of a tenant, whose VMM is another thread.
fn sample(tenant: &mut Tenant, into: &mut Vec<f64>) -> Result<()> {
    let Tenant {
        client,
        faults,
        function,
        pasid,
        ..
    } = tenant;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let vmm = scope.spawn(|| -> Result<()> {
            while !over.load(Ordering::Relaxed) {
                match faults.wait(PATIENCE)? {
                    Some(FaultRecord::PageRequest(request)) => {
                        let answer = PageResponse::Success;
                        client.respond(request.bdf, request.pasid, request.group, answer)?;
                    }
                    Some(other) => bail!("not a page request but {other:?}"),
                    None => {}
                }
            }
            Ok(())
        });
        let port = function.port();
        let timed = (0..SAMPLES).try_for_each(|_| {
            let (tell, told) = mpsc::channel();
            let by = Requester::new(Some((*pasid).into()));
            let start = Instant::now();
            let answered = Box::new(move |_| {
                // Nobody hears it only where the wait below was given up.
                let _ = tell.send(());
            });
            port.request_page(by, Iova::new(MISSING), Access::READ, answered)
                .context("the page request is refused")?;
            told.recv_timeout(10 * PATIENCE).context("no answer")?;
            into.push(start.elapsed().as_secs_f64() * 1e9);
            Ok(())
        });
        over.store(true, Ordering::Relaxed);
        vmm.join().map_err(|_| anyhow::anyhow!("the VMM"))??;
        timed
    })
}

/// Does requests until told to stop.
fn flood(client: &mut Client, over: &AtomicBool) -> Result<()> {
    while !over.load(Ordering::Relaxed) {
        let pasid = client.alloc_pasid(PasidRange::ALL)?;
        client.invalidate(Which::Translations, Invalidate::All)?;
        client.free_pasid(pasid)?;
    }
    Ok(())
}

/// Times page requests while others flood.
fn beside(tenant: &mut Tenant, floods: Vec<Client>, into: &mut Vec<f64>) -> Result<()> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let floods: Vec<_> = floods
            .into_iter()
            .map(|mut client| {
                scope.spawn({
                    let over = &over;
                    move || flood(&mut client, over)
                })
            })
            .collect();
        let timed = sample(tenant, into);
        over.store(true, Ordering::Relaxed);
        for flood in floods {
            flood.join().map_err(|_| anyhow::anyhow!("a flood"))??;
        }
        timed
    })
}

fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let rounds = effort.operations(ROUNDS).max(1);
    for (name, floods) in [("another", 1), ("another", 4), ("the_same", 1)] {
        let host = Host::new()?;
        let mut modest = host.tenant(1)?;
        let greedy = host.tenant(2)?;
        let (mut alone, mut flooded) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            sample(&mut modest, &mut alone)?;
            let whose = if name == "another" { &greedy } else { &modest };
            let clients = (0..floods).map(|_| whose.another_client());
            let clients = clients.collect::<Result<Vec<_>>>()?;
            beside(&mut modest, clients, &mut flooded)?;
        }
        for (title, hundredths) in [("median", 50), ("p99", 99)] {
            let both = (
                percentile(&mut flooded, hundredths)?,
                percentile(&mut alone, hundredths)?,
            );
            let name = format!("response_{title}_beside_{floods}_of_{name}");
            report.add_without_goal(name, Unit::Nanoseconds, both, "alone");
        }
    }
    Ok(())
}

fn main() -> Result<()> {
    let Some(options) = Options::parse(std::env::args().skip(1))? else {
        return Ok(());
    };
    let mut report = Report::new("container", ROUNDS);
    measure(options.effort, &mut report)?;
    report.print(options.output)
}
