use palisade_memory::HostSlice;
use palisade_units::{GuestPasid, Iova, PAGE_SHIFT, PageSize, PasidTag};

use crate::epoch::Generation;
use crate::resolve::Resolved;

/// Lines for pages of 4 KiB; a power of two.
const SMALL_LINES: usize = 1024;
/// Lines for pieces of 2 MiB; a power of two.
const LARGE_LINES: usize = 64;
/// Spreads tags over the lines: an odd number, so that neighbouring tags start far apart.
const TAG_STRIDE: u64 = 0x9e5;

/// What tells the translations of one kind of request from those of others: the tag, and the
/// attributes that the tables judge differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind(u32);

impl Kind {
    const NOTHING: Self = Self(u32::MAX);
    const WITHOUT_PASID: u32 = 1 << 20;
    /// The request is privileged.
    pub(crate) const PRIVILEGED: u32 = 1 << 21;
    /// The request fetches instructions.
    pub(crate) const EXECUTE: u32 = 1 << 22;

    pub(crate) fn new(tag: Option<PasidTag>, attributes: u32) -> Self {
        Self(tag.map_or(Self::WITHOUT_PASID, PasidTag::get) | attributes)
    }

    fn tag(self) -> Option<PasidTag> {
        if self.0 & Self::WITHOUT_PASID != 0 {
            return None;
        }
        let number = GuestPasid::new(self.0 & (Self::WITHOUT_PASID - 1)).ok()?;
        Some(PasidTag::of_exclusive_owner(number))
    }
}

struct Line {
    /// The page number, in units of the line's size.
    page: u64,
    generation: Generation,
    kind: Kind,
    slice: Option<HostSlice>,
}

impl Line {
    const EMPTY: Self = Self {
        page: 0,
        generation: Generation::NEVER,
        kind: Kind::NOTHING,
        slice: None,
    };

    /// One comparison for all that must agree.
    fn is(&self, kind: Kind, page: u64, generation: Generation) -> bool {
        let differ = (self.page ^ page)
            | (self.generation.get() ^ generation.get())
            | u64::from(self.kind.0 ^ kind.0);
        differ == 0
    }
}

/// A port's private cache of translations for reads, or for writes: what is in it may be accessed
/// so, and where that marks tables, they are marked.
pub(crate) struct Tlb {
    small: Box<[Line]>,
    large: Box<[Line]>,
}

/// Which line holds a translation.
#[derive(Clone, Copy)]
enum Place {
    Small(usize),
    Large(usize),
}

/// The memory at an address, to the end of its page.
pub(crate) struct Piece<'a> {
    pub(crate) slice: &'a HostSlice,
    /// Where in the slice the address is, in bytes.
    pub(crate) offset_bytes: u64,
    /// How much of the slice follows, in bytes; not 0.
    pub(crate) left_bytes: u64,
}

impl Tlb {
    pub(crate) fn new() -> Self {
        let lines = |count| (0..count).map(|_: usize| Line::EMPTY).collect();
        Self {
            small: lines(SMALL_LINES),
            large: lines(LARGE_LINES),
        }
    }

    fn index(kind: Kind, page: u64, lines: usize) -> usize {
        let spread = page.wrapping_add(u64::from(kind.0).wrapping_mul(TAG_STRIDE));
        usize::try_from(spread & (lines as u64 - 1)).unwrap_or_default()
    }

    fn page(at: Iova, size: PageSize) -> u64 {
        at.get() >> size.shift()
    }

    fn position(&self, kind: Kind, at: Iova, generation: Generation) -> Option<Place> {
        let page = at.get() >> PAGE_SHIFT;
        let index = Self::index(kind, page, SMALL_LINES);
        if self.small[index].is(kind, page, generation) {
            return Some(Place::Small(index));
        }
        let page = Self::page(at, PageSize::Size2M);
        let index = Self::index(kind, page, LARGE_LINES);
        self.large[index]
            .is(kind, page, generation)
            .then_some(Place::Large(index))
    }

    fn insert(&mut self, kind: Kind, at: Iova, generation: Generation, new: Resolved) -> Place {
        let (place, page) = match new.size {
            PageSize::Size4K => {
                let page = Self::page(at, PageSize::Size4K);
                (Place::Small(Self::index(kind, page, SMALL_LINES)), page)
            }
            _ => {
                let page = Self::page(at, PageSize::Size2M);
                (Place::Large(Self::index(kind, page, LARGE_LINES)), page)
            }
        };
        let line = match place {
            Place::Small(index) => &mut self.small[index],
            Place::Large(index) => &mut self.large[index],
        };
        *line = Line {
            page,
            generation,
            kind,
            slice: Some(new.slice),
        };
        place
    }

    /// The memory at an address, from the cache or else from `miss`, which is then cached.
    pub(crate) fn find<E>(
        &mut self,
        kind: Kind,
        at: Iova,
        generation: Generation,
        miss: impl FnOnce() -> Result<Resolved, E>,
    ) -> Result<Option<Piece<'_>>, E> {
        let place = match self.position(kind, at, generation) {
            Some(place) => place,
            None => self.insert(kind, at, generation, miss()?),
        };
        let (line, size) = match place {
            Place::Small(index) => (&self.small[index], PageSize::Size4K),
            Place::Large(index) => (&self.large[index], PageSize::Size2M),
        };
        let offset_bytes = at.get() & (size.bytes() - 1);
        let left_bytes = size.bytes() - offset_bytes;
        Ok(line.slice.as_ref().map(|slice| Piece {
            slice,
            offset_bytes,
            left_bytes,
        }))
    }

    /// Drops every translation that no request can use any more, by what is current for its tag.
    pub(crate) fn drop_stale(&mut self, current: impl Fn(Option<PasidTag>) -> Generation) {
        for line in self.small.iter_mut().chain(&mut self.large) {
            if line.slice.is_some() && line.generation != current(line.kind.tag()) {
                *line = Line::EMPTY;
            }
        }
    }
}
