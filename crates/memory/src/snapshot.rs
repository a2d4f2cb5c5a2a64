use crate::region::{Region, checked_end, guest_len};
use crate::span::Span;
use crate::{HostSlice, MapError, MemoryError};
use palisade_units::Gpa;
use std::mem::MaybeUninit;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use zerocopy::FromBytes;

/// The regions of a space at one moment, and the accesses that one may make by them.
///
/// A snapshot for keeps ([`GuestMemory::snapshot`](crate::GuestMemory::snapshot)) goes on to reach
/// regions that were unmapped since, as a [`HostSlice`] does.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// In the order of their addresses, none overlapping.
    entries: Vec<Entry>,
    /// One of them once more: the one that is tried before all are searched. A guest's memory is one
    /// or two large regions and some small ones, and a guess that the processor predicts costs a
    /// third of a search.
    largest: Option<Largest>,
}

#[derive(Debug)]
struct Largest {
    index: usize,
    entry: Entry,
}

#[derive(Clone, Debug)]
struct Entry {
    start: u64,
    /// Exclusive: a region never ends at the last byte of the space.
    end: u64,
    region: Arc<Region>,
}

impl Snapshot {
    /// The number of regions.
    #[must_use]
    pub fn region_count(&self) -> usize {
        self.entries.len()
    }

    /// The sum of the regions' lengths.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.entries.iter().map(|it| it.end - it.start).sum()
    }

    /// The index of the first region that ends after an address.
    #[inline]
    fn first_after(&self, at: u64) -> usize {
        self.entries.partition_point(|it| it.end <= at)
    }

    fn of(entries: Vec<Entry>) -> Self {
        let largest = entries.iter().enumerate();
        let largest = largest.max_by_key(|(_, it)| it.end - it.start);
        let largest = largest.map(|(index, entry)| Largest {
            index,
            entry: entry.clone(),
        });
        Self { entries, largest }
    }

    #[inline]
    fn entry(&self, at: Gpa) -> Result<&Entry, MemoryError> {
        self.indexed(at).map(|(_, entry)| entry)
    }

    #[inline]
    fn indexed(&self, at: Gpa) -> Result<(usize, &Entry), MemoryError> {
        match &self.largest {
            Some(Largest { index, entry: it }) if it.start <= at.get() && at.get() < it.end => {
                Ok((*index, it))
            }
            _ => self.search(at),
        }
    }

    fn search(&self, at: Gpa) -> Result<(usize, &Entry), MemoryError> {
        let index = self.first_after(at.get());
        let found = self.entries.get(index).filter(|it| it.start <= at.get());
        let found = found.ok_or(MemoryError::Unmapped { at })?;
        Ok((index, found))
    }

    /// The regions in their order.
    pub(crate) fn regions(&self) -> impl Iterator<Item = &Arc<Region>> {
        self.entries.iter().map(|it| &it.region)
    }

    /// The index of the region that holds a range, and where in it the range starts.
    #[inline]
    pub(crate) fn locate(&self, at: Gpa, len_bytes: u64) -> Result<(usize, u64), MemoryError> {
        let (index, entry) = self.indexed(at)?;
        let offset_bytes = at.get() - entry.start;
        entry.region.span(offset_bytes, len_bytes)?;
        Ok((index, offset_bytes))
    }

    /// A range inside one region.
    #[inline]
    fn span(&self, at: Gpa, len_bytes: u64) -> Result<Span<'_>, MemoryError> {
        let entry = self.entry(at)?;
        entry.region.span(at.get() - entry.start, len_bytes)
    }

    /// The parts of a range, each in one region; an error where there is none.
    fn pieces(
        &self,
        at: Gpa,
        len_bytes: u64,
    ) -> impl Iterator<Item = Result<Span<'_>, MemoryError>> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let here = (done < len_bytes).then(|| at.checked_add(done));
            let span = here?.ok_or(MemoryError::Unmapped { at }).and_then(|here| {
                let entry = self.entry(here)?;
                let len = (entry.end - here.get()).min(len_bytes - done);
                entry.region.span(here.get() - entry.start, len)
            });
            done = match span {
                Ok(span) => done + guest_len(span.len()),
                Err(_) => len_bytes,
            };
            Some(span)
        })
    }

    /// See [`GuestMemory::read`](crate::GuestMemory::read).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn read(&self, at: Gpa, into: &mut [u8]) -> Result<(), MemoryError> {
        if into.is_empty() {
            return Ok(());
        }
        match self.span(at, guest_len(into.len())) {
            Ok(span) => span.read(into),
            Err(_) => self.read_across(at, into),
        }
    }

    #[cold]
    fn read_across(&self, at: Gpa, into: &mut [u8]) -> Result<(), MemoryError> {
        let len_bytes = guest_len(into.len());
        self.pieces(at, len_bytes)
            .try_for_each(|piece| piece?.readable())?;
        let mut rest = into;
        for piece in self.pieces(at, len_bytes) {
            let piece = piece?;
            // Pieces add up to the length of the buffer, so none is longer than what is left.
            let (now, later) = rest.split_at_mut(piece.len());
            piece.read(now)?;
            rest = later;
        }
        Ok(())
    }

    /// See [`GuestMemory::write`](crate::GuestMemory::write).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn write(&self, at: Gpa, from: &[u8]) -> Result<(), MemoryError> {
        if from.is_empty() {
            return Ok(());
        }
        match self.span(at, guest_len(from.len())) {
            Ok(span) => span.write(from),
            Err(_) => self.write_across(at, from),
        }
    }

    #[cold]
    fn write_across(&self, at: Gpa, from: &[u8]) -> Result<(), MemoryError> {
        let len_bytes = guest_len(from.len());
        self.pieces(at, len_bytes)
            .try_for_each(|piece| piece?.writable())?;
        let mut rest = from;
        for piece in self.pieces(at, len_bytes) {
            let piece = piece?;
            // Pieces add up to the length of the buffer, so none is longer than what is left.
            let (now, later) = rest.split_at(piece.len());
            piece.write(now)?;
            rest = later;
        }
        Ok(())
    }

    /// See [`GuestMemory::read_object`](crate::GuestMemory::read_object).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn read_object<T: FromBytes>(&self, at: Gpa) -> Result<T, MemoryError> {
        let mut object = MaybeUninit::<T>::uninit();
        // SAFETY: 1. The pointer and the length are those of `object`, all of whose bytes, padding
        // included, are made zero and so initialised in place. 2. The slice is gone before `object`
        // is used again.
        let bytes = unsafe {
            object.as_mut_ptr().write_bytes(0, 1);
            slice::from_raw_parts_mut(object.as_mut_ptr().cast(), size_of::<T>())
        };
        self.read(at, bytes)?;
        // SAFETY: all its bytes are initialised, and `FromBytes` says that any bytes make a `T`.
        Ok(unsafe { object.assume_init() })
    }

    /// See [`GuestMemory::load_u64`](crate::GuestMemory::load_u64).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn load_u64(&self, at: Gpa) -> Result<u64, MemoryError> {
        self.word(at)?.load(|word| word.load(Acquire))
    }

    /// See [`GuestMemory::load_u32`](crate::GuestMemory::load_u32).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn load_u32(&self, at: Gpa) -> Result<u32, MemoryError> {
        self.half(at)?.load_half(|half| half.load(Acquire))
    }

    /// See [`GuestMemory::store_u64`](crate::GuestMemory::store_u64).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn store_u64(&self, at: Gpa, value: u64) -> Result<(), MemoryError> {
        self.word(at)?.update(|word| word.store(value, Release))
    }

    /// See [`GuestMemory::store_u32`](crate::GuestMemory::store_u32).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn store_u32(&self, at: Gpa, value: u32) -> Result<(), MemoryError> {
        self.half(at)?
            .update_half(|half| half.store(value, Release))
    }

    /// See [`GuestMemory::compare_exchange_u64`](crate::GuestMemory::compare_exchange_u64).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn compare_exchange_u64(
        &self,
        at: Gpa,
        old: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, MemoryError> {
        let word = self.word(at)?;
        word.update(|word| word.compare_exchange(old, new, AcqRel, Acquire))
    }

    /// See [`GuestMemory::fetch_or_u64`](crate::GuestMemory::fetch_or_u64).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn fetch_or_u64(&self, at: Gpa, bits: u64) -> Result<u64, MemoryError> {
        self.word(at)?.update(|word| word.fetch_or(bits, AcqRel))
    }

    /// See [`GuestMemory::page`](crate::GuestMemory::page).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn page(&self, at: Gpa, len_bytes: u64) -> Result<HostSlice, MemoryError> {
        let entry = self.entry(at)?;
        HostSlice::new(&entry.region, at.get() - entry.start, len_bytes)
    }

    #[inline]
    fn word(&self, at: Gpa) -> Result<Span<'_>, MemoryError> {
        if !at.get().is_multiple_of(8) {
            return Err(MemoryError::Misaligned { at });
        }
        self.span(at, 8)
    }

    #[inline]
    fn half(&self, at: Gpa) -> Result<Span<'_>, MemoryError> {
        if !at.get().is_multiple_of(4) {
            return Err(MemoryError::Misaligned { at });
        }
        self.span(at, 4)
    }

    /// Whether a range of pages is free.
    pub(crate) fn check_free(&self, at: Gpa, len_bytes: u64) -> Result<(), MapError> {
        let end = checked_end(at, len_bytes)?;
        match self.entries.get(self.first_after(at.get())) {
            Some(it) if it.start < end.get() => Err(MapError::Overlap {
                at: Gpa::new(it.start),
                len_bytes: it.end - it.start,
            }),
            _ => Ok(()),
        }
    }

    /// These regions and one more, whose range is free.
    pub(crate) fn with(&self, region: Region) -> Self {
        let start = region.at().get();
        let entry = Entry {
            start,
            end: start + region.len_bytes(),
            region: Arc::new(region),
        };
        let (before, after) = self
            .entries
            .split_at_checked(self.first_after(start))
            .unwrap_or((&self.entries, &[]));
        Self::of([before, &[entry], after].concat())
    }

    /// These regions less those in a range that cuts none, and how many bytes that were.
    pub(crate) fn without_all_in(&self, at: Gpa, len_bytes: u64) -> Result<(Self, u64), MapError> {
        let end = at.get().saturating_add(len_bytes);
        let missing = MapError::NotFound { at, len_bytes };
        let from = self.first_after(at.get());
        let to = self.entries.partition_point(|it| it.start < end);
        let covered = self.entries.get(from..to).unwrap_or_default();
        let is_cut = |it: &Entry| it.start < at.get() || it.end > end;
        if covered.is_empty() || covered.iter().any(is_cut) {
            return Err(missing);
        }
        let removed = covered.iter().map(|it| it.end - it.start).sum();
        let mut entries = self.entries.clone();
        entries.drain(from..to);
        Ok((Self::of(entries), removed))
    }

    /// These regions less those that fill a range exactly.
    pub(crate) fn without(&self, at: Gpa, len_bytes: u64) -> Result<Self, MapError> {
        let end = checked_end(at, len_bytes)?.get();
        let missing = MapError::NotFound { at, len_bytes };
        let from = self.first_after(at.get());
        let to = self.first_after(end - 1);
        // `to` is the region that holds the last byte, so it goes too.
        let covered = self.entries.get(from..=to).ok_or(missing)?;
        let mut reached = at.get();
        for it in covered {
            if it.start != reached {
                return Err(missing);
            }
            reached = it.end;
        }
        if reached != end {
            return Err(missing);
        }
        let mut entries = self.entries.clone();
        entries.drain(from..=to);
        Ok(Self::of(entries))
    }
}
