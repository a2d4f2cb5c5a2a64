use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, Result};
use palisade_benches::{Contender, Effort, Random, Report, Unit, medians};
use palisade_ioasid::{Authority, PasidRange};
use palisade_units::{HostPasid, TenantId};
use papaya::HashMap;

use crate::PAPAYA;
use crate::churn::{OUT, per_operation_ns, set_of};

const LOOKUPS: usize = 1 << 16;

/// Hashes a number by one multiplication, which is as little as a map can do.
#[derive(Default)]
struct Multiplied(u64);

impl Hasher for Multiplied {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(byte.into());
        }
    }

    fn write_u32(&mut self, number: u32) {
        // A map may look at any of the bits, so both halves of the product go in.
        let seeded = self.0 ^ u64::from(number) ^ 0x243f_6a88_85a3_08d3;
        let product = u128::from(seeded) * u128::from(0x9e37_79b9_7f4a_7c15_u64);
        let [low, high] = [product, product >> 64].map(|half| half & u128::from(u64::MAX));
        self.0 = u64::try_from(low ^ high).unwrap_or_default();
    }
}

type Fast = BuildHasherDefault<Multiplied>;

/// What a look-up costs: the tenants' numbers are summed up so that none can be left out.
fn round(trace: &[HostPasid], owner_of: impl Fn(HostPasid) -> Option<TenantId>) -> Result<f64> {
    let start = Instant::now();
    let mut sum = 0_u32;
    for &pasid in trace {
        sum = sum.wrapping_add(owner_of(pasid).map_or(0, TenantId::get));
    }
    black_box(sum);
    per_operation_ns(start, trace.len())
}

fn map_of<S: BuildHasher + Default>(pasids: &[HostPasid]) -> HashMap<u32, TenantId, S> {
    // With room from the start: a map that is still moving to a larger table looks into both.
    let map = HashMap::with_capacity_and_hasher(pasids.len(), S::default());
    for pasid in pasids {
        map.pin().insert(pasid.get(), TenantId::new(1));
    }
    map
}

pub(crate) fn compare(effort: Effort, report: &mut Report) -> Result<()> {
    one(effort, report, OUT, ["owner_hot", "owner_hot_peer_best"])?;
    let names = ["owner_hot_of_2e20", "owner_hot_of_2e20_peer_best"];
    one(effort, report, PasidRange::ALL.max, names)
}

/// With so many PASIDs out, of which 1,000 are asked about.
fn one(effort: Effort, report: &mut Report, out: u32, names: [&str; 2]) -> Result<()> {
    let authority = Authority::new(&[]);
    let set = set_of(&authority, 1, out)?;
    let mut pasids = Vec::new();
    for _ in 0..out {
        pasids.push(set.alloc(PasidRange::ALL)?);
    }
    let as_it_comes = map_of::<std::hash::RandomState>(&pasids);
    let at_its_best = map_of::<Fast>(&pasids);

    let mut random = Random::new(4);
    let hot = usize::try_from(OUT)?;
    random.choose(&mut pasids, hot);
    pasids.truncate(hot);
    let trace: Vec<HostPasid> = (0..effort.operations(LOOKUPS))
        .map(|_| pasids[random.index(hot)])
        .collect();
    // A look-up that finds nothing is not what is measured.
    for &pasid in &trace {
        authority.owner_of(pasid).context("ours lost a PASID")?;
        let number = pasid.get();
        at_its_best.pin().get(&number).context("the map lost one")?;
    }

    let ours: Contender<'_> = Box::new(|| round(&trace, |pasid| authority.owner_of(pasid)));
    let as_it_comes: Contender<'_> =
        Box::new(|| round(&trace, |pasid| as_it_comes.pin().get(&pasid.get()).copied()));
    let at_its_best: Contender<'_> = Box::new(|| {
        let pinned = at_its_best.pin();
        round(&trace, |pasid| pinned.get(&pasid.get()).copied())
    });
    let mut contenders = [ours, as_it_comes, at_its_best];
    let figures = medians(effort.rounds(), &mut contenders)?;
    for (name, peer) in names.into_iter().zip(&figures[1..]) {
        let both = (figures[0], *peer);
        report.add(name, Unit::Nanoseconds, both, PAPAYA, 10.0);
    }
    Ok(())
}
