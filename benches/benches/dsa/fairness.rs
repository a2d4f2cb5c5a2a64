//! What a modest tenant waits for a descriptor of 64 bytes, alone and beside a greedy one (R67).
//!
//! The engine runs on a thread of its own, which does not sleep. This thread is both tenants, each with a queue, a
//! process and memory of its own: it sees to it that the greedy one's queue of 64 is full, and at a random moment
//! submits a descriptor of the modest one and looks at its record until that is there. What is told is time on the
//! clock, so whoever takes one of the two processors away is in it; the 99th percentile says more of such than of turns
//! where the machine is not quiet.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use palisade_benches::{Effort, Random, Report, Unit, percentile};
use palisade_dsa::{Engine, Progress};

use crate::layout::{Ground, Layout};
use crate::ours::{Ours, Tenant, Way};
use crate::work::Work;

const BUDGET: u32 = 64;
/// The longest pause before a descriptor of the modest one.
const PAUSE_NS: u32 = 100_000;
const ROUNDS: usize = 10;
/// How many descriptors of the modest one are timed in a round.
const SAMPLES: usize = 400;

/// Runs an engine on another thread while `work` is done.
pub(crate) fn beside_engine<R>(mut engine: Engine, work: impl FnOnce() -> Result<R>) -> Result<R> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                if engine.run(BUDGET) == Progress::Idle {
                    spin_loop();
                }
            }
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        done
    })
}

/// Who else is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nobody,
    Greedy,
}

/// Times descriptors of the modest one.
fn sample(
    (modest, greedy): (&Tenant<'_>, &Tenant<'_>),
    beside: Beside,
    random: &mut Random,
    into: &mut Vec<f64>,
) -> Result<()> {
    let mut next = 0;
    for number in 0..SAMPLES {
        let pause = Duration::from_nanos(random.below(PAUSE_NS).into());
        let since = Instant::now();
        while since.elapsed() < pause {
            if beside == Beside::Greedy {
                next = greedy.fill_up(next);
            }
            spin_loop();
        }
        let start = Instant::now();
        let record_at = modest.submit_next(number)?;
        while !modest.is_complete(record_at)? {
            spin_loop();
        }
        into.push(start.elapsed().as_secs_f64() * 1e9);
    }
    greedy.settle();
    Ok(())
}

/// Adds the lines.
pub(crate) fn measure(effort: Effort, grounds: &[Ground; 2], report: &mut Report) -> Result<()> {
    let small = Layout::scattered(512, 8, 64);
    let large = Layout::contiguous(1 << 20);
    let greedy_ways = [
        ("1mib", &large, Way::Single),
        ("64b_batch_1024", &small, Way::Batches(1024)),
    ];
    for (name, layout, way) in greedy_ways {
        let all = [
            (&grounds[0], &small, Way::Single),
            (&grounds[1], layout, way),
        ];
        let (tenants, engine) = Ours::of(all, Work::Move)?.into_parts();
        let [modest, greedy] = &tenants[..] else {
            return Err(anyhow!("there are two tenants"));
        };
        tenants.iter().try_for_each(Tenant::reset)?;
        let mut random = Random::new(16);
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        beside_engine(engine, || {
            for _ in 0..effort.operations(ROUNDS).max(1) {
                let both = (modest, greedy);
                sample(both, Beside::Nobody, &mut random, &mut alone)?;
                sample(both, Beside::Greedy, &mut random, &mut beside)?;
            }
            Ok(())
        })?;
        for (title, hundredths) in [("median", 50), ("p99", 99)] {
            let both = (
                percentile(&mut beside, hundredths)?,
                percentile(&mut alone, hundredths)?,
            );
            let name = format!("modest_beside_{name}_{title}");
            report.add_without_goal(name, Unit::Nanoseconds, both, "alone");
        }
    }
    Ok(())
}
