//! Which pages of a space were written.
//!
//! A write is noted when it was made, by the step that ends every write of this room. The log is kept by guest-physical
//! address, so that what was written to a region is still known when the region is gone; a region remembers where
//! its part of it is, so that a note takes no lock. Its size is bounded: past the bound every page counts as
//! written.

mod pages;
mod range;

pub use range::{DirtyError, DirtyRange};

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use palisade_units::{Gpa, PAGE_SHIFT};

use crate::barrier;
use pages::{Chunk, Pages};

/// The log of a space, which may be off.
#[derive(Default)]
pub(crate) struct DirtyLog {
    on: AtomicBool,
    pages: Pages,
}

impl DirtyLog {
    /// Starts empty. Called by one thread at a time, as is [`DirtyLog::stop`].
    pub(crate) fn start(&self) -> Result<(), DirtyError> {
        if self.is_on() {
            return Err(DirtyError::Started);
        }
        self.pages.clear();
        self.on.store(true, Ordering::SeqCst);
        Ok(())
    }

    pub(crate) fn stop(&self) {
        self.on.store(false, Ordering::SeqCst);
        self.pages.clear();
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::SeqCst)
    }

    /// Takes out which pages of a range were written, as a bitmap.
    pub(crate) fn take(&self, range: DirtyRange) -> Result<Vec<u64>, DirtyError> {
        if !self.is_on() {
            return Err(DirtyError::NotStarted);
        }
        let mut bitmap = range.empty_bitmap();
        let (first, last) = range.pages();
        self.pages
            .take(first, last, |from, to| range.mark(&mut bitmap, from, to));
        // Who found a page noted before it was taken out, and so did not note it again, has written what others
        // see from here on.
        barrier::heavy_or_wait();
        Ok(bitmap)
    }
}

/// The log of a space, as one of its regions writes it.
pub(crate) struct RegionLog {
    log: Arc<DirtyLog>,
    /// The chunks that the region's pages are in, from this number on, as far as they were written to.
    first_chunk: u64,
    chunks: Box<[OnceLock<Arc<Chunk>>]>,
}

impl RegionLog {
    /// Of a region that is not empty.
    pub(crate) fn new(log: Arc<DirtyLog>, at: Gpa, len_bytes: u64) -> Self {
        let (first, last) = pages_of(at, len_bytes);
        let first_chunk = pages::chunk_of(first);
        let chunks = first_chunk..=pages::chunk_of(last);
        Self {
            log,
            first_chunk,
            chunks: chunks.map(|_| OnceLock::new()).collect(),
        }
    }

    /// Notes that a range was written. One of no bytes was not.
    pub(crate) fn note(&self, at: Gpa, len_bytes: u64) {
        if len_bytes == 0 {
            return;
        }
        let (first, last) = pages_of(at, len_bytes);
        for (number, from, to) in pages::by_chunk(first, last) {
            match self.chunk(number) {
                Some(chunk) => chunk.add(from, to),
                None => self.log.pages.add_all(),
            }
        }
    }

    /// A chunk that the region has pages in; `None` where there is no room for it.
    #[inline]
    fn chunk(&self, number: u64) -> Option<&Chunk> {
        let index = usize::try_from(number.wrapping_sub(self.first_chunk)).ok()?;
        let place = self.chunks.get(index)?;
        match place.get() {
            Some(chunk) => Some(chunk),
            None => self.find(place, number),
        }
    }

    #[cold]
    fn find<'a>(&self, place: &'a OnceLock<Arc<Chunk>>, number: u64) -> Option<&'a Chunk> {
        let chunk = self.log.pages.chunk(number)?;
        Some(place.get_or_init(|| chunk))
    }
}

/// The first and the last page of a range, which is not empty.
fn pages_of(at: Gpa, len_bytes: u64) -> (u64, u64) {
    let last = at.get().saturating_add(len_bytes.saturating_sub(1));
    (at.get() >> PAGE_SHIFT, last >> PAGE_SHIFT)
}
