//! How an invalidation waits for accesses in flight.
//!
//! A port announces an access in its slot, then reads the generation of the tag. An invalidation
//! advances the generation, then reads the slots. One of them sees what the other did first, so either the
//! access sees the new generation, or the invalidation sees the access and waits for its end. An
//! announcement may stand for several accesses, each of which reads the generation: it is one piece
//! of work then.
//!
//! That needs a fence in each announcement. A port that has announced often with one leaves
//! it out and says so: it has become quiet. An invalidation that meets a quiet port makes it announce aloud again,
//! and has the fence run in its place, by the kernel ([`barrier`]).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use palisade_memory::barrier;

use crate::error::locked;

/// How often a drain looks at a slot before it lets other threads run.
const SPINS: u32 = 64;

/// A port's announcement of accesses, on a cache line of its own.
#[repr(align(128))]
#[derive(Default)]
pub(crate) struct Slot {
    /// Odd while some are in flight. Written by its port alone.
    announced: AtomicU64,
    /// Whether it is written without a fence. Set by its port alone, cleared by invalidations alone.
    quiet: AtomicBool,
}

impl Slot {
    /// Announces, so that no generation which is read afterwards was read before.
    #[inline]
    fn announce(&self, value: u64) -> Aloud {
        self.announced.store(value, Ordering::Relaxed);
        barrier::light();
        if self.quiet.load(Ordering::Relaxed) {
            return Aloud::No;
        }
        self.announced.store(value, Ordering::SeqCst);
        Aloud::Yes
    }

    /// From here on announcements are quiet.
    #[cold]
    fn fall_quiet(&self) {
        if barrier::is_offered() {
            self.quiet.store(true, Ordering::SeqCst);
        }
    }
}

/// Whether an announcement had a fence.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Aloud {
    Yes,
    No,
}

/// After how many announcements in a row a port falls quiet. To be made loud again costs its thread and the
/// invalidation two microseconds each: a hundredth of the time that so many accesses take at least.
const QUIET_AFTER: u32 = if cfg!(test) { 3 } else { 1 << 14 };

/// How many accesses one announcement is for within a piece of work.
const ACCESSES: u64 = 64;
/// How many bytes count as one access more.
const BYTES_SHIFT: u32 = 10;

/// A port's side of its slot.
pub(crate) struct Presence {
    slot: Arc<Slot>,
    /// What the slot holds.
    value: u64,
    /// How many accesses the announcement that stands is still for.
    left: u64,
    /// How many announcements are to come before it falls quiet.
    until_quiet: u32,
    work: Work,
}

/// Whether accesses come singly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Each is announced.
    Single,
    /// Many are announced together.
    Piece,
}

impl Presence {
    pub(crate) fn new(slot: Arc<Slot>) -> Self {
        Self {
            slot,
            value: 0,
            left: 0,
            until_quiet: QUIET_AFTER,
            work: Work::Single,
        }
    }

    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    /// Changes how accesses come, and says how they came. None is in flight then.
    pub(crate) fn set_work(&mut self, work: Work) -> Work {
        self.leave();
        std::mem::replace(&mut self.work, work)
    }

    /// Announces an access of so many bytes, until the result is dropped or later.
    #[inline]
    pub(crate) fn enter(&mut self, len_bytes: u64) -> InFlight<'_> {
        if self.left == 0 {
            self.announce();
        }
        self.left = self.left.saturating_sub((len_bytes >> BYTES_SHIFT) + 1);
        InFlight(self)
    }

    #[inline]
    fn announce(&mut self) {
        if self.value % 2 == 1 {
            self.leave();
        }
        self.value = self.value.wrapping_add(1);
        if self.slot.announce(self.value) == Aloud::Yes {
            self.count_aloud();
        }
        self.left = match self.work {
            Work::Single => 0,
            Work::Piece => ACCESSES,
        };
    }

    #[inline]
    fn count_aloud(&mut self) {
        self.until_quiet -= 1;
        if self.until_quiet == 0 {
            self.until_quiet = QUIET_AFTER;
            self.slot.fall_quiet();
        }
    }

    /// Says that nothing is in flight.
    #[inline]
    pub(crate) fn leave(&mut self) {
        if self.value % 2 == 1 {
            self.value = self.value.wrapping_add(1);
            self.slot.announced.store(self.value, Ordering::Release);
        }
        self.left = 0;
    }
}

/// An access in flight.
pub(crate) struct InFlight<'a>(&'a mut Presence);

impl Drop for InFlight<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.0.left == 0 {
            self.0.leave();
        }
    }
}

/// The slots of a function's ports.
#[derive(Default)]
pub(crate) struct Slots(Mutex<Vec<Arc<Slot>>>);

impl Slots {
    pub(crate) fn add(&self) -> Arc<Slot> {
        // The first question takes the kernel long; not in the middle of an access.
        let _ = barrier::is_offered();
        let slot = Arc::new(Slot::default());
        locked(&self.0).push(Arc::clone(&slot));
        slot
    }

    pub(crate) fn remove(&self, slot: &Arc<Slot>) {
        locked(&self.0).retain(|other| !Arc::ptr_eq(other, slot));
    }

    /// The accesses that are in flight.
    fn in_flight(&self) -> Vec<Seen> {
        // Held while ports are made loud: who finds one loud may rely on the fence that this took.
        let slots = locked(&self.0);
        make_loud(&slots);
        let seen = slots.iter().filter_map(|slot| {
            let announced = slot.announced.load(Ordering::SeqCst);
            let is_busy = announced % 2 == 1;
            is_busy.then(|| Seen {
                slot: Arc::clone(slot),
                announced,
            })
        });
        seen.collect()
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

/// Sees to it that what ports have announced is to be seen.
fn make_loud(slots: &[Arc<Slot>]) {
    let mut any_quiet = false;
    for slot in slots {
        if slot.quiet.load(Ordering::SeqCst) {
            slot.quiet.store(false, Ordering::SeqCst);
            any_quiet = true;
        }
    }
    if any_quiet {
        barrier::heavy();
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
        self.slot.announced.load(Ordering::SeqCst) != self.announced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(slots: &Slots) -> bool {
        !slots.in_flight().is_empty()
    }

    #[test]
    fn r39_a_drain_waits_for_the_access_in_flight_and_for_no_later_one() {
        let slots = Slots::default();
        let mut port = Presence::new(slots.add());
        let _idle = slots.add();
        let in_flight = port.enter(8);
        let seen = slots.in_flight();
        assert_eq!(seen.len(), 1);
        assert!(!seen[0].has_ended());
        drop(in_flight);
        let later = port.enter(8);
        assert!(seen[0].has_ended());
        drop(later);
        slots.drain();
    }

    #[test]
    fn r39_a_piece_of_work_is_in_flight_until_it_ends_or_is_announced_anew() {
        let slots = Slots::default();
        let mut port = Presence::new(slots.add());
        assert_eq!(port.set_work(Work::Piece), Work::Single);
        assert!(!busy(&slots), "nothing was accessed yet");
        drop(port.enter(8));
        let seen = slots.in_flight();
        for _ in 2..ACCESSES {
            drop(port.enter(8));
            assert!(!seen[0].has_ended(), "several accesses, one announcement");
        }
        drop(port.enter(8));
        assert!(seen[0].has_ended(), "an invalidation waits for so many");
        drop(port.enter(8));
        assert!(busy(&slots));
        assert_eq!(port.set_work(Work::Single), Work::Piece);
        assert!(!busy(&slots));
        drop(port.enter(8));
        assert!(!busy(&slots));
    }

    #[test]
    fn r39_many_bytes_end_an_announcement_as_many_accesses_do() {
        let slots = Slots::default();
        let mut port = Presence::new(slots.add());
        port.set_work(Work::Piece);
        drop(port.enter(32 << 10));
        assert!(busy(&slots));
        drop(port.enter(32 << 10));
        assert!(!busy(&slots));
        drop(port.enter(u64::MAX));
        assert!(!busy(&slots));
    }

    #[test]
    fn a_port_that_is_gone_is_not_waited_for() {
        let slots = Slots::default();
        let mut port = Presence::new(slots.add());
        let slot = Arc::clone(port.slot());
        std::mem::forget(port.enter(8));
        slots.remove(&slot);
        slots.drain();
    }

    /// Announces so often that a port falls quiet, where the kernel lets it.
    fn fall_quiet(port: &mut Presence) {
        for _ in 0..QUIET_AFTER {
            drop(port.enter(8));
        }
        let is_quiet = port.slot.quiet.load(Ordering::SeqCst);
        assert_eq!(is_quiet, barrier::is_offered());
    }

    #[test]
    fn r39_a_quiet_port_is_waited_for_and_is_loud_from_then_on() {
        let slots = Slots::default();
        let mut port = Presence::new(slots.add());
        fall_quiet(&mut port);
        let in_flight = port.enter(8);
        let seen = slots.in_flight();
        assert_eq!(seen.len(), 1);
        drop(in_flight);
        assert!(seen[0].has_ended());
        assert!(!port.slot.quiet.load(Ordering::SeqCst));
        fall_quiet(&mut port);
    }

    /// An access that still uses what an invalidation has answered for would find it marked as gone.
    #[test]
    fn r39_no_access_outlives_a_drain_however_ports_fall_quiet() {
        const STEPS: usize = if cfg!(miri) { 50 } else { 20_000 };
        let slots = Slots::default();
        let current = AtomicU64::new(0);
        let gone: Vec<AtomicBool> = (0..STEPS).map(|_| AtomicBool::new(false)).collect();
        let mut port = Presence::new(slots.add());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut used = 0;
                while used + 1 < STEPS {
                    let in_flight = port.enter(8);
                    used = usize::try_from(current.load(Ordering::SeqCst)).unwrap();
                    assert!(!gone[used].load(Ordering::SeqCst));
                    drop(in_flight);
                }
            });
            for step in 1..STEPS {
                current.store(u64::try_from(step).unwrap(), Ordering::SeqCst);
                slots.drain();
                gone[step - 1].store(true, Ordering::SeqCst);
            }
        });
    }
}
