use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use palisade_benches::{Contender, Effort, Random, Report, Unit, medians};
use palisade_ioasid::{Authority, PasidRange, PasidSet};

use crate::churn::set_of;

const OWNED: u32 = 10;
const FREES: u32 = 1 << 12;
const EVERYTHING: PasidRange = PasidRange {
    min: 0,
    max: u32::MAX,
};
const FIRST_TEN: PasidRange = PasidRange { min: 1, max: OWNED };

/// What freeing a range costs when the set owns these ten ids of it.
fn round(set: &PasidSet, ids: &[u32], range: PasidRange, frees: u32) -> Result<f64> {
    let mut elapsed = Duration::ZERO;
    for _ in 0..frees {
        for &id in ids {
            set.alloc(PasidRange::only(id))?;
        }
        let start = Instant::now();
        let freed = set.free_range(range);
        elapsed += start.elapsed();
        ensure!(freed == OWNED, "{freed} PASIDs were freed, not {OWNED}");
    }
    Ok(elapsed.as_secs_f64() * 1e9 / f64::from(frees))
}

pub(crate) fn compare(effort: Effort, report: &mut Report) -> Result<()> {
    let frees = match effort {
        Effort::Full => FREES,
        Effort::Quick => FREES / 4,
    };
    let low: Vec<u32> = (1..=OWNED).collect();
    let authority = Authority::new(&[]);
    let own = set_of(&authority, 1, OWNED)?;

    let mut random = Random::new(5);
    let all = PasidRange::ALL.max;
    let mut anywhere: Vec<u32> = (1..=all).collect();
    random.choose(&mut anywhere, low.len());
    let crowded = Authority::new(&[]);
    let scattered = set_of(&crowded, 1, OWNED)?;
    let other = set_of(&crowded, 2, all - OWNED)?;
    for &id in &anywhere[low.len()..] {
        other.alloc(PasidRange::only(id))?;
    }
    let apart = &anywhere[..low.len()];

    let narrow: Contender<'_> = Box::new(|| round(&own, &low, FIRST_TEN, frees));
    let wide: Contender<'_> = Box::new(|| round(&own, &low, EVERYTHING, frees));
    let crowd: Contender<'_> = Box::new(|| round(&scattered, apart, EVERYTHING, frees));
    let figures = medians(effort.rounds(), &mut [narrow, wide, crowd])?;
    for (name, cost) in ["free_range_wide", "free_range_wide_scattered"]
        .into_iter()
        .zip(&figures[1..])
    {
        let both = (*cost, figures[0]);
        report.add(name, Unit::Nanoseconds, both, "palisade, [1, 10]", 0.9);
    }
    Ok(())
}
