use std::sync::atomic::{Ordering, fence};

use palisade_memory::MemoryError;
use palisade_units::{Access, Iova};

use super::{DmaError, DmaPort, Requester, len_of};
use crate::caches::Caches;
use crate::tlb::Found;

/// How much is written last, in one piece.
const LAST_BYTES: usize = 8;

impl DmaPort {
    /// Writes `data`, all but its first eight bytes first and these then, in one piece: who sees them sees the rest, and what
    /// this port wrote before. For completion records and the like: `to` and the length are multiples of 8, and
    /// more than the first eight bytes is there before the end of all addresses.
    ///
    /// # Errors
    /// [`DmaError`]; the first eight bytes were not written.
    #[inline]
    pub fn publish(&mut self, by: Requester, to: Iova, data: &[u8]) -> Result<(), DmaError> {
        if self.publish_cached(by, to, data) {
            return Ok(());
        }
        self.publish_in_two(by, to, data)
    }

    /// By one look-up, where all of it is in one page that is cached. `false` if it is not, or something is to be said of
    /// it.
    #[inline]
    fn publish_cached(&mut self, by: Requester, to: Iova, data: &[u8]) -> bool {
        let Self {
            function,
            presence,
            caches,
        } = self;
        let _in_flight = presence.enter(len_of(data));
        caches.refresh(&function.generations, by.tag);
        let key = caches.key(by.tag, by.kind(Access::WRITE));
        let Some(found) = caches.cached(key, to, Access::WRITE) else {
            return false;
        };
        len_of(data) <= found.left_bytes && put(caches, found, data).is_ok()
    }

    #[inline(never)]
    fn publish_in_two(&mut self, by: Requester, to: Iova, data: &[u8]) -> Result<(), DmaError> {
        let (last, others) = split(data);
        let Some(after) = to.checked_add(len_of(last)) else {
            return self.write(by, to, data);
        };
        self.write(by, after, others)?;
        fence(Ordering::Release);
        self.write(by, to, last)
    }
}

fn split(data: &[u8]) -> (&[u8], &[u8]) {
    data.split_at(LAST_BYTES.min(data.len()))
}

#[inline]
fn put(caches: &Caches, found: Found, data: &[u8]) -> Result<(), MemoryError> {
    let (last, others) = split(data);
    let after = Found {
        place: found.place.after(len_of(last)),
        ..found
    };
    caches.reach(after, len_of(others))?.write(others)?;
    fence(Ordering::Release);
    caches.reach(found, len_of(last))?.write(last)
}
