use crate::region::{Region, guest_len, host_len};
use crate::span::Span;
use crate::{MemoryError, Protection, Snapshot};
use palisade_units::Gpa;
use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;

/// Snapshots that one thread keeps, with their regions under small numbers: what a translation cache
/// stands on.
///
/// A [`HostSlice`](crate::HostSlice) counts its region's holders, which many threads write. Here the
/// snapshot is counted once, and a [`Place`] is two plain numbers. As with slices, what is kept goes on
/// to reach regions that were unmapped since, so its owner must let go of it then (R44).
#[derive(Default)]
pub struct Kept {
    /// `None` where one was let go.
    regions: Vec<Option<Arc<Region>>>,
    snapshots: Vec<Held>,
}

struct Held {
    snapshot: Arc<Snapshot>,
    /// The number of its first region; the others follow in their order.
    first: usize,
}
/// Where a region is, as plain numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    at: u64,
    len_bytes: u64,
    /// Where it starts.
    place: Place,
}

impl Extent {
    /// Of a snapshot whose first region has a number.
    fn largest_of(snapshot: &Snapshot, first: usize) -> Self {
        let numbered = snapshot.regions().zip(first..);
        let largest = numbered.max_by_key(|(region, _)| region.len_bytes());
        let known = largest.and_then(|(region, number)| {
            Some(Self {
                at: region.at().get(),
                len_bytes: region.len_bytes(),
                place: Place {
                    address: region.base().addr(),
                    region: u32::try_from(number).ok()?,
                },
            })
        });
        known.unwrap_or(Self {
            at: 0,
            len_bytes: 0,
            place: Place::NOWHERE,
        })
    }

    #[inline]
    const fn find(&self, at: Gpa, len_bytes: u64) -> Option<Place> {
        let offset_bytes = at.get().wrapping_sub(self.at);
        if offset_bytes < self.len_bytes && len_bytes <= self.len_bytes - offset_bytes {
            Some(self.place.after(offset_bytes))
        } else {
            None
        }
    }
}

/// One of the snapshots that are kept. Means nothing to another [`Kept`], nor after it
/// was let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptSnapshot {
    number: usize,
    /// Its largest region, where most of what is looked for is.
    largest: Extent,
}

/// A place in a region that is kept. Means nothing to another [`Kept`], nor after it was
/// let go: it is then an error or another place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// In this process. Only with the region, which bounds it, does it become a pointer.
    address: usize,
    region: u32,
}

impl Place {
    /// Where nothing is.
    pub const NOWHERE: Self = Self {
        address: 0,
        region: u32::MAX,
    };

    /// The place so many bytes on.
    #[inline]
    #[must_use]
    pub const fn after(self, bytes: u64) -> Self {
        Self {
            address: self.address.wrapping_add(host_len(bytes)),
            ..self
        }
    }
}

impl Kept {
    /// Keeps nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps a snapshot, once however often it is asked for. Nothing is let go for it: the caller sees
    /// to that when there are many.
    pub fn keep(&mut self, snapshot: &Arc<Snapshot>) -> KeptSnapshot {
        let same = |held: &Held| Arc::ptr_eq(&held.snapshot, snapshot);
        let known = self.snapshots.iter().position(same);
        let number = known.unwrap_or_else(|| self.add(snapshot));
        let first = self.snapshots[number].first;
        KeptSnapshot {
            number,
            largest: Extent::largest_of(snapshot, first),
        }
    }

    fn add(&mut self, snapshot: &Arc<Snapshot>) -> usize {
        self.snapshots.push(Held {
            snapshot: Arc::clone(snapshot),
            first: self.regions.len(),
        });
        let regions = snapshot.regions().map(Arc::clone);
        self.regions.extend(regions.map(Some));
        self.snapshots.len() - 1
    }

    /// How many snapshots and regions are kept, or have been since all were let go.
    #[must_use]
    pub fn len(&self) -> usize {
        self.snapshots.len() + self.regions.len()
    }

    /// Whether nothing was kept since all was let go.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets go of all. Every [`KeptSnapshot`] and [`Place`] is to be forgotten with it.
    pub fn let_go(&mut self) {
        self.regions.clear();
        self.snapshots.clear();
    }

    /// Lets go of all snapshots, and of the regions in which none of the places is. Every
    /// [`KeptSnapshot`] and every other [`Place`] is to be forgotten with it.
    pub fn let_go_except(&mut self, places: impl IntoIterator<Item = Place>) {
        let mut used = vec![false; self.regions.len()];
        for place in places {
            if let Some(used) = used.get_mut(place.region as usize) {
                *used = true;
            }
        }
        let regions = self.regions.iter_mut().zip(used);
        for (region, _) in regions.filter(|(_, used)| !used) {
            *region = None;
        }
        self.snapshots.clear();
    }

    /// A snapshot that is kept.
    #[inline]
    #[must_use]
    pub fn snapshot(&self, kept: KeptSnapshot) -> Option<&Snapshot> {
        self.snapshots.get(kept.number).map(|held| &*held.snapshot)
    }

    /// Where an address of a snapshot lies, if `len_bytes` from there on lie in one region.
    ///
    /// # Errors
    /// [`MemoryError::Unmapped`]; also of the regions after the first 2^32.
    #[inline]
    pub fn find(&self, kept: KeptSnapshot, at: Gpa, len_bytes: u64) -> Result<Place, MemoryError> {
        match kept.largest.find(at, len_bytes) {
            Some(place) => Ok(place),
            None => self.search(kept.number, at, len_bytes),
        }
    }

    #[inline(never)]
    fn search(&self, number: usize, at: Gpa, len_bytes: u64) -> Result<Place, MemoryError> {
        let unmapped = MemoryError::Unmapped { at };
        let held = self.snapshots.get(number).ok_or(unmapped)?;
        let (index, offset_bytes) = held.snapshot.locate(at, len_bytes)?;
        let number = held.first + index;
        let region = self.regions.get(number).and_then(Option::as_ref);
        let start = Place {
            address: region.ok_or(unmapped)?.base().addr(),
            region: u32::try_from(number).map_err(|_| unmapped)?,
        };
        Ok(start.after(offset_bytes))
    }

    /// The memory at a place, for the moment.
    ///
    /// # Errors
    /// [`MemoryError::Unmapped`] past the end of the region.
    #[inline]
    pub fn reach(&self, place: Place, len_bytes: u64) -> Result<Reach<'_>, MemoryError> {
        let Some(Some(region)) = self.regions.get(place.region as usize) else {
            // Where it was is not known any more.
            return Err(MemoryError::Unmapped { at: Gpa::new(0) });
        };
        Span::at_address(region, place.address, len_bytes).map(Reach)
    }

    /// Asks for the line at a place ahead of its use.
    #[inline]
    pub fn prefetch(&self, place: Place) {
        if let Ok(Reach(span)) = self.reach(place, 1) {
            prefetch(span.pointer().cast_const());
        }
    }

    /// The 64-bit number at a place that is a multiple of 8; what its writer released is seen.
    ///
    /// # Errors
    /// [`MemoryError::Unmapped`], [`MemoryError::Misaligned`], [`MemoryError::Vanished`].
    #[inline]
    pub fn load_u64(&self, place: Place) -> Result<u64, MemoryError> {
        let Reach(span) = self.reach(place, 8)?;
        span.load(|word| word.load(Acquire))
    }
}

/// Asks for a line of memory that will be read soon. Has no effect on anything but time.
#[inline]
fn prefetch(pointer: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: 1. Every processor of this architecture has the instruction. 2. It accesses nothing,
        // whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(pointer.cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = pointer;
}

/// A range of bytes in one region, borrowed.
#[derive(Clone, Copy)]
pub struct Reach<'a>(Span<'a>);

impl Reach<'_> {
    /// The length in bytes.
    #[inline]
    #[must_use]
    pub const fn len_bytes(self) -> u64 {
        guest_len(self.0.len())
    }

    /// Whether writes are allowed.
    #[inline]
    #[must_use]
    pub fn is_writable(self) -> bool {
        self.0.protection() == Protection::ReadWrite
    }

    /// Whether they have a byte in common. One file mapped by two regions is two memories to this.
    #[inline]
    #[must_use]
    pub fn overlaps(self, other: Reach<'_>) -> bool {
        let (this, that) = (self.0.pointer().addr(), other.0.pointer().addr());
        this < that + other.0.len() && that < this + self.0.len()
    }

    /// Reads as much as both hold. Whole words as for
    /// [`HostSlice::read`](crate::HostSlice::read).
    ///
    /// # Errors
    /// [`MemoryError::Vanished`].
    #[inline]
    pub fn read(self, into: &mut [u8]) -> Result<(), MemoryError> {
        self.0.read(into)
    }

    /// Writes as much as both hold. Whole words as for
    /// [`HostSlice::read`](crate::HostSlice::read).
    ///
    /// # Errors
    /// [`MemoryError::ReadOnly`], [`MemoryError::Vanished`].
    #[inline]
    pub fn write(self, from: &[u8]) -> Result<(), MemoryError> {
        self.0.write(from)
    }

    /// Copies as much as both hold, as [`HostSlice::copy_to`](crate::HostSlice::copy_to).
    ///
    /// # Errors
    /// [`MemoryError::ReadOnly`] of `to`, [`MemoryError::Vanished`] of either.
    #[inline]
    pub fn copy_to(self, to: Reach<'_>) -> Result<(), MemoryError> {
        self.0.copy_to(to.0)
    }

    /// Repeats the eight bytes of `pattern`, lowest first, over all of it; the last copy is cut where
    /// the range ends.
    ///
    /// # Errors
    /// As [`Reach::write`].
    pub fn fill_pattern(self, pattern: u64) -> Result<(), MemoryError> {
        let bytes = pattern.to_le_bytes();
        if bytes == [bytes[0]; 8] {
            return self.0.fill(bytes[0]);
        }
        self.0.fill_pattern(bytes)
    }
}
