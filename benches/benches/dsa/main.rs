//! Descriptors through the accelerator, from submission to completion record, beside the C library.
//!
//! The operation is a descriptor: submitted to a lane with the session of a tenant, checked, run by an engine
//! through translation, and its completion record written and seen by the tenant. Engine and tenant share one
//! thread, which submits, runs the engine and looks at the record; so nothing is in parallel, and nobody is woken.
//! `…_single` has one descriptor outstanding, `…_batch_32` and `…_batch_1024` one batch of so many: each of its
//! descriptors writes a record of its own, and the tenant waits for the batch's. The lists stand in the tenant's
//! memory from the start, and the engine fetches them anew each time.
//!
//! `64b_…`, `4kib_…` and `1mib_…` are moves, `fill_4kib_…`, `compare_4kib_…` (of what is equal) and `crc_4kib_…`
//! what they say. The peer of moves is one `memmove` of the C library for each, in the same memory, between host
//! addresses that are known before the clock starts. The peers of fills and comparisons, `memset` and `memcmp`, and
//! of CRCs, the crate that the accelerator uses itself, work in memory of this process, in the same places. No peer
//! checks, translates or completes anything. `…_rate` is the time of one descriptor beside 100 ns, which are 10
//! million in a second; with `two_tenants` of two who submit in turn, each to a queue of its own, with its own
//! memory, process and PASID. The goal of the others is of copies of 4 KiB in batches; lines without a goal are
//! told for what they are.
//!
//! Those have one thread; two lines have an engine on a thread of its own, and are told at the end.
//!
//! A tenant's process has 512 IOVA pages of 4 KiB on each side, which share eight pages of data, so that the data
//! stays in the second cache; a source is anywhere, its target in the same place of a page of the other side. There
//! `memmove` writes 64 bytes in each cycle or two, so that all else that is done for a descriptor shows. In
//! `4kib_spread_…` there are 1024 pages on each side, each with memory of its own, 8 MiB in all: descriptors have
//! buffers of their own, which are in the third cache. The peer copies the same buffers in the same order in both.
//! `1mib_…` repeats one transfer, contiguous in memory. The function is shared, by host PASIDs; the tables are a
//! guest's of four levels; the engine's translation cache holds all that a trace uses. No faults, no invalidations,
//! no ATS, no interrupts. The trace is the same in every round; it runs once to warm caches up and is then timed.
//! Time is what the thread had of a processor, so that others who wait for it do not count; those who share a core
//! still slow down what computes more than what waits for memory.
//! After that all data is compared with what should be there, and each record looked at: its status, its result,
//! its CRC.
//!
//! `modest_beside_…` is what a tenant waits for a descriptor of its own while another's queue is full of copies of 1 MiB
//! or of batches, beside what it waits alone, with the engine on a thread of its own; see [`fairness`].
//!
//! `64b_shared_portal` is a single outstanding descriptor, between two threads, beside a bare ring between two threads;
//! see [`ring`]. Its goal is a time at most 1.5 times the ring's.
//!
//! What is not measured: portals whose stores trap, so neither a VMM nor the socket behind it; a driver that builds its
//! lists anew.

mod fairness;
mod layout;
mod ours;
mod peer;
mod ring;
mod work;

use std::time::Duration;

use anyhow::Result;
use palisade_benches::{Contender, Effort, Options, Report, Unit, medians};
use rustix::time::{ClockId, clock_gettime};

use layout::{Ground, Layout};
use ours::{Ours, Way};
use peer::{Memcpy, Private};
use work::Work;

const MEMCPY: &str = "memcpy";

/// Does the work of a trace.
pub(crate) trait Runner {
    /// Puts everything in the place where a trace finds it.
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    /// Does all of it once. Gives the number of descriptors, or of what stands for them.
    fn pass(&mut self) -> Result<usize>;

    /// Whether everything was done.
    fn check(&mut self) -> Result<()> {
        Ok(())
    }
}

fn contender<'a>(mut runner: impl Runner + 'a, passes: usize) -> Contender<'a> {
    Box::new(move || {
        runner.prepare()?;
        runner.pass()?;
        let mut done = 0;
        let start = processor_time()?;
        for _ in 0..passes {
            done += runner.pass()?;
        }
        let elapsed = processor_time()?.saturating_sub(start);
        runner.check()?;
        Ok(elapsed.as_secs_f64() * 1e9 / f64::from(u32::try_from(done)?))
    })
}

/// How long this thread has run.
fn processor_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::ThreadCPUTime).try_into()?)
}

const SINGLE: (&str, Way) = ("single", Way::Single);
const BATCHES: [(&str, Way); 2] = [
    ("batch_32", Way::Batches(32)),
    ("batch_1024", Way::Batches(1024)),
];

/// What a figure of ours is measured by beside the peer's.
#[derive(Clone, Copy)]
enum Goal {
    None,
    /// That batches reach this part of the peer's rate.
    OfPeer(f64),
    /// That a descriptor in a batch takes at most so many nanoseconds, of one tenant and of two.
    Limit(f64),
}

struct Case {
    name: &'static str,
    work: Work,
    layout: Layout,
    /// How often a round runs the trace, at full effort.
    passes: usize,
    peer_name: &'static str,
    goal: Goal,
}

fn measure(effort: Effort, grounds: &[Ground; 2], report: &mut Report, case: &Case) -> Result<()> {
    let (layout, work, name) = (&case.layout, case.work, case.name);
    let passes = effort.operations(case.passes).max(1);
    let [one, _] = grounds;
    let ours = |tenants, way| -> Result<_> {
        let ours = Ours::new(&grounds[..tenants], layout, work, way)?;
        Ok(contender(ours, passes))
    };
    let mut contenders = vec![match work {
        Work::Move => contender(Memcpy::new(one, layout)?, passes),
        Work::Fill | Work::Compare | Work::Crc => {
            contender(Private::new(one, layout, work), passes)
        }
    }];
    let mut names = Vec::new();
    if work == Work::Move {
        names.push((format!("{name}_{}", SINGLE.0), Goal::None));
        contenders.push(ours(1, SINGLE.1)?);
    }
    for (batch, way) in BATCHES {
        names.push((format!("{name}_{batch}"), case.goal));
        contenders.push(ours(1, way)?);
        if matches!(case.goal, Goal::Limit(_)) {
            names.push((format!("{name}_{batch}_two_tenants"), case.goal));
            contenders.push(ours(2, way)?);
        }
    }
    let figures = medians(effort.rounds(), &mut contenders)?;
    let unit = Unit::Nanoseconds;
    for ((name, goal), ours) in names.into_iter().zip(&figures[1..]) {
        let both = (*ours, figures[0]);
        match goal {
            Goal::OfPeer(goal) => report.add(name, unit, both, case.peer_name, goal),
            Goal::None => report.add_without_goal(name, unit, both, case.peer_name),
            Goal::Limit(limit_ns) => {
                report.add_without_goal(&name, unit, both, case.peer_name);
                let both = (*ours, limit_ns);
                report.add(format!("{name}_rate"), unit, both, "the limit", 1.0);
            }
        }
    }
    Ok(())
}

fn main() -> Result<()> {
    let Some(options) = Options::parse(std::env::args().skip(1))? else {
        return Ok(());
    };
    let effort = options.effort;
    let mut report = Report::new("dsa", effort.rounds());
    let grounds = [Ground::new()?, Ground::new()?];
    let moves = |name, layout, passes, goal| Case {
        name,
        work: Work::Move,
        layout,
        passes,
        peer_name: MEMCPY,
        goal,
    };
    let pages = |name, work, peer_name| Case {
        name,
        work,
        layout: Layout::scattered(512, 8, 4 << 10),
        passes: 32,
        peer_name,
        goal: Goal::None,
    };
    let cases = [
        moves("64b", Layout::scattered(512, 8, 64), 64, Goal::Limit(100.0)),
        moves(
            "4kib",
            Layout::scattered(512, 8, 4 << 10),
            32,
            Goal::OfPeer(0.8),
        ),
        moves(
            "4kib_spread",
            Layout::scattered(1024, 1024, 4 << 10),
            8,
            Goal::OfPeer(0.8),
        ),
        moves("1mib", Layout::contiguous(1 << 20), 1, Goal::None),
        pages("fill_4kib", Work::Fill, "memset"),
        pages("compare_4kib", Work::Compare, "memcmp"),
        pages("crc_4kib", Work::Crc, "crc-fast 1"),
    ];
    for case in cases {
        measure(effort, &grounds, &mut report, &case)?;
    }
    ring::measure(effort, &grounds, &mut report)?;
    fairness::measure(effort, &grounds, &mut report)?;
    report.print(options.output)
}
