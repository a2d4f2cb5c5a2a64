//! An access through translation beside `vm-memory`'s `IommuMemory`.
//!
//! The operation is a read of eight bytes at a random IOVA, permission check included: ours by
//! `DmaPort::read`, which also looks whether the binding still holds and survives memory that goes away;
//! the peer's by `get_slices` and a load from the slice, with its `Iotlb` behind the `RwLock` that
//! invalidation needs. Ours has no way to ask for a host pointer alone, so the load is in both. No
//! faults. Every sum of what was read is checked.
//!
//! Ours announces what is in flight to invalidations: in pieces of work, as an engine that has many
//! descriptors does, or (`…_single_…`) each read by itself. In `pages_2e20_throughput` it also says which
//! address comes twelve reads later, as an engine knows from its queue; the peer has no use for that.
//!
//! IOVA pages of 4 KiB follow each other and lie on pages of memory that do not, so neither side can
//! merge them. All share eight pages of data, which stay in the processor's caches, so that the figure
//! is of the way to the data. Ours walks a guest's four-level tables on a miss; all that the peer has mapped is in its
//! `Iotlb`, and it never misses. Addresses are drawn anew for each round, over the whole range, before the
//! clock starts: `…_throughput` reads are independent, in `…_latency` each address depends on what the last read
//! returned.
//!
//! `nested_…` has a second stage of 4 KiB pages below and stands beside its limit. `hit_1024_invalidated` is read
//! while another thread invalidates a random page of the same PASID every 10 µs, beside the same reads alone.
//! `invalidation_…` is how long such a call takes with 10,000 pages in use by an engine at work.

mod invalidating;
mod ours;
mod peer;

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Result, ensure};
use palisade_benches::{Contender, Effort, Options, Random, Report, Unit, medians};

use ours::{Engine, Ours, Stages};

const VM_MEMORY: &str = "vm-memory 0.18";
const READS: usize = 1 << 16;
pub(crate) const PAGE_BYTES: u64 = 4096;
/// How much memory the data is scattered over.
pub(crate) const DATA_BYTES: u64 = 1 << 20;
const DATA_PAGES: usize = 8;
/// Above 4 GiB, so that an IOVA is no address of memory.
const FIRST_IOVA: u64 = 1 << 40;

/// Reads eight bytes at each IOVA of a trace and gives their sum.
pub(crate) trait Reader {
    fn sum(&mut self, trace: &[u64], reads: Reads) -> Result<u64>;
}

/// What a read waits for.
#[derive(Clone, Copy)]
pub(crate) enum Reads {
    Independent,
    Dependent,
}

/// The sum of what `read` gives at each address of a trace.
pub(crate) fn sum_by(
    trace: &[u64],
    reads: Reads,
    mut read: impl FnMut(u64) -> Result<u64>,
) -> Result<u64> {
    // Nothing of a word goes into the next address, which the processor cannot know.
    let dependence = black_box(0_u64);
    let (mut sum, mut last) = (0_u64, 0_u64);
    match reads {
        Reads::Independent => {
            for &at in trace {
                sum = sum.wrapping_add(read(at)?);
            }
        }
        Reads::Dependent => {
            for &at in trace {
                last = read(at ^ (last & dependence))?;
                sum = sum.wrapping_add(last);
            }
        }
    }
    Ok(sum)
}

/// Where each IOVA page lies, and what stands there.
pub(crate) struct Layout {
    /// Address of a page of memory for each IOVA page.
    pages: Vec<u64>,
}

impl Layout {
    fn new(iova_pages: usize) -> Self {
        let mut random = Random::new(6);
        let mut places: Vec<u64> = (0..DATA_BYTES / PAGE_BYTES).step_by(2).collect();
        random.choose(&mut places, DATA_PAGES);
        places.truncate(DATA_PAGES);
        let pages = (0..iova_pages)
            .map(|_| places[random.index(DATA_PAGES)] * PAGE_BYTES)
            .collect();
        Self { pages }
    }

    /// Pairs of IOVA and address of memory.
    pub(crate) fn mappings(&self) -> impl Iterator<Item = (u64, u64)> {
        (FIRST_IOVA..)
            .step_by(usize::try_from(PAGE_BYTES).unwrap_or(1))
            .zip(self.pages.iter().copied())
    }

    /// Addresses of all words of memory, and what they hold.
    pub(crate) fn words() -> impl Iterator<Item = (u64, u64)> {
        (0..DATA_BYTES).step_by(8).map(|at| (at, word_at(at)))
    }

    /// Random IOVAs, and the sum of what stands there.
    fn trace(&self, random: &mut Random, reads: usize) -> Result<(Vec<u64>, u64)> {
        let mut sum = 0_u64;
        let mut trace = Vec::with_capacity(reads);
        for _ in 0..reads {
            let page = random.index(self.pages.len());
            let offset_bytes = u64::from(random.below(512)) * 8;
            sum = sum.wrapping_add(word_at(self.pages[page] + offset_bytes));
            trace.push(FIRST_IOVA + u64::try_from(page)? * PAGE_BYTES + offset_bytes);
        }
        Ok((trace, sum))
    }
}

fn word_at(at: u64) -> u64 {
    at.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl<R: Reader> Reader for &mut R {
    fn sum(&mut self, trace: &[u64], reads: Reads) -> Result<u64> {
        (**self).sum(trace, reads)
    }
}

fn contender<'a>(
    layout: &'a Layout,
    mut reader: impl Reader + 'a,
    reads: Reads,
    effort: Effort,
) -> Contender<'a> {
    let mut random = Random::new(7);
    Box::new(move || {
        let (trace, expected) = layout.trace(&mut random, effort.operations(READS))?;
        let start = Instant::now();
        let sum = reader.sum(&trace, reads)?;
        let elapsed = start.elapsed();
        ensure!(sum == expected, "words were read that stand elsewhere");
        Ok(elapsed.as_secs_f64() * 1e9 / f64::from(u32::try_from(trace.len())?))
    })
}

/// How ours reads, and what of.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    reads: Reads,
    engine: Engine,
    goal: f64,
}

fn compare(effort: Effort, report: &mut Report, pages: usize, cases: &[Case]) -> Result<()> {
    let layout = Layout::new(pages);
    let mut contenders = Vec::new();
    for case in cases {
        let ours = Ours::new(&layout, Stages::First, case.engine)?;
        contenders.push(contender(&layout, ours, case.reads, effort));
    }
    for reads in [Reads::Independent, Reads::Dependent] {
        let peer = peer::Peer::new(&layout)?;
        contenders.push(contender(&layout, peer, reads, effort));
    }
    let figures = medians(effort.rounds(), &mut contenders)?;
    let (ours, peers) = figures.split_at(cases.len());
    for (case, ours) in cases.iter().zip(ours) {
        let peer = peers[match case.reads {
            Reads::Independent => 0,
            Reads::Dependent => 1,
        }];
        let both = (*ours, peer);
        report.add(case.name, Unit::Nanoseconds, both, VM_MEMORY, case.goal);
    }
    Ok(())
}

/// Walks of both stages have no peer: their latency is put beside what it may be at most.
fn nested(effort: Effort, report: &mut Report) -> Result<()> {
    let sizes = [
        ("nested_1024_latency", 1 << 10, 60.0),
        ("nested_2e20_latency", 1 << 20, 1000.0),
    ];
    for (name, pages, limit_ns) in sizes {
        let layout = Layout::new(pages);
        let ours = Ours::new(&layout, Stages::Nested, Engine::Single)?;
        let mut contenders = [contender(&layout, ours, Reads::Dependent, effort)];
        let figures = medians(effort.rounds(), &mut contenders)?;
        let both = (figures[0], limit_ns);
        report.add(name, Unit::Nanoseconds, both, "the limit", 1.0);
    }
    Ok(())
}

fn main() -> Result<()> {
    let Some(options) = Options::parse(std::env::args().skip(1))? else {
        return Ok(());
    };
    let effort = options.effort;
    let mut report = Report::new("translate", effort.rounds());
    let case = |name, reads, engine, goal| Case {
        name,
        reads,
        engine,
        goal,
    };
    let hot = [
        case(
            "hit_1024_throughput",
            Reads::Independent,
            Engine::Pieces,
            10.0,
        ),
        case("hit_1024_latency", Reads::Dependent, Engine::Pieces, 10.0),
        case(
            "hit_1024_single_throughput",
            Reads::Independent,
            Engine::Single,
            10.0,
        ),
        case(
            "hit_1024_single_latency",
            Reads::Dependent,
            Engine::Single,
            10.0,
        ),
    ];
    compare(effort, &mut report, 1 << 10, &hot)?;
    let wide = [
        case(
            "pages_2e20_throughput",
            Reads::Independent,
            Engine::Queue,
            15.0,
        ),
        case("pages_2e20_latency", Reads::Dependent, Engine::Pieces, 4.0),
        case(
            "pages_2e20_single_throughput",
            Reads::Independent,
            Engine::Single,
            15.0,
        ),
        case(
            "pages_2e20_single_latency",
            Reads::Dependent,
            Engine::Single,
            4.0,
        ),
    ];
    compare(effort, &mut report, 1 << 20, &wide)?;
    nested(effort, &mut report)?;
    invalidating::measure(effort, &mut report)?;
    report.print(options.output)
}
