use std::time::Instant;

use anyhow::{Context, Result, ensure};
use palisade_benches::{Contender, Effort, Random, Report, Unit, medians};
use palisade_ioasid::{Authority, PasidRange, PasidSet, Quota};
use palisade_units::{HostPasid, TenantId};
use vm_allocator::IdAllocator;

use crate::VM_ALLOCATOR;

/// Pairs of free and allocation in a round.
pub(crate) const PAIRS: usize = 1 << 16;
pub(crate) const BURST: usize = 64;
/// How many ids a tenant has out where nothing else is said.
pub(crate) const OUT: u32 = 1000;

/// Something that gives out ids and takes them back.
pub(crate) trait Ids {
    type Id: Copy;
    fn take(&mut self) -> Option<Self::Id>;
    /// Whether the id was out.
    fn give(&mut self, id: Self::Id) -> bool;
}

/// Ours: a tenant's set, from the whole namespace.
impl Ids for PasidSet {
    type Id = HostPasid;

    fn take(&mut self) -> Option<HostPasid> {
        self.alloc(PasidRange::ALL).ok()
    }

    fn give(&mut self, id: HostPasid) -> bool {
        self.free(id).is_ok()
    }
}

impl Ids for IdAllocator {
    type Id = u32;

    fn take(&mut self) -> Option<u32> {
        self.allocate_id().ok()
    }

    fn give(&mut self, id: u32) -> bool {
        self.free_id(id).is_ok()
    }
}

/// Ours, with a random place above which each id is asked for, so that what is out stays scattered.
struct Scattered {
    set: PasidSet,
    places: Random,
}

impl Ids for Scattered {
    type Id = HostPasid;

    fn take(&mut self) -> Option<HostPasid> {
        let max = PasidRange::ALL.max;
        let min = 1 + self.places.below(max);
        // Above the place everything may be out.
        let above = self.set.alloc(PasidRange { min, max });
        above.or_else(|_| self.set.alloc(PasidRange::ALL)).ok()
    }

    fn give(&mut self, id: HostPasid) -> bool {
        self.set.free(id).is_ok()
    }
}

/// A tenant whose ids come and go in bursts.
pub(crate) struct Churn<A: Ids> {
    ids: A,
    out: Vec<A::Id>,
    /// Indices of `out`, in no order.
    order: Vec<usize>,
    burst: usize,
    random: Random,
}

impl<A: Ids> Churn<A> {
    pub(crate) fn new(mut ids: A, out: u32, burst: usize, seed: u64) -> Result<Self> {
        let out: Option<Vec<A::Id>> = (0..out).map(|_| ids.take()).collect();
        let out = out.context("there are not as many ids as the trace holds")?;
        Ok(Self {
            ids,
            order: (0..out.len()).collect(),
            out,
            burst,
            random: Random::new(seed),
        })
    }

    /// What a pair of free and allocation costs, in nanoseconds.
    pub(crate) fn round(&mut self, pairs: usize) -> Result<f64> {
        let victims = self.victims(pairs);
        let start = Instant::now();
        for burst in victims.chunks(self.burst) {
            for &victim in burst {
                ensure!(self.ids.give(self.out[victim]), "an id was refused");
            }
            for &victim in burst {
                self.out[victim] = self.ids.take().context("no id was left")?;
            }
        }
        per_operation_ns(start, victims.len())
    }

    /// Which ones to free; none twice in a burst.
    fn victims(&mut self, pairs: usize) -> Vec<usize> {
        let mut victims = Vec::with_capacity(pairs);
        while victims.len() < pairs {
            self.random.choose(&mut self.order, self.burst);
            victims.extend_from_slice(&self.order[..self.burst]);
        }
        victims
    }
}

/// Time since `start` for each of so many operations.
pub(crate) fn per_operation_ns(start: Instant, operations: usize) -> Result<f64> {
    let elapsed = start.elapsed();
    Ok(elapsed.as_secs_f64() * 1e9 / f64::from(u32::try_from(operations)?))
}

pub(crate) fn set_of(authority: &Authority, tenant: u32, quota: u32) -> Result<PasidSet> {
    Ok(authority.create_set(TenantId::new(tenant), Quota::Exactly(quota))?)
}

fn alone(out: u32) -> Result<PasidSet> {
    set_of(&Authority::new(&[]), 1, out)
}

fn bare() -> Result<IdAllocator> {
    Ok(IdAllocator::new(PasidRange::ALL.min, PasidRange::ALL.max)?)
}

fn contender<'a, A: Ids + 'a>(mut churn: Churn<A>, effort: Effort) -> Contender<'a> {
    let pairs = effort.operations(PAIRS);
    Box::new(move || churn.round(pairs))
}

/// One thread, against bare ids.
pub(crate) fn compare(effort: Effort, report: &mut Report) -> Result<()> {
    for (name, out, burst) in [
        ("alloc_free_1_thread", OUT, BURST),
        ("alloc_free_same_id", 1, 1),
    ] {
        let mut contenders = [
            contender(Churn::new(alone(out)?, out, burst, 1)?, effort),
            contender(Churn::new(bare()?, out, burst, 1)?, effort),
        ];
        let figures = medians(effort.rounds(), &mut contenders)?;
        let both = (figures[0], figures[1]);
        report.add(name, Unit::Nanoseconds, both, VM_ALLOCATOR, 1.0);
    }
    Ok(())
}

/// One thread, ours in several situations.
pub(crate) fn spread(effort: Effort, report: &mut Report) -> Result<()> {
    let all = PasidRange::ALL.max;
    let scattered = |set| Scattered {
        set,
        places: Random::new(3),
    };
    let shared = Authority::new(&[]);
    let ours = scattered(set_of(&shared, 1, OUT)?);
    let beside_another = Churn::new(ours, OUT, BURST, 2)?;
    let other = set_of(&shared, 2, all - OUT)?;
    while other.alloc(PasidRange::ALL).is_ok() {}

    let names = [
        "1_out",
        "1000_out",
        "2e20_out",
        "fragmented_alone",
        "fragmented_full",
    ];
    let mut contenders = [
        contender(Churn::new(alone(1)?, 1, 1, 2)?, effort),
        contender(Churn::new(alone(OUT)?, OUT, BURST, 2)?, effort),
        contender(Churn::new(alone(all)?, all, BURST, 2)?, effort),
        contender(Churn::new(scattered(alone(OUT)?), OUT, BURST, 2)?, effort),
        contender(beside_another, effort),
    ];
    let figures = medians(effort.rounds(), &mut contenders)?;
    let mut situations = names.into_iter().zip(figures);
    let by_cost = |a: &(&str, f64), b: &(&str, f64)| a.1.total_cmp(&b.1);
    let cheapest = situations.clone().min_by(by_cost);
    let (cheapest_name, cheapest) = cheapest.context("there are situations")?;
    situations.try_for_each(|(name, cost)| {
        let peer = format!("palisade, {cheapest_name}");
        let both = (cost, cheapest);
        report.add(
            format!("spread_{name}"),
            Unit::Nanoseconds,
            both,
            peer,
            0.25,
        );
        Ok(())
    })
}
