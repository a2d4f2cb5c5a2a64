//! A portal in memory that a driver and the device share, for drivers that know of it: whoever runs the engines looks there,
//! and no store traps.
//!
//! A page of slots is followed by a word that says whether anybody looks. A slot whose first eight bytes are zero is free; a
//! driver fills the slots in turn, the first eight bytes of each last, and the device frees them in turn. A descriptor whose
//! first eight bytes are zero, which is a no-op that tells nobody that it completed, has no way through here.
//!
//! To look costs a processor. So whoever looks does so for a while only, then says that it rests and looks once more; a driver that
//! reads so after it filled a slot has to ring, by whatever wakes the device.
//!
//! No register tells a driver of one: who has both ends hands each the memory. What comes through belongs to whoever may write
//! that, so a portal is of one dedicated queue.

use std::sync::atomic::{Ordering, fence};

use palisade_memory::{HostSlice, MemoryError};
use zerocopy::FromBytes;

use crate::spec::{DESCRIPTOR_BYTES, Descriptor};

const SLOT_BYTES: u64 = DESCRIPTOR_BYTES as u64;

/// The device's end of a portal in shared memory.
pub struct SharedPortal {
    memory: HostSlice,
    /// The slot that is filled next.
    next: u64,
}

/// What became of a descriptor that was in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was taken, or refused for good: its slot is free.
    Yes,
    /// There is no room for it now: it stays where it is, and what is behind it.
    Later,
}

/// Whether somebody may rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing is there, and the next driver that comes will ring.
    Granted,
    /// Something came meanwhile.
    Refused,
}

impl SharedPortal {
    /// How many descriptors have room.
    pub const SLOTS: u64 = 64;
    /// Where the word stands that is 0 while somebody looks and 1 while nobody does.
    pub const RESTING_AT: u64 = Self::SLOTS * SLOT_BYTES;
    /// How much memory a portal is.
    pub const LEN_BYTES: u64 = 2 * 4096;

    /// The device's end of a portal whose memory is zero.
    #[must_use]
    pub fn new(memory: HostSlice) -> Self {
        Self { memory, next: 0 }
    }

    /// Where the slot of the descriptor with this number is; numbers count from 0.
    #[must_use]
    pub const fn slot_at(number: u64) -> u64 {
        number % Self::SLOTS * SLOT_BYTES
    }

    /// Hands out what is there, at most as much as there are slots. Says how many descriptors were taken.
    ///
    /// # Errors
    /// [`MemoryError`] where the memory is too short, or was taken away.
    #[inline]
    pub fn take(&mut self, mut each: impl FnMut(Descriptor) -> Taken) -> Result<u64, MemoryError> {
        let mut taken = 0;
        while taken < Self::SLOTS {
            let at = Self::slot_at(self.next);
            if self.memory.load_u64(at)? == 0 {
                break;
            }
            let mut bytes = [0; DESCRIPTOR_BYTES];
            self.memory.read(at, &mut bytes)?;
            let descriptor = Descriptor::read_from_bytes(&bytes).unwrap_or_default();
            if each(descriptor) == Taken::Later {
                break;
            }
            self.memory.store_u64(at, 0)?;
            self.next = self.next.wrapping_add(1);
            taken += 1;
        }
        Ok(taken)
    }

    /// Says that nobody looks from now on, unless something is there.
    ///
    /// # Errors
    /// As [`SharedPortal::take`].
    pub fn rest(&mut self) -> Result<Rest, MemoryError> {
        self.memory.store_u64(Self::RESTING_AT, 1)?;
        // The driver does the same the other way round: one of the two sees the other.
        fence(Ordering::SeqCst);
        if self.memory.load_u64(Self::slot_at(self.next))? == 0 {
            return Ok(Rest::Granted);
        }
        self.look()?;
        Ok(Rest::Refused)
    }

    /// Says that somebody looks again.
    ///
    /// # Errors
    /// As [`SharedPortal::take`].
    pub fn look(&mut self) -> Result<(), MemoryError> {
        self.memory.store_u64(Self::RESTING_AT, 0)
    }
}

#[cfg(test)]
mod tests {
    use palisade_memory::SharedMemory;
    use zerocopy::IntoBytes;

    use super::*;

    fn portal() -> (SharedMemory, SharedPortal) {
        let memory = SharedMemory::create("portal", SharedPortal::LEN_BYTES).unwrap();
        let portal = SharedPortal::new(memory.slice().clone());
        (memory, portal)
    }

    fn fill(memory: &SharedMemory, number: u64) {
        let descriptor = Descriptor::memory_move(number, 0, 8);
        memory
            .write(SharedPortal::slot_at(number), descriptor.as_bytes())
            .unwrap();
    }

    #[test]
    fn descriptors_come_in_the_order_of_their_slots_and_free_them() {
        let (memory, mut portal) = portal();
        let mut seen = Vec::new();
        for number in 0..100 {
            fill(&memory, number);
            if number % 3 == 0 {
                let each = |descriptor: Descriptor| {
                    seen.push(descriptor.first);
                    Taken::Yes
                };
                portal.take(each).unwrap();
            }
        }
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        assert_eq!(memory.load_u64(SharedPortal::slot_at(99)), Ok(0));
    }

    #[test]
    fn what_has_no_room_stays_and_holds_up_what_is_behind_it() {
        let (memory, mut portal) = portal();
        (0..3).for_each(|number| fill(&memory, number));
        let mut room = 1;
        let each = |_| {
            room -= 1;
            if room < 0 { Taken::Later } else { Taken::Yes }
        };
        assert_eq!(portal.take(each), Ok(1));
        let mut seen = Vec::new();
        let each = |descriptor: Descriptor| {
            seen.push(descriptor.first);
            Taken::Yes
        };
        assert_eq!(portal.take(each), Ok(2));
        assert_eq!(seen, [1, 2]);
    }

    /// A driver may fill slots as fast as they are freed, and with what it likes.
    #[test]
    fn r78_a_full_portal_ends() {
        let (memory, mut portal) = portal();
        memory.fill(0, SharedPortal::RESTING_AT, 0xff).unwrap();
        let refill = memory.clone();
        let each = |_| {
            refill.fill(0, SharedPortal::RESTING_AT, 0xff).unwrap();
            Taken::Yes
        };
        assert_eq!(portal.take(each), Ok(SharedPortal::SLOTS));
    }

    #[test]
    fn nobody_rests_while_something_is_there() {
        let (memory, mut portal) = portal();
        assert_eq!(portal.rest(), Ok(Rest::Granted));
        assert_eq!(memory.load_u64(SharedPortal::RESTING_AT), Ok(1));
        portal.look().unwrap();
        fill(&memory, 0);
        assert_eq!(portal.rest(), Ok(Rest::Refused));
        assert_eq!(memory.load_u64(SharedPortal::RESTING_AT), Ok(0));
    }
}
