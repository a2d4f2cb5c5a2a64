//! Threads that take and let go at once.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};

use super::*;
use crate::{Hold, PasidRange, PasidState};

/// Each thread marks what it was given in a table beside the authority and clears the mark before it
/// lets go. A number with two owners at once shows as a mark that is not the thread's own.
#[test]
fn r7_no_live_pasid_is_ever_owned_by_two_tenants() {
    const THREADS: u32 = 4;
    const ROUNDS: u32 = 20_000;
    const NUMBERS: u32 = 24;
    let authority = Authority::new(&[PasidRange {
        min: NUMBERS + 1,
        max: u32::MAX,
    }]);
    let owners: Arc<Vec<AtomicU32>> = Arc::new((0..=NUMBERS).map(|_| AtomicU32::new(0)).collect());
    let start = Arc::new(Barrier::new(THREADS as usize));
    let threads = (1..=THREADS).map(|me| {
        let (authority, owners, start) = (authority.clone(), owners.clone(), start.clone());
        let set = authority
            .create_set(TenantId::new(me), Quota::Exactly(NUMBERS / THREADS))
            .unwrap();
        std::thread::spawn(move || {
            start.wait();
            let mut mine: Vec<(HostPasid, Option<Hold>)> = Vec::new();
            let mut dice = u64::from(me);
            for _ in 0..ROUNDS {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let roll = dice >> 60;
                if roll < 8 {
                    if let Ok(pasid) = set.alloc(PasidRange::ALL) {
                        let before = owners[pasid.get() as usize].swap(me, Ordering::SeqCst);
                        assert_eq!(before, 0, "{pasid} was given out twice");
                        assert_eq!(authority.owner_of(pasid), Some(set.tenant()));
                        let hold = (roll < 4).then(|| set.hold(pasid).unwrap());
                        mine.push((pasid, hold));
                    }
                } else if !mine.is_empty() {
                    let (pasid, hold) = mine.swap_remove((dice >> 32) as usize % mine.len());
                    if hold.is_some() {
                        set.free(pasid).unwrap();
                        assert_eq!(set.state_of(pasid), Ok(PasidState::FreePending));
                    }
                    let before = owners[pasid.get() as usize].swap(0, Ordering::SeqCst);
                    assert_eq!(before, me, "{pasid} changed hands while it was out");
                    if hold.is_none() {
                        set.free(pasid).unwrap();
                    }
                    drop(hold);
                }
            }
            // The set goes with this thread and frees what is left.
            for (pasid, _) in &mine {
                owners[pasid.get() as usize].store(0, Ordering::SeqCst);
            }
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().unwrap();
    }
    assert_eq!(authority.ledger(), []);
    assert_eq!(authority.unreserved(), NUMBERS);
}
