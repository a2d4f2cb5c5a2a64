//! One descriptor outstanding, through a portal in shared memory to an engine on another thread, beside a bare ring.
//!
//! The ring: a request of 64 bytes, its first word last, is written to shared memory; the other thread looks there all the
//! time, reads it, copies 64 bytes between the places of memory that it names, and writes 32 bytes where it says, the
//! first word last, for which the first thread looks. Nothing is checked, translated or counted; the trace is ours.
//!
//! Ours: the bundled driver's end of a portal puts a descriptor in its slot; the other thread looks at the portal and has
//! its engine run what is there, as the tenant's queue has it; the tenant looks for its record. Copies are compared at the
//! end. The threads are of one process, which shares memory no faster than two do.
//!
//! Neither side sleeps: a wake-up across processors costs some 50 µs on a virtual machine, more than a hundred times all
//! this. To look costs a processor, for as long as its thread does so: that of the program's engines looks for 50 µs
//! after the last work, which is what an idle hour costs once, and a descriptor that comes later costs a wake-up.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use palisade_benches::{Contender, Effort, Report, Unit, medians};
use palisade_driver::{PortalWriter, Posted};
use palisade_dsa::{SharedPortal, Taken};
use palisade_memory::SharedMemory;
use zerocopy::IntoBytes;

use crate::layout::{DATA_BYTES, Ground, JOBS, Layout};
use crate::ours::{Ours, Way};
use crate::work::Work;

/// A time of 1.5 times the ring's.
const GOAL: f64 = 0.667;
/// How many requests are timed at a time; one by one the clock would be in the figure.
const GROUP: usize = 16;
const GROUPS: usize = 400;
/// How many requests come before: after so many accesses a port announces them without a fence.
const WARM_UP: usize = 20_000;
/// Places of the bare ring, above the data: the request and the answers.
const REQUEST: u64 = DATA_BYTES;
const ANSWERS: u64 = DATA_BYTES + 4096;
const ANSWER_BYTES: u64 = 32;
const RING_BYTES: u64 = ANSWERS + JOBS as u64 * ANSWER_BYTES;

/// The time of one request, as the median of groups of them: whoever takes a processor away for a moment does not count.
fn time(effort: Effort, mut request: impl FnMut(usize) -> Result<()>) -> Result<f64> {
    (0..WARM_UP).try_for_each(&mut request)?;
    let mut figures = Vec::new();
    for group in 0..effort.operations(GROUPS) {
        let start = Instant::now();
        for number in 0..GROUP {
            request(WARM_UP + group * GROUP + number)?;
        }
        figures.push(start.elapsed().as_secs_f64() * 1e9);
    }
    figures.sort_unstable_by(f64::total_cmp);
    let group = figures
        .get(figures.len() / 2)
        .context("nothing was timed")?;
    Ok(group / f64::from(u32::try_from(GROUP)?))
}

/// Does `serve` again and again on another thread while `work` is done.
fn beside<R>(
    mut serve: impl FnMut() -> Result<()> + Send,
    work: impl FnOnce() -> Result<R>,
) -> Result<R> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                serve()?;
                spin_loop();
            }
            anyhow::Ok(())
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        let served = server.join();
        ensure!(matches!(served, Ok(Ok(()))), "the other thread failed");
        done
    })
}

fn bare(effort: Effort, layout: &Layout) -> Result<f64> {
    let memory = SharedMemory::create("ring", RING_BYTES)?;
    let jobs = layout.trace();
    let served = memory.clone();
    let serve = move || {
        if served.load_u64(REQUEST)? != 0 {
            let mut request = [0; 8];
            served.read(REQUEST, request.as_mut_bytes())?;
            served.store_u64(REQUEST, 0)?;
            let [_, from, to, answer, ..] = request;
            let mut bytes = [0; 64];
            served.read(from, &mut bytes)?;
            served.write(to, &bytes)?;
            served.write(answer + 8, &[0; 24])?;
            served.store_u64(answer, 1)?;
        }
        Ok(())
    };
    beside(serve, || {
        time(effort, |number| {
            let number = number % JOBS;
            let place = |iova| layout.place(iova) as u64;
            let (from, to) = (place(jobs[number].from), place(jobs[number].to));
            let answer = ANSWERS + number as u64 * ANSWER_BYTES;
            memory.write(REQUEST + 8, [from, to, answer, 0, 0, 0, 0].as_bytes())?;
            memory.store_u64(REQUEST, 1)?;
            while memory.load_u64(answer)? == 0 {
                spin_loop();
            }
            Ok(memory.store_u64(answer, 0)?)
        })
    })
}

fn portal(effort: Effort, ground: &Ground, layout: &Layout) -> Result<f64> {
    let (tenants, mut engine) = Ours::of([(ground, layout, Way::Single)], Work::Move)?.into_parts();
    let tenant = tenants.first().context("there is a tenant")?;
    tenant.reset()?;
    let memory = SharedMemory::create("portal", SharedPortal::LEN_BYTES)?;
    let mut device = SharedPortal::new(memory.slice().clone());
    let mut driver = PortalWriter::new(memory.slice().clone());
    let lane = tenant.lane();
    let serve = move || {
        let taken = device.take(|descriptor| match engine.submit(lane, descriptor, 64) {
            Ok(()) => Taken::Yes,
            Err(_) => Taken::Later,
        })?;
        if taken > 0 {
            engine.run(64);
        }
        Ok(())
    };
    beside(serve, || {
        time(effort, |number| {
            let (descriptor, record_at) = tenant.submission(number);
            let posted = driver.submit(&descriptor)?;
            ensure!(
                posted == Posted::Seen,
                "the portal is full, or nobody looks"
            );
            while !tenant.is_complete(record_at)? {
                spin_loop();
            }
            Ok(())
        })
    })
    .and_then(|figure| tenant.check().map(|()| figure))
}

/// Adds the line.
pub(crate) fn measure(effort: Effort, grounds: &[Ground; 2], report: &mut Report) -> Result<()> {
    let layout = Layout::scattered(512, 8, 64);
    let [ground, _] = grounds;
    let mut contenders: [Contender<'_>; 2] = [
        Box::new(|| bare(effort, &layout)),
        Box::new(|| portal(effort, ground, &layout)),
    ];
    let figures = medians(effort.rounds(), &mut contenders)?;
    let both = (figures[1], figures[0]);
    let name = "64b_shared_portal";
    report.add(name, Unit::Nanoseconds, both, "bare ring", GOAL);
    Ok(())
}
