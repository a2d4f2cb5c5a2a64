use std::sync::{Arc, Barrier};
use std::thread;

use anyhow::{Result, anyhow};
use palisade_benches::{Contender, Effort, Report, Unit, medians};
use palisade_ioasid::Authority;
use palisade_units::TenantId;
use sharded_slab::Slab;

use crate::SHARDED_SLAB;
use crate::churn::{BURST, Churn, Ids, OUT, PAIRS, set_of};

/// A slab that says whose each id is. It has no quota and no range.
struct SlabIds {
    slab: Arc<Slab<TenantId>>,
    tenant: TenantId,
}

impl Ids for SlabIds {
    type Id = usize;

    fn take(&mut self) -> Option<usize> {
        self.slab.insert(self.tenant)
    }

    fn give(&mut self, id: usize) -> bool {
        self.slab.remove(id)
    }
}

/// The mean over two threads of what a pair costs, each with ids from `ids_of` its number.
fn round<A: Ids>(ids_of: impl Fn(u32) -> Result<A> + Sync, pairs: usize) -> Result<f64> {
    let start = Barrier::new(2);
    let of_thread = |number: u32| {
        let churn = ids_of(number).and_then(|ids| Churn::new(ids, OUT, BURST, number.into()));
        // Also when there is an error: the other thread waits here.
        start.wait();
        churn?.round(pairs)
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| of_thread(1));
        let own = of_thread(2);
        let other = other.join().map_err(|_| anyhow!("a thread panicked"))?;
        Ok(f64::midpoint(own?, other?))
    })
}

pub(crate) fn compare(effort: Effort, report: &mut Report) -> Result<()> {
    let pairs = effort.operations(PAIRS);
    let authority = Authority::new(&[]);
    let ours: Contender<'_> = Box::new(|| round(|number| set_of(&authority, number, OUT), pairs));
    let peer: Contender<'_> = Box::new(|| {
        let slab = Arc::new(Slab::new());
        let ids_of = |number| {
            Ok(SlabIds {
                slab: Arc::clone(&slab),
                tenant: TenantId::new(number),
            })
        };
        round(ids_of, pairs)
    });
    let figures = medians(effort.rounds(), &mut [ours, peer])?;
    let both = (figures[0], figures[1]);
    report.add(
        "alloc_free_2_threads",
        Unit::Nanoseconds,
        both,
        SHARDED_SLAB,
        4.0,
    );
    Ok(())
}
