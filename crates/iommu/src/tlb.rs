use palisade_memory::Place;
use palisade_units::{Iova, PAGE_SHIFT, PageSize, PasidTag};

use crate::cached::{Cached, Keeper};
use crate::journal::{Pages, Whose};

/// Lines for pages of 4 KiB.
const SMALL_LINES: usize = 1024;
/// Lines for pieces of 2 MiB.
const LARGE_LINES: usize = 64;
/// Spreads tags over the lines: an odd number, so that neighbouring tags start far apart.
const TAG_STRIDE: u64 = 0x9e5;
/// How many pages are looked for one by one before it is cheaper to look at all lines.
const FEW: u64 = 64;

/// What tells the translations of one kind of request from those of others: the tag, and the
/// attributes that the tables judge differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind(u32);

impl Kind {
    const NOTHING: Self = Self(u32::MAX);
    const WHOSE: u32 = (1 << 21) - 1;
    /// The request is privileged.
    pub(crate) const PRIVILEGED: u32 = 1 << 21;
    /// The request fetches instructions.
    pub(crate) const EXECUTE: u32 = 1 << 22;
    /// No request: an address that a second stage translates.
    const BEHIND: u32 = 1 << 23;
    /// The function keeps it in a TLB of its own.
    pub(crate) const OF_DEVICE: u32 = 1 << 24;

    #[inline]
    pub(crate) fn new(tag: Option<PasidTag>, attributes: u32) -> Self {
        Self(Whose::of(tag).get() | attributes)
    }

    /// Of the tables of a tag.
    #[inline]
    pub(crate) const fn of_tables(whose: Whose) -> Self {
        Self(whose.get())
    }

    #[inline]
    pub(crate) const fn whose(self) -> Whose {
        Whose::new(self.0 & Self::WHOSE)
    }

    #[inline]
    pub(crate) const fn keeper(self) -> Keeper {
        if self.0 & Self::OF_DEVICE == 0 {
            Keeper::Unit
        } else {
            Keeper::Device
        }
    }
}

/// Which translations of a bucket still hold: those of the present epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epoch(pub(crate) u32);

impl Epoch {
    /// Of no line that holds anything.
    pub(crate) const NEVER: Self = Self(0);
}

/// What a line must agree with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) epoch: Epoch,
}

impl Key {
    /// Of addresses behind the tag's first stage, or where it has none.
    pub(crate) const fn behind(self) -> Self {
        let kind = Kind(self.kind.whose().get() | Kind::BEHIND);
        Self { kind, ..self }
    }
}

/// What is cached of an address: half a cache line of the processor.
#[derive(Clone, Copy)]
#[repr(align(32))]
pub(crate) struct Line {
    /// A page number, in units of the line's size, or what else is looked for.
    number: u64,
    kind: Kind,
    epoch: Epoch,
    place: Place,
}

impl Line {
    pub(crate) const EMPTY: Self = Self {
        number: 0,
        kind: Kind::NOTHING,
        epoch: Epoch::NEVER,
        place: Place::NOWHERE,
    };

    #[inline]
    pub(crate) const fn new(key: Key, number: u64, place: Place) -> Self {
        Self {
            number,
            kind: key.kind,
            epoch: key.epoch,
            place,
        }
    }

    /// One comparison for all that must agree.
    #[inline]
    pub(crate) fn is(&self, key: Key, number: u64, mask: u64) -> bool {
        let differ = ((self.number ^ number) & mask)
            | u64::from(self.kind.0 ^ key.kind.0)
            | u64::from(self.epoch.0 ^ key.epoch.0);
        differ == 0
    }

    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) const fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    #[inline]
    pub(crate) const fn place(&self) -> Place {
        self.place
    }
}

/// A direct-mapped array of lines, of whose numbers the bits of `MASK` count. Where a line is does not depend
/// on the attributes of its kind.
pub(crate) struct Lines<const COUNT: usize, const MASK: u64>(Box<[Line; COUNT]>);

impl<const COUNT: usize, const MASK: u64> Lines<COUNT, MASK> {
    const POWER_OF_TWO: () = assert!(COUNT.is_power_of_two());

    pub(crate) fn new() -> Self {
        const { Self::POWER_OF_TWO };
        Self(Box::new([Line::EMPTY; COUNT]))
    }

    #[inline]
    fn index(whose: Whose, number: u64) -> usize {
        let spread = number.wrapping_add(u64::from(whose.get()).wrapping_mul(TAG_STRIDE));
        // The lower half is as good, and the length is a power of two.
        usize::try_from(spread).unwrap_or_default() % COUNT
    }

    #[inline]
    pub(crate) fn find(&self, key: Key, number: u64) -> Option<&Line> {
        let line = &self.0[Self::index(key.kind.whose(), number)];
        line.is(key, number, MASK).then_some(line)
    }

    #[inline]
    pub(crate) fn put(&mut self, line: Line) {
        self.0[Self::index(line.kind.whose(), line.number & MASK)] = line;
    }

    /// Forgets what is cached of a tag between two numbers, whatever else its attributes are.
    pub(crate) fn remove(&mut self, whose: Whose, first: u64, last: u64, cached: Cached) {
        let gone = |line: &Line| {
            line.kind.whose() == whose
                && cached.includes(line.kind.keeper())
                && (first..=last).contains(&(line.number & MASK))
        };
        if last - first < FEW {
            for number in first..=last {
                let line = &mut self.0[Self::index(whose, number)];
                if gone(line) {
                    *line = Line::EMPTY;
                }
            }
        } else {
            for line in self.0.iter_mut().filter(|line| gone(line)) {
                *line = Line::EMPTY;
            }
        }
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = &Line> {
        self.0.iter().filter(|line| line.kind != Kind::NOTHING)
    }

    pub(crate) fn clear(&mut self) {
        self.0.fill(Line::EMPTY);
    }
}

/// A port's private cache of translations for reads, or for writes: what is in it may be accessed
/// so, and where that marks tables, they are marked.
pub(crate) struct Tlb {
    small: Lines<SMALL_LINES, { u64::MAX }>,
    large: Lines<LARGE_LINES, { u64::MAX }>,
    /// Whether a piece of 2 MiB was ever cached: where tables have pages of 4 KiB alone, none is looked for.
    has_large: bool,
}

/// The memory at an address, to the end of its page.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    /// Where the address is.
    pub(crate) place: Place,
    /// How much of the page follows, in bytes; not 0.
    pub(crate) left_bytes: u64,
}

impl Found {
    /// An address of a page that lies at a place.
    #[inline]
    pub(crate) const fn within(page: Place, at: Iova, size: PageSize) -> Self {
        let offset_bytes = at.get() & (size.bytes() - 1);
        Self {
            place: page.after(offset_bytes),
            left_bytes: size.bytes() - offset_bytes,
        }
    }
}

impl Tlb {
    pub(crate) fn new() -> Self {
        Self {
            small: Lines::new(),
            large: Lines::new(),
            has_large: false,
        }
    }

    #[inline]
    pub(crate) fn find(&self, key: Key, at: Iova) -> Option<Found> {
        let small = at.get() >> PAGE_SHIFT;
        if let Some(line) = self.small.find(key, small) {
            return Some(Found::within(line.place, at, PageSize::Size4K));
        }
        if !self.has_large {
            return None;
        }
        let large = at.get() >> PageSize::Size2M.shift();
        let line = self.large.find(key, large)?;
        Some(Found::within(line.place, at, PageSize::Size2M))
    }

    /// Caches the place of a page of 4 KiB or a piece of 2 MiB.
    #[inline]
    pub(crate) fn put(&mut self, key: Key, at: Iova, page: Place, size: PageSize) {
        let line = Line::new(key, at.get() >> size.shift(), page);
        match size {
            PageSize::Size4K => self.small.put(line),
            _ => {
                self.has_large = true;
                self.large.put(line);
            }
        }
    }

    /// Forgets pages, and the pieces that they are in.
    pub(crate) fn remove(&mut self, pages: Pages, cached: Cached) {
        let shift = PageSize::Size2M.shift() - PAGE_SHIFT;
        self.small
            .remove(pages.whose, pages.first, pages.last, cached);
        let (first, last) = (pages.first >> shift, pages.last >> shift);
        self.large.remove(pages.whose, first, last, cached);
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = &Line> {
        self.small.lines().chain(self.large.lines())
    }

    pub(crate) fn clear(&mut self) {
        self.small.clear();
        self.large.clear();
        self.has_large = false;
    }
}
