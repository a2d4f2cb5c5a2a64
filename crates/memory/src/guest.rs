use crate::budget::{Budget, Charge};
use crate::dirty::{DirtyError, DirtyLog, DirtyRange};
use crate::region::Region;
use crate::{Backing, HostSlice, MapError, MemoryError, Protection, Snapshot, barrier};
use arc_swap::ArcSwap;
use palisade_units::Gpa;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use zerocopy::FromBytes;

/// How much a space may hold. Mappings and addresses of the process are finite and all tenants
/// share them, so none may take them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most regions at a time. Linux gives a process 65,530 mappings unless told otherwise.
    pub regions: usize,
    /// The most bytes at a time. A process has 2^47 bytes of addresses.
    pub bytes: u64,
}

impl Limits {
    /// 1024 regions of 4 TiB together: ten times what a large VM uses.
    pub const DEFAULT: Self = Self {
        regions: 1024,
        bytes: 1 << 42,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// One space of guest-physical addresses. Clones are handles of the same space.
///
/// The accesses here are for one thing at a time (a table entry, a queue's descriptor). They may
/// cross from one region to the next, and touch nothing if part of the range is not mapped; one of no
/// bytes succeeds anywhere. Whoever comes back to the same memory takes a [`HostSlice`] by
/// [`GuestMemory::page`].
#[derive(Clone)]
pub struct GuestMemory {
    space: Arc<Space>,
}

struct Space {
    /// Accesses borrow the `Epoch`; snapshots for keeps hold what is inside. So a change can wait for
    /// accesses to end, and does not wait for snapshots.
    epoch: ArcSwap<Epoch>,
    generation: AtomicU64,
    /// Held over each change. What is charged for each region, by where that starts.
    changes: Mutex<Charges>,
    limits: Limits,
    /// What is shared with other spaces.
    budget: Option<Budget>,
    dirty: Arc<DirtyLog>,
}

type Charges = BTreeMap<Gpa, Charge>;

#[derive(Default)]
struct Epoch {
    snapshot: Arc<Snapshot>,
}

impl GuestMemory {
    /// A space without memory, under [`Limits::DEFAULT`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(Limits::DEFAULT)
    }

    /// A space without memory, under limits of its own.
    #[must_use]
    pub fn with_limits(limits: Limits) -> Self {
        Self::made(limits, None)
    }

    /// The same, whose regions count against a budget that it shares with other spaces, too.
    #[must_use]
    pub fn within(limits: Limits, budget: &Budget) -> Self {
        Self::made(limits, Some(budget.clone()))
    }

    fn made(limits: Limits, budget: Option<Budget>) -> Self {
        Self {
            space: Arc::new(Space {
                epoch: ArcSwap::default(),
                generation: AtomicU64::new(0),
                changes: Mutex::default(),
                limits,
                budget,
                dirty: Arc::default(),
            }),
        }
    }

    /// Whether two handles are of the same space.
    #[must_use]
    pub fn is_same_space(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.space, &other.space)
    }

    /// Maps a part of a file at `at`.
    ///
    /// # Errors
    /// [`MapError`]: the range is empty, not made of 4 KiB pages, taken, past the end of the space or
    /// of the file; the file is of the wrong kind or not open for it; a limit is reached.
    pub fn map(
        &self,
        at: Gpa,
        len_bytes: u64,
        backing: Backing,
        protection: Protection,
    ) -> Result<(), MapError> {
        let mut changes = self.begin_change();
        let now = self.snapshot();
        now.check_free(at, len_bytes)?;
        let Limits { regions, bytes } = self.space.limits;
        if now.region_count() >= regions {
            return Err(MapError::TooManyRegions { regions });
        }
        if len_bytes > bytes.saturating_sub(now.len_bytes()) {
            return Err(MapError::TooLarge { bytes });
        }
        let budget = self.space.budget.as_ref();
        let charge = budget.map(|budget| budget.charge(len_bytes)).transpose()?;
        let log = Arc::clone(&self.space.dirty);
        let region = Region::map(at, len_bytes, &backing, protection, log)?;
        if self.space.dirty.is_on() {
            region.begin_log();
        }
        self.publish(&changes, now.with(region));
        changes.extend(charge.map(|charge| (at, charge)));
        Ok(())
    }

    /// Removes the regions that fill the range exactly. When it returns, accesses by this space have
    /// ended that still saw them, and later ones are [`MemoryError::Unmapped`]; slices and snapshots
    /// for keeps are for their holders to drop (R44).
    ///
    /// # Errors
    /// [`MapError::NotFound`] when the range has a hole or cuts a region, and [`MapError::Empty`],
    /// [`MapError::Misaligned`] or [`MapError::Overflow`].
    pub fn unmap(&self, at: Gpa, len_bytes: u64) -> Result<(), MapError> {
        let mut changes = self.begin_change();
        let left = self.snapshot().without(at, len_bytes)?;
        self.publish(&changes, left);
        changes.retain(|start, _| *start < at || start.get() - at.get() >= len_bytes);
        Ok(())
    }

    /// Removes every region in a range, which may have holes, with the same effect as [`GuestMemory::unmap`], and says how
    /// many bytes that were.
    ///
    /// # Errors
    /// [`MapError::NotFound`] when the range cuts a region or has none.
    pub fn unmap_all_in(&self, at: Gpa, len_bytes: u64) -> Result<u64, MapError> {
        let mut changes = self.begin_change();
        let (left, removed) = self.snapshot().without_all_in(at, len_bytes)?;
        self.publish(&changes, left);
        changes.retain(|start, _| *start < at || start.get() - at.get() >= len_bytes);
        Ok(removed)
    }

    /// Removes every region, with the same effect as [`GuestMemory::unmap`].
    pub fn unmap_all(&self) {
        let mut changes = self.begin_change();
        self.publish(&changes, Snapshot::default());
        changes.clear();
    }

    /// Starts to log which pages are written by way of this space: by its own accesses, by slices, and by what
    /// is [`Kept`](crate::Kept). What is written after this returns is logged, also in regions that are mapped
    /// later.
    ///
    /// # Errors
    /// [`DirtyError::Started`].
    pub fn start_dirty_log(&self) -> Result<(), DirtyError> {
        let _changes = self.begin_change();
        self.space.dirty.start()?;
        self.with_snapshot(|it| it.regions().for_each(|region| region.begin_log()));
        // Who found no mark before has written what others see from here on.
        barrier::heavy_or_wait();
        Ok(())
    }

    /// Ends the log, and forgets what is in it. Without one it does nothing. Regions that were written to keep the room
    /// for a later log: 8 KiB for each 256 MiB.
    pub fn stop_dirty_log(&self) {
        let _changes = self.begin_change();
        self.with_snapshot(|it| it.regions().for_each(|region| region.end_log()));
        self.space.dirty.stop();
    }

    /// Takes out of the log which pages of a range were written, as a bit for each page of the size that the
    /// range says, from the lowest bit of the first number on.
    ///
    /// A write that had ended when this was called is in it or in an earlier one; one that had not
    /// is in it or in the next. Pages that were not written may be in it too. What was written to regions
    /// that were unmapped since is kept.
    ///
    /// # Errors
    /// [`DirtyError::NotStarted`].
    pub fn take_dirty(&self, range: DirtyRange) -> Result<Vec<u64>, DirtyError> {
        self.space.dirty.take(range)
    }

    fn begin_change(&self) -> MutexGuard<'_, Charges> {
        // The lock guards no data that a panic could leave half changed.
        self.space
            .changes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `snapshot` the current one and waits for accesses by the one before.
    fn publish(&self, _changes: &MutexGuard<'_, Charges>, snapshot: Snapshot) {
        let next = Epoch {
            snapshot: Arc::new(snapshot),
        };
        let mut last = self.space.epoch.swap(Arc::new(next));
        self.space.generation.fetch_add(1, Ordering::Release);
        // Every access borrows the epoch for the length of one copy, so this ends; and since each
        // change waits, none still has an older epoch.
        while Arc::get_mut(&mut last).is_none() {
            thread::yield_now();
        }
    }

    /// A number that grows with each change, after the change is to be seen and before it is
    /// answered. What was learnt at a number holds while the number does.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.space.generation.load(Ordering::Acquire)
    }

    /// The regions of this moment, for keeps; changes do not wait for it.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.space.epoch.load().snapshot)
    }

    /// Runs several accesses on the regions of one moment, as a table walk wants. Changes to the
    /// space wait for it, so `accesses` must be short and must not itself map or unmap here.
    #[inline]
    pub fn with_snapshot<R>(&self, accesses: impl FnOnce(&Snapshot) -> R) -> R {
        accesses(&self.space.epoch.load().snapshot)
    }

    /// Fills `into` from `at` on.
    ///
    /// Up to 64 bytes, aligned to 8 and a multiple of it (or 1, 2 or 4 aligned bytes), are read in
    /// whole words and in order; longer reads may see a concurrent write in part.
    ///
    /// # Errors
    /// [`MemoryError::Unmapped`], [`MemoryError::Vanished`].
    #[inline]
    pub fn read(&self, at: Gpa, into: &mut [u8]) -> Result<(), MemoryError> {
        self.with_snapshot(|it| it.read(at, into))
    }

    /// Writes all of `from` at `at`; whole words as for [`GuestMemory::read`].
    ///
    /// # Errors
    /// [`MemoryError::Unmapped`], [`MemoryError::ReadOnly`], [`MemoryError::Vanished`].
    #[inline]
    pub fn write(&self, at: Gpa, from: &[u8]) -> Result<(), MemoryError> {
        self.with_snapshot(|it| it.write(at, from))
    }

    /// Reads an object once, as [`GuestMemory::read`] does, to be validated and used as one's own.
    ///
    /// # Errors
    /// As [`GuestMemory::read`].
    #[inline]
    pub fn read_object<T: FromBytes>(&self, at: Gpa) -> Result<T, MemoryError> {
        self.with_snapshot(|it| it.read_object(at))
    }

    /// The 64-bit number at an address that is a multiple of 8; what its writer released is seen.
    ///
    /// # Errors
    /// [`MemoryError::Unmapped`], [`MemoryError::Misaligned`], [`MemoryError::Vanished`].
    #[inline]
    pub fn load_u64(&self, at: Gpa) -> Result<u64, MemoryError> {
        self.with_snapshot(|it| it.load_u64(at))
    }

    /// The 32-bit number at an address that is a multiple of 4; what its writer released is seen.
    ///
    /// # Errors
    /// As [`GuestMemory::load_u64`].
    #[inline]
    pub fn load_u32(&self, at: Gpa) -> Result<u32, MemoryError> {
        self.with_snapshot(|it| it.load_u32(at))
    }

    /// Stores 64 bits at an address that is a multiple of 8, after all writes before it.
    ///
    /// # Errors
    /// As [`GuestMemory::load_u64`], and [`MemoryError::ReadOnly`].
    #[inline]
    pub fn store_u64(&self, at: Gpa, value: u64) -> Result<(), MemoryError> {
        self.with_snapshot(|it| it.store_u64(at, value))
    }

    /// Stores 32 bits at an address that is a multiple of 4, after all writes before it.
    ///
    /// # Errors
    /// As [`GuestMemory::store_u64`].
    #[inline]
    pub fn store_u32(&self, at: Gpa, value: u32) -> Result<(), MemoryError> {
        self.with_snapshot(|it| it.store_u32(at, value))
    }

    /// Puts `new` where `old` is: `Ok(old)` if it was there, else `Err` with what is.
    ///
    /// # Errors
    /// As [`GuestMemory::store_u64`].
    #[inline]
    pub fn compare_exchange_u64(
        &self,
        at: Gpa,
        old: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, MemoryError> {
        self.with_snapshot(|it| it.compare_exchange_u64(at, old, new))
    }

    /// Sets bits, as the accessed and dirty ones of an entry, and gives what was there before.
    ///
    /// # Errors
    /// As [`GuestMemory::store_u64`].
    #[inline]
    pub fn fetch_or_u64(&self, at: Gpa, bits: u64) -> Result<u64, MemoryError> {
        self.with_snapshot(|it| it.fetch_or_u64(at, bits))
    }

    /// A range inside one region, for keeps.
    ///
    /// # Errors
    /// [`MemoryError::Unmapped`], also where the range runs on into another region.
    #[inline]
    pub fn page(&self, at: Gpa, len_bytes: u64) -> Result<HostSlice, MemoryError> {
        self.with_snapshot(|it| it.page(at, len_bytes))
    }
}

impl Default for GuestMemory {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for GuestMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_snapshot(|it| {
            f.debug_struct("GuestMemory")
                .field("regions", &it.region_count())
                .field("len_bytes", &it.len_bytes())
                .field("generation", &self.generation())
                .finish()
        })
    }
}
