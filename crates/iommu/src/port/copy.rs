use palisade_memory::MemoryError;
use palisade_units::{Access, Iova, PAGE_BYTES};

use super::{CHUNK_BYTES, DmaError, DmaPort, Job, Requester, Search, conclude};
use crate::LookedUp;
use crate::caches::Caches;
use crate::tlb::{Found, Key};

/// How many pieces of a copy are looked up before the first of them moves.
const AHEAD: usize = 16;

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
        if self.copy_at_once(source, from, destination, to, len_bytes) {
            return Ok(());
        }
        let read = Job {
            by: source,
            at: from,
            access: source.access(Access::READ),
            len_bytes,
        };
        let write = Job {
            by: destination,
            at: to,
            access: destination.access(Access::WRITE),
            len_bytes,
        };
        self.copy_in_pieces(read, write)
    }

    /// Serves a copy of at most 64 KiB of which each side lies in one page that is cached, and says whether it did. `false`
    /// if it is no such, or something is to be said of it: [`DmaPort::copy`] then does all of it and says so.
    // Its answer is one register, which does not wait for the stores of the copy as one in memory may.
    #[inline]
    pub fn copy_at_once(
        &mut self,
        source: Requester,
        from: Iova,
        destination: Requester,
        to: Iova,
        len_bytes: u64,
    ) -> bool {
        if len_bytes > CHUNK_BYTES {
            return false;
        }
        let Self {
            function,
            presence,
            caches,
        } = self;
        let _in_flight = presence.enter(len_bytes);
        // Both before anything is looked up: they may forget all.
        caches.refresh(&function.generations, source.tag);
        caches.refresh(&function.generations, destination.tag);
        let read_key = caches.key(source.tag, source.kind(Access::READ));
        let write_key = caches.key(destination.tag, destination.kind(Access::WRITE));
        let Some(from) = caches.cached(read_key, from, Access::READ) else {
            return false;
        };
        let Some(to) = caches.cached(write_key, to, Access::WRITE) else {
            return false;
        };
        len_bytes <= from.left_bytes.min(to.left_bytes)
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
        let mut searches = [Search::Possible; 2];
        while done < len_bytes {
            let goal = len_bytes.min(done.saturating_add(CHUNK_BYTES));
            let in_flight = presence.enter(goal - done);
            // Both before anything is looked up: they may forget all.
            caches.refresh(&function.generations, read.by.tag);
            caches.refresh(&function.generations, write.by.tag);
            let (read_key, write_key) = (read.key(caches), write.key(caches));
            let mut blocked = None;
            while done < goal {
                let ahead = copy_ahead(caches, (&read, read_key), (&write, write_key), done, goal);
                if ahead > 0 {
                    done += ahead;
                    continue;
                }
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
                let [of_source, of_destination] = &mut searches;
                let (by, search) = match side {
                    Side::Source => (read.by, of_source),
                    Side::Destination => (write.by, of_destination),
                };
                let error = match search.entry(function, &blocked) {
                    LookedUp::Bound => continue,
                    LookedUp::Later => blocked.later(),
                    LookedUp::Nothing => conclude(function, by, *blocked),
                };
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

/// A part of a copy whose both sides go on in memory without a gap.
#[derive(Clone, Copy)]
struct Piece {
    from: Found,
    to: Found,
    len_bytes: u64,
}

/// Copies on from `done`, as far as both sides are cached, and says how many bytes; stops before a piece
/// of which something is to be said. All is looked up before the first byte moves: between
/// two pieces the processor then has nothing to do that keeps it from reading on.
#[inline]
fn copy_ahead(
    caches: &Caches,
    (read, read_key): (&Job, Key),
    (write, write_key): (&Job, Key),
    done: u64,
    goal: u64,
) -> u64 {
    let find = |job: &Job, key, done, access| {
        let at = job.at.checked_add(done)?;
        caches.cached(key, at, access)
    };
    let mut pieces = [const { None::<Piece> }; AHEAD];
    let (mut count, mut known) = (0_usize, done);
    while known < goal {
        let Some(from) = find(read, read_key, known, Access::READ) else {
            break;
        };
        let Some(to) = find(write, write_key, known, Access::WRITE) else {
            break;
        };
        let len_bytes = from.left_bytes.min(to.left_bytes).min(goal - known);
        let last = count
            .checked_sub(1)
            .and_then(|last: usize| pieces.get_mut(last));
        if let Some(Some(last)) = last
            && last.from.place.after(last.len_bytes) == from.place
            && last.to.place.after(last.len_bytes) == to.place
        {
            last.len_bytes += len_bytes;
        } else if let Some(next) = pieces.get_mut(count) {
            *next = Some(Piece {
                from,
                to,
                len_bytes,
            });
            count += 1;
        } else {
            break;
        }
        known += len_bytes;
    }
    let mut copied = 0;
    for piece in pieces.iter().take(count).flatten() {
        let Piece {
            from,
            to,
            len_bytes,
        } = *piece;
        let Ok(from) = caches.reach(from, len_bytes) else {
            break;
        };
        let Ok(to) = caches.reach(to, len_bytes) else {
            break;
        };
        // Page by page a range is repeated over one that it overlaps, at once it would not be.
        if len_bytes > PAGE_BYTES && from.overlaps(to) || from.copy_to(to).is_err() {
            break;
        }
        copied += len_bytes;
    }
    copied
}

#[inline]
fn copy_piece(caches: &Caches, from: Found, to: Found, len_bytes: u64) -> Result<(), MemoryError> {
    let from = caches.reach(from, len_bytes)?;
    from.copy_to(caches.reach(to, len_bytes)?)
}
