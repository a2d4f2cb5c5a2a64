//! Copies through translation beside `vm-memory`'s `IommuMemory`, and beside `memcpy` without translation.
//!
//! The operation is a copy from one IOVA to another of the same PASID: ours by `DmaPort::copy`, permission
//! check included, which also looks whether the binding still holds and survives memory that goes away. The peer of
//! `64b_…` gets the slices of both sides from its `Iotlb`, behind the `RwLock` that invalidation needs,
//! and copies from one to the other. The peer of all others knows the host addresses before the clock starts and
//! checks nothing: one `memmove` of the C library for each run of pages that follow each other in memory, so one for a
//! contiguous copy and sixteen for a scattered one.
//!
//! All sides copy within the same file in memory, mapped by each for itself, so that the pages and their
//! places are the same. IOVA pages are of 4 KiB, also those of contiguous memory. Ours walks a guest's four-level tables on
//! a miss; the caches hold all that a trace uses, on both sides. No faults, no invalidations.
//!
//! `64b` and `4kib` go from any of 512 IOVA pages to any of 512 others, which share eight and four pages of
//! data that stay in the first cache: the figure is of the way to the data. The data of
//! `4kib_second_cache` and of `64kib_scattered`, 64 pages of which no two follow each other, stays in the second.
//! `1mib_contiguous` repeats one copy.
//!
//! Ours announces what is in flight to invalidations: in pieces of work, as an engine that has many
//! descriptors does, or (`…_single`) each copy by itself. Addresses are drawn anew for each round before the clock
//! starts, the trace runs once to warm caches up and is then timed, and what was copied is compared with
//! what should be there.

mod layout;
mod ours;
mod peer;

use std::time::Instant;

use anyhow::{Result, ensure};
use palisade_benches::{Contender, Effort, Options, Random, Report, Unit, medians};

use layout::{Ground, Job, Layout};
use ours::{Engine, Ours};
use peer::{Memcpy, Translated};

const VM_MEMORY: &str = "vm-memory 0.18";
const MEMCPY: &str = "memcpy";

/// Makes the copies of a trace.
pub(crate) trait Copier {
    /// What may be known of a trace before the clock starts.
    fn prepare(&mut self, _: &[Job]) -> Result<()> {
        Ok(())
    }

    fn copy(&mut self, trace: &[Job]) -> Result<()>;
}

fn contender<'a>(
    ground: &'a Ground,
    layout: &'a Layout,
    mut copier: impl Copier + 'a,
    jobs: usize,
) -> Contender<'a> {
    let mut random = Random::new(11);
    Box::new(move || {
        let trace = layout.trace(&mut random, jobs);
        ground.reset()?;
        copier.prepare(&trace)?;
        copier.copy(&trace)?;
        let start = Instant::now();
        copier.copy(&trace)?;
        let elapsed = start.elapsed();
        ensure!(
            ground.holds(layout, &trace)?,
            "something else was copied than the trace says"
        );
        Ok(elapsed.as_secs_f64() * 1e9 / f64::from(u32::try_from(trace.len())?))
    })
}

/// Both of our ways beside `vm-memory`.
fn small(effort: Effort, ground: &Ground, report: &mut Report) -> Result<()> {
    const GOAL: f64 = 15.0;
    let layout = Layout::scattered(512, 4, 64);
    let jobs = effort.operations(1 << 16);
    let mut contenders = [
        contender(
            ground,
            &layout,
            Ours::new(ground, &layout, Engine::Pieces)?,
            jobs,
        ),
        contender(
            ground,
            &layout,
            Ours::new(ground, &layout, Engine::Single)?,
            jobs,
        ),
        contender(ground, &layout, Translated::new(ground, &layout)?, jobs),
    ];
    let figures = medians(effort.rounds(), &mut contenders)?;
    for (name, ours) in [("64b", figures[0]), ("64b_single", figures[1])] {
        let both = (ours, figures[2]);
        report.add(name, Unit::Nanoseconds, both, VM_MEMORY, GOAL);
    }
    Ok(())
}

/// Beside copies that need no translation.
fn large(
    effort: Effort,
    ground: &Ground,
    report: &mut Report,
    (name, layout): (&str, Layout),
    jobs: usize,
) -> Result<()> {
    const GOAL: f64 = 0.9;
    let jobs = effort.operations(jobs);
    let mut contenders = [
        contender(
            ground,
            &layout,
            Ours::new(ground, &layout, Engine::Pieces)?,
            jobs,
        ),
        contender(
            ground,
            &layout,
            Ours::new(ground, &layout, Engine::Single)?,
            jobs,
        ),
        contender(ground, &layout, Memcpy::new(ground, &layout), jobs),
    ];
    let figures = medians(effort.rounds(), &mut contenders)?;
    let names = [
        (name.to_owned(), figures[0]),
        (format!("{name}_single"), figures[1]),
    ];
    for (name, ours) in names {
        report.add(name, Unit::Nanoseconds, (ours, figures[2]), MEMCPY, GOAL);
    }
    Ok(())
}

fn main() -> Result<()> {
    let Some(options) = Options::parse(std::env::args().skip(1))? else {
        return Ok(());
    };
    let effort = options.effort;
    let mut report = Report::new("dma", effort.rounds());
    let ground = Ground::new()?;
    small(effort, &ground, &mut report)?;
    let cases = [
        ("4kib", Layout::scattered(512, 2, 4 << 10), 1 << 15),
        (
            "4kib_second_cache",
            Layout::scattered(32, 32, 4 << 10),
            1 << 15,
        ),
        (
            "64kib_scattered",
            Layout::scattered(32, 32, 64 << 10),
            1 << 12,
        ),
        ("1mib_contiguous", Layout::contiguous(1 << 20), 1 << 8),
    ];
    for (name, layout, jobs) in cases {
        large(effort, &ground, &mut report, (name, layout), jobs)?;
    }
    report.print(options.output)
}
