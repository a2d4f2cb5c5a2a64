//! What invalidations have removed: how ports learn what to forget.
//!
//! Each invalidation is a step of a generation, noted in a ring. A port compares one number at each
//! access; when it has moved on, the port reads what happened since and forgets that alone, or
//! everything if the ring has gone round. Writers take a lock, readers none.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use palisade_units::{Iova, PAGE_SHIFT, PasidTag};

use crate::cached::Cached;
use crate::error::locked;

/// Tags share generations by their low bits: an invalidation of one whole tag costs the caches of about
/// one in so many others.
const SHARED: usize = 64;
/// How many there are: one more for requests without a PASID.
pub(crate) const BUCKETS: usize = SHARED + 1;
/// How many notes a ring has. Ports may be behind by one less.
const RING: usize = 31;
/// The same as a distance between generations.
const STEPS: u64 = 31;
const _: () = assert!(RING as u64 == STEPS);

/// A tag, or none, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whose(u32);

impl Whose {
    const WITHOUT_PASID: u32 = 1 << 20;

    /// Of a number that [`Whose::get`] gave.
    #[inline]
    pub(crate) const fn new(number: u32) -> Self {
        Self(number)
    }

    #[inline]
    pub(crate) fn of(tag: Option<PasidTag>) -> Self {
        Self(tag.map_or(Self::WITHOUT_PASID, PasidTag::get))
    }

    /// Below 2^21.
    #[inline]
    pub(crate) const fn get(self) -> u32 {
        self.0
    }

    /// With whom it shares a generation.
    #[inline]
    pub(crate) const fn bucket(self) -> Bucket {
        if self.0 == Self::WITHOUT_PASID {
            Bucket(SHARED)
        } else {
            Bucket(self.0 as usize % SHARED)
        }
    }
}

/// Tags that share a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bucket(usize);

impl Bucket {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..BUCKETS).map(Self)
    }

    /// Below [`BUCKETS`].
    #[inline]
    pub(crate) const fn index(self) -> usize {
        self.0
    }
}

/// The number of an invalidation. Only equality has a meaning to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(u64);

impl Generation {
    /// Before any.
    pub(crate) const NEVER: Self = Self(0);
}

/// Pages of 4 KiB of a tag, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pages {
    pub(crate) whose: Whose,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Pages {
    /// The pages that a range touches; `None` if it has no bytes.
    pub(crate) fn of(tag: Option<PasidTag>, at: Iova, len_bytes: u64) -> Option<Self> {
        let last = at.get().saturating_add(len_bytes.checked_sub(1)?);
        Some(Self {
            whose: Whose::of(tag),
            first: at.get() >> PAGE_SHIFT,
            last: last >> PAGE_SHIFT,
        })
    }
}

/// What ports are to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Removal {
    /// In which caches.
    pub(crate) cached: Cached,
    /// What of them; `None`: everything of a bucket.
    pub(crate) pages: Option<Pages>,
}

impl Removal {
    const EVERYTHING: Self = Self {
        cached: Cached::Everywhere,
        pages: None,
    };
}

/// A removal, as words.
struct Note {
    /// Whose pages, or [`Note::EVERYTHING`], and from [`Note::CACHED_SHIFT`] on, in which caches.
    whose: AtomicU64,
    first: AtomicU64,
    last: AtomicU64,
}

impl Note {
    const EVERYTHING: u64 = 0xffff_ffff;
    const CACHED_SHIFT: u32 = 32;

    const fn new() -> Self {
        Self {
            whose: AtomicU64::new(Self::EVERYTHING),
            first: AtomicU64::new(0),
            last: AtomicU64::new(0),
        }
    }

    fn store(&self, removal: Removal) {
        let (whose, first, last) = match removal.pages {
            None => (Self::EVERYTHING, 0, 0),
            Some(pages) => (pages.whose.get().into(), pages.first, pages.last),
        };
        let cached = (0..).zip(Cached::ALL);
        let cached = cached.filter(|(_, cached)| *cached == removal.cached);
        let cached = cached.map(|(number, _)| number).sum::<u64>() << Self::CACHED_SHIFT;
        self.whose.store(whose | cached, Ordering::Relaxed);
        self.first.store(first, Ordering::Relaxed);
        self.last.store(last, Ordering::Relaxed);
    }

    fn load(&self) -> Removal {
        let word = self.whose.load(Ordering::Relaxed);
        let number = usize::try_from(word >> Self::CACHED_SHIFT).unwrap_or_default();
        let [a, b, c, d, ..] = word.to_le_bytes();
        let whose = u32::from_le_bytes([a, b, c, d]);
        Removal {
            cached: Cached::ALL
                .get(number)
                .copied()
                .unwrap_or(Cached::Everywhere),
            pages: (u64::from(whose) != Self::EVERYTHING).then(|| Pages {
                whose: Whose(whose),
                first: self.first.load(Ordering::Relaxed),
                last: self.last.load(Ordering::Relaxed),
            }),
        }
    }
}

/// A generation and the notes of its last steps, on cache lines of their own.
#[repr(C, align(128))]
struct Journal {
    generation: AtomicU64,
    /// The last two notes once more. They come to a port with the generation, on the same line of its
    /// processor's cache; such a line takes hundreds of instructions' time to come.
    last: [Note; 2],
    notes: [Note; RING],
}

impl Journal {
    fn new() -> Self {
        Self {
            generation: AtomicU64::new(Generation::NEVER.0 + 1),
            last: [const { Note::new() }; 2],
            notes: [const { Note::new() }; RING],
        }
    }

    fn last(&self, generation: u64) -> &Note {
        &self.last[usize::from(generation % 2 == 1)]
    }

    fn note(&self, generation: u64) -> &Note {
        &self.notes[usize::try_from(generation % STEPS).unwrap_or_default()]
    }

    /// Called by one writer at a time.
    fn advance(&self, removal: Removal) {
        let next = self.generation.load(Ordering::Relaxed).wrapping_add(1);
        // Who reads a word of this note is then sure to find that the ring has gone round.
        fence(Ordering::Release);
        self.last(next).store(removal);
        self.note(next).store(removal);
        self.generation.store(next, Ordering::SeqCst);
    }

    /// Tells the removals after one generation and up to another, which was current.
    fn between(&self, seen: Generation, now: Generation, mut each: impl FnMut(Removal)) -> Known {
        let behind = now.0.wrapping_sub(seen.0);
        if behind >= STEPS {
            return Known::No;
        }
        if behind == 1 {
            let removal = self.last(now.0).load();
            fence(Ordering::Acquire);
            // It is written again by step `now + 2`, after `now + 1`.
            if self.generation.load(Ordering::Relaxed) == now.0 {
                each(removal);
                return Known::Yes;
            }
        }
        let mut removals = [Removal::EVERYTHING; RING];
        let mut count = 0;
        for (step, removal) in (1..=behind).zip(&mut removals) {
            *removal = self.note(seen.0.wrapping_add(step)).load();
            count += 1;
        }
        fence(Ordering::Acquire);
        // The oldest note that was read is written again by step `seen + 1 + RING`, after `seen + RING`.
        let reached = self.generation.load(Ordering::Relaxed);
        if reached.wrapping_sub(seen.0) >= STEPS {
            return Known::No;
        }
        removals[..count].iter().copied().for_each(&mut each);
        Known::Yes
    }
}

/// Whether removals could be told one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// They could.
    Yes,
    /// Too many came since: everything of the bucket is to be forgotten.
    No,
}

/// The generations of a function's tags.
pub(crate) struct Generations {
    journals: Box<[Journal; BUCKETS]>,
    writing: Mutex<()>,
}

impl Generations {
    pub(crate) fn new() -> Self {
        Self {
            journals: Box::new(std::array::from_fn(|_| Journal::new())),
            writing: Mutex::new(()),
        }
    }

    /// The generation of a bucket. What is cached by then holds within an access in flight until the
    /// access ends.
    #[inline]
    pub(crate) fn current(&self, of: Bucket) -> Generation {
        Generation(self.journals[of.0].generation.load(Ordering::SeqCst))
    }

    /// Tells what was removed after `seen` and up to `now`.
    pub(crate) fn between(
        &self,
        of: Bucket,
        seen: Generation,
        now: Generation,
        each: impl FnMut(Removal),
    ) -> Known {
        self.journals[of.0].between(seen, now, each)
    }

    /// Makes what is cached for a tag stale.
    pub(crate) fn advance(&self, tag: Option<PasidTag>, cached: Cached) {
        let _writing = locked(&self.writing);
        let pages = None;
        self.journals[Whose::of(tag).bucket().0].advance(Removal { cached, pages });
    }

    /// Makes some pages stale.
    pub(crate) fn advance_pages(&self, pages: Pages, cached: Cached) {
        let _writing = locked(&self.writing);
        let bucket = pages.whose.bucket();
        let pages = Some(pages);
        self.journals[bucket.0].advance(Removal { cached, pages });
    }

    /// Makes what is cached of every tag stale.
    pub(crate) fn advance_all(&self, cached: Cached) {
        let _writing = locked(&self.writing);
        for journal in self.journals.iter() {
            journal.advance(Removal {
                cached,
                pages: None,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palisade_units::GuestPasid;

    fn tag(number: u32) -> Option<PasidTag> {
        let number = GuestPasid::new(number).unwrap();
        Some(PasidTag::of_exclusive_owner(number))
    }

    fn page(number: u32, page: u64) -> Pages {
        Pages::of(tag(number), Iova::new(page << PAGE_SHIFT), 1).unwrap()
    }

    fn of_pages(pages: Pages) -> Removal {
        Removal {
            cached: Cached::LeavesInUnit,
            pages: Some(pages),
        }
    }

    fn since(generations: &Generations, seen: Generation) -> (Known, Vec<Removal>) {
        let bucket = Whose::of(tag(1)).bucket();
        let mut told = Vec::new();
        let now = generations.current(bucket);
        let known = generations.between(bucket, seen, now, |removal| told.push(removal));
        (known, told)
    }

    #[test]
    fn r41_an_advance_of_one_tag_leaves_its_neighbours() {
        let generations = Generations::new();
        let current = |tag| generations.current(Whose::of(tag).bucket());
        let before = (current(tag(1)), current(None));
        generations.advance(tag(2), Cached::InUnit);
        generations.advance_pages(page(3, 7), Cached::LeavesInUnit);
        assert_eq!((current(tag(1)), current(None)), before);
        generations.advance_all(Cached::InDevices);
        assert_ne!(current(tag(1)), before.0);
        assert_ne!(current(None), before.1);
    }

    #[test]
    fn r40_what_was_removed_is_told_in_order_until_the_ring_has_gone_round() {
        let generations = Generations::new();
        let seen = generations.current(Whose::of(tag(1)).bucket());
        assert_eq!(since(&generations, seen), (Known::Yes, Vec::new()));
        generations.advance_pages(page(1, 7), Cached::LeavesInUnit);
        generations.advance(tag(1), Cached::Everywhere);
        let mut expected = vec![of_pages(page(1, 7)), Removal::EVERYTHING];
        assert_eq!(since(&generations, seen), (Known::Yes, expected.clone()));
        for number in 3..STEPS {
            generations.advance_pages(page(65, number), Cached::LeavesInUnit);
            expected.push(of_pages(page(65, number)));
        }
        assert_eq!(since(&generations, seen), (Known::Yes, expected));
        generations.advance_pages(page(1, 1), Cached::LeavesInUnit);
        assert_eq!(since(&generations, seen), (Known::No, Vec::new()));
    }

    #[test]
    fn r40_each_removal_comes_out_of_the_ring_as_it_went_in() {
        for cached in Cached::ALL {
            for pages in [None, Some(page(1, 0x7f_ffff))] {
                let note = Note::new();
                note.store(Removal { cached, pages });
                assert_eq!(note.load(), Removal { cached, pages });
            }
        }
    }

    #[test]
    fn r40_a_port_that_is_one_step_behind_is_told_of_that_step() {
        let generations = Generations::new();
        for number in 0..5 {
            let seen = generations.current(Whose::of(tag(1)).bucket());
            generations.advance_pages(page(1, number), Cached::LeavesInUnit);
            let expected = vec![of_pages(page(1, number))];
            assert_eq!(since(&generations, seen), (Known::Yes, expected));
        }
    }

    #[test]
    fn r40_a_range_is_every_page_that_it_touches() {
        let pages = |at, len_bytes| {
            let pages = Pages::of(None, Iova::new(at), len_bytes)?;
            Some((pages.first, pages.last))
        };
        assert_eq!(pages(0x1000, 0), None);
        assert_eq!(pages(0x1fff, 1), Some((1, 1)));
        assert_eq!(pages(0x1fff, 2), Some((1, 2)));
        assert_eq!(pages(0, u64::MAX), Some((0, u64::MAX >> PAGE_SHIFT)));
        assert_eq!(
            pages(u64::MAX, u64::MAX),
            Some((u64::MAX >> PAGE_SHIFT, u64::MAX >> PAGE_SHIFT))
        );
    }
}
