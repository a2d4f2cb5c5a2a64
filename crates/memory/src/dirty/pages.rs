use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Pages whose bits are together: 256 MiB, of which the bits take 8 KiB.
const CHUNK_PAGES: u64 = 1 << 16;
const CHUNK_WORDS: usize = 1 << 10;
const WORD_PAGES: u64 = 64;
const _: () = assert!(CHUNK_WORDS as u64 * WORD_PAGES == CHUNK_PAGES);
/// The most chunks: pages all over 4 TiB, and 128 MiB of bits. No space has more memory by default.
const MAX_CHUNKS: usize = if cfg!(test) { 16 } else { 1 << 14 };

/// A set of page numbers that many threads add to.
#[derive(Default)]
pub(super) struct Pages {
    /// By their number. Who was given one adds to it without this lock.
    chunks: Mutex<BTreeMap<u64, Arc<Chunk>>>,
    /// Some were to be added for which there was no room.
    all: AtomicBool,
}

/// Pages that are next to each other.
pub(super) struct Chunk([AtomicU64; CHUNK_WORDS]);

impl Pages {
    fn chunks(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Chunk>>> {
        // A panic cannot leave it half changed.
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The chunk of a number, to add pages to for as long as one likes; `None` where it is one too many.
    pub(super) fn chunk(&self, number: u64) -> Option<Arc<Chunk>> {
        let mut chunks = self.chunks();
        if let Some(chunk) = chunks.get(&number) {
            return Some(Arc::clone(chunk));
        }
        if chunks.len() >= MAX_CHUNKS {
            return None;
        }
        let chunk = Arc::new(Chunk([const { AtomicU64::new(0) }; CHUNK_WORDS]));
        chunks.insert(number, Arc::clone(&chunk));
        Some(chunk)
    }

    /// From now on every page is in it.
    pub(super) fn add_all(&self) {
        self.all.store(true, Ordering::SeqCst);
    }

    /// From now on no page is in it. Chunks that nobody was given go.
    pub(super) fn clear(&self) {
        let mut chunks = self.chunks();
        self.all.store(false, Ordering::SeqCst);
        chunks.retain(|_, chunk| Arc::strong_count(chunk) > 1);
        for word in chunks.values().flat_map(|chunk| &chunk.0) {
            word.store(0, Ordering::SeqCst);
        }
    }

    /// Takes out the pages from `first` to `last` that are in it, and tells them in runs from one page to
    /// another.
    pub(super) fn take(&self, first: u64, last: u64, mut each: impl FnMut(u64, u64)) {
        if self.all.load(Ordering::SeqCst) {
            each(first, last);
            return;
        }
        let chunks = self.chunks();
        for (number, chunk) in chunks.range(chunk_of(first)..=chunk_of(last)) {
            let base = number * CHUNK_PAGES;
            let end = base + (CHUNK_PAGES - 1);
            chunk.take(first.max(base), last.min(end), &mut each);
        }
    }
}

impl Chunk {
    /// Adds pages of the chunk.
    pub(super) fn add(&self, first: u64, last: u64) {
        for (word, _, mask) in self.words(first, last) {
            // A page that is in it already is not written again: others read the line.
            if word.load(Ordering::Relaxed) & mask != mask {
                word.fetch_or(mask, Ordering::SeqCst);
            }
        }
    }

    fn take(&self, first: u64, last: u64, each: &mut impl FnMut(u64, u64)) {
        for (word, base, mask) in self.words(first, last) {
            if word.load(Ordering::Relaxed) & mask == 0 {
                continue;
            }
            let mut taken = word.fetch_and(!mask, Ordering::SeqCst) & mask;
            while taken != 0 {
                let skip = taken.trailing_zeros();
                let length = (taken >> skip).trailing_ones();
                let from = base + u64::from(skip);
                each(from, from + u64::from(length) - 1);
                let gone = u64::MAX.checked_shl(skip + length).unwrap_or(0);
                taken &= gone;
            }
        }
    }

    /// The words that hold pages of the chunk, with the page of their lowest bit, and the bits of those pages.
    fn words(&self, first: u64, last: u64) -> impl Iterator<Item = (&AtomicU64, u64, u64)> {
        (first / WORD_PAGES..=last / WORD_PAGES).filter_map(move |number| {
            let index = usize::try_from(number).ok()? % CHUNK_WORDS;
            let base = number * WORD_PAGES;
            let low = first.max(base) - base;
            let high = last.min(base + (WORD_PAGES - 1)) - base;
            let mask = (u64::MAX >> (WORD_PAGES - 1 - high)) & (u64::MAX << low);
            Some((self.0.get(index)?, base, mask))
        })
    }
}

/// The number of the chunk that a page is in.
pub(super) const fn chunk_of(page: u64) -> u64 {
    page / CHUNK_PAGES
}

/// The parts of a range of pages, each with the number of its chunk.
pub(super) fn by_chunk(first: u64, last: u64) -> impl Iterator<Item = (u64, u64, u64)> {
    (chunk_of(first)..=chunk_of(last)).map(move |number| {
        let base = number * CHUNK_PAGES;
        let end = base + (CHUNK_PAGES - 1);
        (number, first.max(base), last.min(end))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn taken(pages: &Pages, first: u64, last: u64) -> BTreeSet<u64> {
        let mut taken = BTreeSet::new();
        pages.take(first, last, |from, to| taken.extend(from..=to));
        taken
    }

    fn add(pages: &Pages, first: u64, last: u64) {
        for (number, from, to) in by_chunk(first, last) {
            pages.chunk(number).unwrap().add(from, to);
        }
    }

    #[test]
    fn r78_there_are_so_many_chunks_and_no_more() {
        let pages = Pages::default();
        let kept = pages.chunk(0).unwrap();
        for number in 1..MAX_CHUNKS as u64 {
            add(&pages, number * CHUNK_PAGES, number * CHUNK_PAGES);
        }
        assert!(pages.chunk(MAX_CHUNKS as u64).is_none());
        assert_eq!(taken(&pages, 0, CHUNK_PAGES), [CHUNK_PAGES].into());
        // What nobody has any more makes room; who has one goes on with it.
        pages.clear();
        assert!(pages.chunk(MAX_CHUNKS as u64).is_some());
        kept.add(5, 5);
        assert_eq!(taken(&pages, 0, u64::MAX >> 12), [5].into());
    }

    #[test]
    fn without_room_every_page_counts_as_written() {
        let pages = Pages::default();
        pages.add_all();
        for _ in 0..2 {
            assert_eq!(taken(&pages, 7, 9), [7, 8, 9].into());
        }
        pages.clear();
        assert_eq!(taken(&pages, 7, 9), [].into());
    }

    proptest! {
        /// As a set would.
        #[test]
        fn what_was_added_is_taken_once(
            steps in proptest::collection::vec((any::<bool>(), 0..3 * CHUNK_PAGES, 0_u64..400), 0..60),
        ) {
            let (pages, mut model) = (Pages::default(), BTreeSet::new());
            for (adds, first, more) in steps {
                let last = first + more;
                if adds {
                    add(&pages, first, last);
                    model.extend(first..=last);
                } else {
                    let expected: BTreeSet<u64> = model.range(first..=last).copied().collect();
                    prop_assert_eq!(taken(&pages, first, last), expected);
                    model.retain(|page| !(first..=last).contains(page));
                }
            }
            prop_assert_eq!(taken(&pages, 0, 4 * CHUNK_PAGES), model);
        }
    }
}
