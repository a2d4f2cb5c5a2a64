use palisade_memory::MemoryError;
use palisade_units::{Access, Iova};

use super::{CHUNK_BYTES, DmaError, DmaPort, Job, Requester, conclude};
use crate::caches::Caches;
use crate::tlb::Found;

/// Which end of a copy an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where the copy reads.
    Source,
    /// Where it writes.
    Destination,
}

/// A copy that stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("after {done_bytes} bytes, on the side of the {side:?}: {error}")]
pub struct Partial {
    /// How many bytes were copied.
    pub done_bytes: u64,
    /// Why it stopped.
    pub error: DmaError,
    /// Which address it is about.
    pub side: Side,
}

impl DmaPort {
    /// Copies from one space to another, or within one, straight from host memory to host memory.
    ///
    /// Bytes move in ascending order, in pieces that end with a page of either side; each piece
    /// comes out as if by way of a buffer. A range that overlaps its source from above is therefore
    /// repeated, unless both lie within one page: who wants it otherwise copies in pieces from the
    /// end.
    ///
    /// # Errors
    /// [`Partial`]: how far it came, and what stopped it.
    #[inline]
    pub fn copy(
        &mut self,
        source: Requester,
        from: Iova,
        destination: Requester,
        to: Iova,
        len_bytes: u64,
    ) -> Result<(), Partial> {
        let read = Job {
            by: source,
            at: from,
            access: source.access(Access::READ),
            len_bytes,
        };
        let access = destination.access(Access::WRITE);
        let write = Job {
            by: destination,
            at: to,
            access,
            len_bytes,
        };
        match self.copy_cached(read, write) {
            true => Ok(()),
            false => self.copy_in_pieces(read, write),
        }
    }

    /// Serves a copy of which each side lies in one page that is cached. `false` if it is no such, or
    /// something is to be said of it.
    #[inline]
    fn copy_cached(&mut self, read: Job, write: Job) -> bool {
        let Self {
            function,
            presence,
            caches,
        } = self;
        let len_bytes = read.len_bytes;
        let _in_flight = presence.enter(len_bytes);
        // Both before anything is looked up: they may forget all.
        caches.refresh(&function.generations, read.by.tag);
        caches.refresh(&function.generations, write.by.tag);
        let Some(from) = caches.cached(read.key(caches), read.at, read.access) else {
            return false;
        };
        let Some(to) = caches.cached(write.key(caches), write.at, write.access) else {
            return false;
        };
        len_bytes <= from.left_bytes.min(to.left_bytes).min(CHUNK_BYTES)
            && copy_piece(caches, from, to, len_bytes).is_ok()
    }

    #[inline(never)]
    fn copy_in_pieces(&mut self, read: Job, write: Job) -> Result<(), Partial> {
        let Self {
            function,
            presence,
            caches,
        } = self;
        let len_bytes = read.len_bytes;
        let mut done = 0;
        while done < len_bytes {
            let goal = len_bytes.min(done.saturating_add(CHUNK_BYTES));
            let in_flight = presence.enter(goal - done);
            // Both before anything is looked up: they may forget all.
            caches.refresh(&function.generations, read.by.tag);
            caches.refresh(&function.generations, write.by.tag);
            let (read_key, write_key) = (read.key(caches), write.key(caches));
            let mut blocked = None;
            while done < goal {
                let source = match read.find(function, caches, read_key, done) {
                    Ok(found) => found,
                    Err(why) => {
                        blocked = Some((why, Side::Source));
                        break;
                    }
                };
                let target = match write.find(function, caches, write_key, done) {
                    Ok(found) => found,
                    Err(why) => {
                        blocked = Some((why, Side::Destination));
                        break;
                    }
                };
                let len = source.left_bytes.min(target.left_bytes).min(goal - done);
                match copy_piece(caches, source, target, len) {
                    Ok(()) => done += len,
                    Err(error) => {
                        // Memory fails by its own address: ask the source first, by reading it.
                        let readable = caches.reach(source, 1);
                        let readable = readable.and_then(|reach| reach.read(&mut [0; 1]));
                        let (job, side) = if readable.is_ok() {
                            (&write, Side::Destination)
                        } else {
                            (&read, Side::Source)
                        };
                        blocked = Some((job.failed(function, done, error), side));
                        break;
                    }
                }
            }
            drop(in_flight);
            if let Some((blocked, side)) = blocked {
                presence.leave();
                let on_miss = match side {
                    Side::Source => read.by.on_miss,
                    Side::Destination => write.by.on_miss,
                };
                let error = conclude(function, on_miss, *blocked);
                return Err(Partial {
                    done_bytes: done,
                    error,
                    side,
                });
            }
        }
        Ok(())
    }
}

#[inline]
fn copy_piece(caches: &Caches, from: Found, to: Found, len_bytes: u64) -> Result<(), MemoryError> {
    let from = caches.reach(from, len_bytes)?;
    from.copy_to(caches.reach(to, len_bytes)?)
}
