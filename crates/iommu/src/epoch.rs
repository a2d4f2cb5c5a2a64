//! What an invalidation needs: to make caches forget, and to wait for accesses in flight.
//!
//! A port announces an access in its slot, then reads the generation of the tag. An invalidation
//! advances the generation, then reads the slots. All four are sequentially consistent, so either the
//! access sees the new generation, or the invalidation sees the access and waits for its end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use palisade_units::PasidTag;

use crate::error::locked;

/// Tags share generations by their low bits: an invalidation for one tag costs the caches of about
/// one in so many others.
const BUCKETS: usize = 64;
/// How often a drain looks at a slot before it lets other threads run.
const SPINS: u32 = 64;

/// What translations of a tag are current. Only equality has a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(u64);

impl Generation {
    /// Older than any.
    pub(crate) const NEVER: Self = Self(0);

    /// The number, to compare several things in one step.
    pub(crate) const fn get(self) -> u64 {
        self.0
    }
}

/// A counter on a cache line of its own.
#[repr(align(128))]
struct Line(AtomicU64);

/// The generations of a function's tags.
pub(crate) struct Generations {
    tagged: Box<[Line]>,
    untagged: Line,
}

impl Generations {
    pub(crate) fn new() -> Self {
        let line = || Line(AtomicU64::new(Generation::NEVER.0 + 1));
        Self {
            tagged: (0..BUCKETS).map(|_| line()).collect(),
            untagged: line(),
        }
    }

    fn line(&self, tag: Option<PasidTag>) -> &Line {
        let bucket = |tag: PasidTag| self.tagged.get(tag.get() as usize % BUCKETS);
        tag.and_then(bucket).unwrap_or(&self.untagged)
    }

    /// The generation of a tag. Within an access in flight it stays good until the access ends.
    pub(crate) fn current(&self, tag: Option<PasidTag>) -> Generation {
        Generation(self.line(tag).0.load(Ordering::SeqCst))
    }

    /// Makes everything cached for a tag stale.
    pub(crate) fn advance(&self, tag: Option<PasidTag>) {
        self.line(tag).0.fetch_add(1, Ordering::SeqCst);
    }

    /// Makes everything cached stale.
    pub(crate) fn advance_all(&self) {
        for line in self.tagged.iter().chain([&self.untagged]) {
            line.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A port's announcement of accesses: odd while one is in flight. Written by its port alone.
pub(crate) struct Slot(Line);

impl Slot {
    /// Announces an access, until the result is dropped.
    pub(crate) fn enter(&self) -> InFlight<'_> {
        let before = self.0.0.load(Ordering::Relaxed);
        self.0.0.store(before.wrapping_add(1), Ordering::SeqCst);
        InFlight {
            slot: self,
            after: before.wrapping_add(2),
        }
    }
}

/// An access in flight.
pub(crate) struct InFlight<'a> {
    slot: &'a Slot,
    after: u64,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.slot.0.0.store(self.after, Ordering::Release);
    }
}

/// The slots of a function's ports.
#[derive(Default)]
pub(crate) struct Slots(Mutex<Vec<Arc<Slot>>>);

impl Slots {
    pub(crate) fn add(&self) -> Arc<Slot> {
        let slot = Arc::new(Slot(Line(AtomicU64::new(0))));
        locked(&self.0).push(Arc::clone(&slot));
        slot
    }

    pub(crate) fn remove(&self, slot: &Arc<Slot>) {
        locked(&self.0).retain(|other| !Arc::ptr_eq(other, slot));
    }

    /// The accesses that are in flight.
    fn in_flight(&self) -> Vec<Seen> {
        let slots = locked(&self.0);
        let seen = slots.iter().map(|slot| Seen {
            slot: Arc::clone(slot),
            announced: slot.0.0.load(Ordering::SeqCst),
        });
        seen.filter(|seen| seen.announced % 2 == 1).collect()
    }

    /// Returns when each access that was in flight at the call has ended.
    pub(crate) fn drain(&self) {
        for seen in self.in_flight() {
            let mut looks: u32 = 0;
            while !seen.has_ended() {
                looks = looks.saturating_add(1);
                if looks < SPINS {
                    std::hint::spin_loop();
                } else {
                    std::thread::yield_now();
                }
            }
        }
    }
}

/// An access that was seen in flight.
struct Seen {
    slot: Arc<Slot>,
    announced: u64,
}

impl Seen {
    /// Whether it has ended; another of the same port may be in flight by now.
    fn has_ended(&self) -> bool {
        self.slot.0.0.load(Ordering::SeqCst) != self.announced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r41_an_advance_of_one_tag_leaves_its_neighbours() {
        let generations = Generations::new();
        let tag = |n| {
            Some(PasidTag::of_exclusive_owner(
                palisade_units::GuestPasid::new(n).unwrap(),
            ))
        };
        let before = (generations.current(tag(1)), generations.current(None));
        generations.advance(tag(2));
        assert_eq!(
            (generations.current(tag(1)), generations.current(None)),
            before
        );
        generations.advance_all();
        assert_ne!(generations.current(tag(1)), before.0);
        assert_ne!(generations.current(None), before.1);
    }

    #[test]
    fn r39_a_drain_waits_for_the_access_in_flight_and_for_no_later_one() {
        let slots = Slots::default();
        let (busy, _idle) = (slots.add(), slots.add());
        let in_flight = busy.enter();
        let seen = slots.in_flight();
        assert_eq!(seen.len(), 1);
        assert!(!seen[0].has_ended());
        drop(in_flight);
        let later = busy.enter();
        assert!(seen[0].has_ended());
        drop(later);
        slots.drain();
    }

    #[test]
    fn a_port_that_is_gone_is_not_waited_for() {
        let slots = Slots::default();
        let slot = slots.add();
        std::mem::forget(slot.enter());
        slots.remove(&slot);
        slots.drain();
    }
}
