//! What a PASID costs in memory, counted at the allocator. A binary of its own: the count is the process's.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::alloc::System;
use std::sync::Arc;

use palisade_ioasid::{Audit, Authority, NoClock, PasidRange, PasidSet, Quota};
use palisade_units::{GuestPasid, PASID_COUNT, TenantId};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const TENANTS: u32 = 4096;
const OUT: u32 = PASID_COUNT - 1;
const BYTES_EACH: usize = 64;

/// What was allocated since the region began and is not free again.
fn bytes_in_use(region: &Region<'_, System>) -> usize {
    // What a reallocation adds is counted among the bytes allocated, what it saves among those freed.
    let change = region.change();
    change.bytes_allocated - change.bytes_deallocated
}

/// All PASIDs out, taken in turn, so that nobody's are neighbours, and each called by a guest's number.
#[test]
fn r80_a_pasid_costs_at_most_64_bytes_with_all_out_over_4096_tenants_in_turn() {
    let mut sets: Vec<PasidSet> = Vec::with_capacity(usize::try_from(TENANTS).unwrap());
    let region = Region::new(HEAP);
    let audit = Audit {
        clock: Arc::new(NoClock),
        kept_events: 0,
    };
    let authority = Authority::with_audit(&[], audit);
    for tenant in 0..TENANTS {
        let quota = match TENANTS - 1 - tenant {
            0 => Quota::AllThatIsLeft,
            _ => Quota::Exactly(PASID_COUNT / TENANTS),
        };
        let set = authority.create_set(TenantId::new(tenant), quota);
        sets.push(set.unwrap());
    }
    let mut next = sets.iter().cycle();
    let mut take = |guest| {
        let set = next.next().unwrap();
        let pasid = set.alloc(PasidRange::ALL).unwrap();
        let guest = GuestPasid::new(guest).unwrap();
        set.attach_guest(guest, pasid).unwrap();
    };
    for number in 0..OUT {
        take(1 + number / TENANTS);
    }
    assert_eq!(authority.outstanding(), OUT);
    let fresh = bytes_in_use(&region);

    // All let go of the upper half, and take as many again in another order.
    let upper = PasidRange {
        min: PASID_COUNT / 2,
        max: PASID_COUNT - 1,
    };
    let freed: Vec<u32> = sets.iter().map(|set| set.free_range(upper)).collect();
    let in_another_order = (0..sets.len()).map(|turn| turn * 1021 % sets.len());
    for (number, at) in (0..OUT).zip(in_another_order.cycle()) {
        let (round, set) = (number / TENANTS, &sets[at]);
        if round > freed.iter().copied().max().unwrap() {
            break;
        }
        if round < freed[at] {
            let pasid = set.alloc(PasidRange::ALL).unwrap();
            let guest = GuestPasid::new(PASID_COUNT - 1 - round).unwrap();
            set.attach_guest(guest, pasid).unwrap();
        }
    }
    drop(freed);
    assert_eq!(authority.outstanding(), OUT);
    let steady = bytes_in_use(&region);

    let out = usize::try_from(OUT).unwrap();
    println!(
        "{} bytes for each PASID fresh, {} steady",
        fresh.div_ceil(out),
        steady.div_ceil(out)
    );
    assert!(fresh <= BYTES_EACH * out, "{fresh} bytes fresh");
    assert!(steady <= BYTES_EACH * out, "{steady} bytes steady");
}
