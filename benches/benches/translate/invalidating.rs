//! Reads while another thread invalidates, and how long an invalidation takes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use palisade_benches::{Contender, Effort, Random, Report, Unit, medians};
use palisade_iommu::{Cached, FunctionHandle, Scope};
use palisade_units::{Iova, PasidTag};

use crate::ours::{Engine, Ours, Stages};
use crate::{FIRST_IOVA, Layout, PAGE_BYTES, Reads, contender};

const PAGES: usize = 1 << 10;
/// 100,000 invalidations a second.
const PERIOD: Duration = Duration::from_micros(10);
/// How many pages are in use when the latency of an invalidation is taken.
const CACHED: usize = 10_000;
/// Slowed at most 1.2 times.
const SLOWED: f64 = 0.833;
/// How often a round reads its trace's length: long enough for many invalidations.
const REPEATS: u32 = 16;

/// Invalidates a page, at random.
fn invalidate(function: &FunctionHandle, tag: Option<PasidTag>, pages: usize, random: &mut Random) {
    let page = u64::try_from(random.index(pages)).unwrap_or(0);
    function.invalidate(
        Scope::Pages {
            tag,
            at: Iova::new(FIRST_IOVA + page * PAGE_BYTES),
            len_bytes: PAGE_BYTES,
        },
        Cached::InUnit,
    );
}

/// Invalidates once in a period until told to stop; says how often it did in a second.
fn keep_invalidating(
    function: &FunctionHandle,
    tag: Option<PasidTag>,
    started: &AtomicBool,
    stop: &AtomicBool,
) -> f64 {
    let mut random = Random::new(8);
    let (start, mut count) = (Instant::now(), 0_u32);
    while !stop.load(Ordering::Relaxed) {
        // What was missed is not made up for: a burst would not be what is asked for.
        let next = Instant::now() + PERIOD;
        invalidate(function, tag, PAGES, &mut random);
        count += 1;
        started.store(true, Ordering::Relaxed);
        while Instant::now() < next {
            std::hint::spin_loop();
        }
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    slowdown(effort, report)?;
    latency(effort, report)
}

/// The mean of several runs.
fn repeated(contender: &mut Contender<'_>) -> Result<f64> {
    let mut sum = 0.0;
    for _ in 0..REPEATS {
        sum += contender()?;
    }
    Ok(sum / f64::from(REPEATS))
}

/// The same reads, alone and beside invalidations of single pages of the same PASID.
fn slowdown(effort: Effort, report: &mut Report) -> Result<()> {
    let layout = Layout::new(PAGES);
    let alone = Ours::new(&layout, Stages::First, Engine::Pieces)?;
    let beside = Ours::new(&layout, Stages::First, Engine::Pieces)?;
    let (function, tag) = (beside.function(), beside.tag());
    let mut beside = contender(&layout, beside, Reads::Independent, effort);
    let mut rate = 0.0;
    let disturbed: Contender<'_> = Box::new(|| {
        let (started, stop) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            let other = scope.spawn(|| keep_invalidating(&function, tag, &started, &stop));
            while !started.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            let figure = repeated(&mut beside);
            stop.store(true, Ordering::Relaxed);
            rate = other.join().ok().context("the other thread is gone")?;
            figure
        })
    });
    let mut alone = contender(&layout, alone, Reads::Independent, effort);
    let alone: Contender<'_> = Box::new(|| repeated(&mut alone));
    let figures = medians(effort.rounds(), &mut [disturbed, alone])?;
    eprintln!(
        "note: in the last round of hit_1024_invalidated there were {rate:.0} invalidations a second"
    );
    let both = (figures[0], figures[1]);
    let name = "hit_1024_invalidated";
    report.add(name, Unit::Nanoseconds, both, "ours alone", SLOWED);
    Ok(())
}

/// Invalidations of single pages while an engine reads 10,000 of them, beside those of a function
/// whose engine has read them and rests. Where the engine's cache has fewer lines, it holds as many
/// as it can.
fn latency(effort: Effort, report: &mut Report) -> Result<()> {
    let layout = Layout::new(CACHED);
    let mut idle = Ours::new(&layout, Stages::First, Engine::Pieces)?;
    let mut busy = Ours::new(&layout, Stages::First, Engine::Pieces)?;
    let count = effort.operations(20_000);
    contender(&layout, &mut idle, Reads::Independent, Effort::Quick)()?;
    let mut quiet = times(&idle.function(), idle.tag(), count);
    let stop = AtomicBool::new(false);
    let (function, tag) = (busy.function(), busy.tag());
    let mut worked = thread::scope(|scope| {
        let engine = scope.spawn(|| -> Result<()> {
            let mut work = contender(&layout, &mut busy, Reads::Independent, Effort::Quick);
            while !stop.load(Ordering::Relaxed) {
                work()?;
            }
            Ok(())
        });
        thread::sleep(Duration::from_millis(20));
        let times = times(&function, tag, count);
        stop.store(true, Ordering::Relaxed);
        engine.join().ok().context("the engine is gone")??;
        anyhow::Ok(times)
    })?;
    for (name, percent) in [("invalidation_median", 50), ("invalidation_p99", 99)] {
        let both = (
            at_percent(&mut worked, percent),
            at_percent(&mut quiet, percent),
        );
        report.add(name, Unit::Nanoseconds, both, "engine at rest", 0.0);
    }
    Ok(())
}

/// How long each of some invalidations took, in nanoseconds.
fn times(function: &FunctionHandle, tag: Option<PasidTag>, count: usize) -> Vec<f64> {
    let mut random = Random::new(9);
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        invalidate(function, tag, CACHED, &mut random);
        times.push(start.elapsed().as_secs_f64() * 1e9);
        let next = start + PERIOD;
        while Instant::now() < next {
            std::hint::spin_loop();
        }
    }
    times
}

fn at_percent(times: &mut [f64], percent: usize) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    let index = times.len().saturating_sub(1) * percent / 100;
    times.get(index).copied().unwrap_or(f64::NAN)
}
