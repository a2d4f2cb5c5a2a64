//! The driver's end of a portal in shared memory.

use std::sync::atomic::{Ordering, fence};

use palisade_dsa::{SharedPortal, spec::Descriptor};
use palisade_memory::{HostSlice, MemoryError};
use zerocopy::IntoBytes;

/// Fills the slots of a portal that the device looks at; see [`SharedPortal`].
#[derive(Debug)]
pub struct PortalWriter {
    memory: HostSlice,
    next: u64,
    /// How many slots are known to be free. To look at one costs more than to fill it: the device wrote it last.
    free: u64,
}

/// How many slots are looked for at a time.
const MANY: u64 = SharedPortal::SLOTS / 2;

/// What came of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    /// It is in its slot, and the device looks.
    Seen,
    /// It is in its slot, but the device rests: it is to be rung.
    Unseen,
    /// All slots are in use; nothing was written.
    Full,
}

impl PortalWriter {
    /// The driver's end of a portal whose memory is zero.
    #[must_use]
    pub fn new(memory: HostSlice) -> Self {
        Self {
            memory,
            next: 0,
            free: 0,
        }
    }

    /// Puts a descriptor into the next slot, to be run by whatever queue the portal is of. Its first eight bytes are not all
    /// zero: it has a flag, a PASID or an operation.
    ///
    /// # Errors
    /// [`MemoryError`] where the memory is too short for a portal.
    #[inline]
    pub fn submit(&mut self, descriptor: &Descriptor) -> Result<Posted, MemoryError> {
        let at = SharedPortal::slot_at(self.next);
        if self.free == 0 {
            self.free = self.look_for_free()?;
        }
        let Some(free) = self.free.checked_sub(1) else {
            return Ok(Posted::Full);
        };
        let (first, others) = descriptor.as_bytes().split_at(8);
        self.memory.write(at + 8, others)?;
        let first = first.try_into().map_or(0, u64::from_le_bytes);
        self.memory.store_u64(at, first)?;
        self.next = self.next.wrapping_add(1);
        self.free = free;
        // The device says that it rests, then looks once more: one of the two sees the other.
        fence(Ordering::SeqCst);
        match self.memory.load_u64(SharedPortal::RESTING_AT)? {
            0 => Ok(Posted::Seen),
            _ => Ok(Posted::Unseen),
        }
    }

    /// The device frees slots in turn: where one is free, so are those that were filled before it.
    fn look_for_free(&self) -> Result<u64, MemoryError> {
        for count in [MANY, 1] {
            let last = self.next.wrapping_add(count - 1);
            if self.memory.load_u64(SharedPortal::slot_at(last))? == 0 {
                return Ok(count);
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palisade_dsa::{Rest, Taken};
    use palisade_memory::SharedMemory;

    #[test]
    fn what_is_put_in_comes_out_and_a_device_that_rests_is_to_be_rung() {
        let memory = SharedMemory::create("portal", SharedPortal::LEN_BYTES).unwrap();
        let mut device = SharedPortal::new(memory.slice().clone());
        let mut driver = PortalWriter::new(memory.slice().clone());
        let copy = |number| Descriptor::memory_move(number, 2 * number, 8).with_record(64);
        for number in 0..SharedPortal::SLOTS {
            assert_eq!(driver.submit(&copy(number)), Ok(Posted::Seen));
        }
        assert_eq!(driver.submit(&copy(64)), Ok(Posted::Full));
        let mut seen = Vec::new();
        let each = |descriptor: Descriptor| {
            seen.push(descriptor);
            Taken::Yes
        };
        assert_eq!(device.take(each), Ok(SharedPortal::SLOTS));
        assert_eq!(seen, (0..SharedPortal::SLOTS).map(copy).collect::<Vec<_>>());
        assert_eq!(device.rest(), Ok(Rest::Granted));
        assert_eq!(driver.submit(&copy(64)), Ok(Posted::Unseen));
    }

    /// However the two meet, a device never rests with a descriptor that nobody rings for.
    #[test]
    fn no_descriptor_is_forgotten_between_the_last_look_and_the_rest() {
        const COUNT: u64 = 20_000;
        let memory = SharedMemory::create("portal", SharedPortal::LEN_BYTES).unwrap();
        let mut device = SharedPortal::new(memory.slice().clone());
        let mut driver = PortalWriter::new(memory.slice().clone());
        let (ring, rung) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for number in 0..COUNT {
                    let copy = Descriptor::memory_move(number, 0, 8);
                    loop {
                        match driver.submit(&copy).unwrap() {
                            Posted::Seen => break,
                            Posted::Unseen => {
                                ring.send(()).unwrap();
                                break;
                            }
                            Posted::Full => std::thread::yield_now(),
                        }
                    }
                }
            });
            let mut next = 0;
            while next < COUNT {
                let each = |descriptor: Descriptor| {
                    assert_eq!(descriptor.first, next);
                    next += 1;
                    Taken::Yes
                };
                if device.take(each).unwrap() == 0 && device.rest().unwrap() == Rest::Granted {
                    let patience = std::time::Duration::from_secs(20);
                    rung.recv_timeout(patience).unwrap();
                    device.look().unwrap();
                }
            }
        });
    }
}
