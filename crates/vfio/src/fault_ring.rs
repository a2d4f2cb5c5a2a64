//! Faults and page requests for a VMM that takes them from shared memory.
//!
//! | bytes of the region | what | who writes |
//! |---|---|---|
//! | 0 | u32 head: how many were put in | the ring |
//! | 4 | u32 tail: how many were taken out | the VMM |
//! | 8 | u32 number of entries (512), u32 bytes of each (64) | the ring |
//! | 16 | u64 faults that found no room | the ring |
//! | 4096 | the entries; entry n stands at n modulo 512 | the ring |
//!
//! Head and tail go round at 2^32. The ring keeps a head of its own and reads back nothing but the
//! tail, so what else a VMM writes harms only what it reads itself.

use std::io;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

use palisade_iommu::{Fault, PageRequest, QueueFull, Sink};
use palisade_memory::{Backing, MemoryError, SharedMemory};

use crate::FaultRecord;
use crate::abi::layout::RING_ENTRIES;
use crate::fault_record::WORDS;

const HEAD: u64 = 0;
const TAIL: u64 = 4;
const SHAPE: u64 = 8;
const LOST: u64 = 16;
const ENTRIES: u64 = RING_ENTRIES;
const COUNT: u32 = 512;
const ENTRY_BYTES: u32 = 64;
const _: () = assert!(WORDS * 8 == 64, "an entry is 64 bytes");
const REGION_BYTES: u64 = ENTRIES + COUNT as u64 * ENTRY_BYTES as u64;

/// Wakes who takes records out of a ring, as an eventfd does. Rung when a record enters a ring that was
/// empty, from the thread that made the access, without a lock of the ring; it must not wait.
pub trait Bell: Send + Sync {
    /// There is something to take.
    fn ring(&self);
}

impl<F: Fn() + Send + Sync> Bell for F {
    fn ring(&self) {
        self();
    }
}

/// A bounded ring of what a tenant is told, in memory that its VMM may map. To be a container's
/// [sink](crate::Container::set_sink).
///
/// A VMM waits for the bell, takes what is between tail and head, then writes the tail, then looks at the
/// head once more before it waits again. A fault that finds no room is counted and dropped; a page
/// request that finds none is refused, so that the platform answers it.
///
/// The tail is the VMM's to write, and any number may stand there. One that is not between the last
/// that made sense and the head is as if it had not been written.
pub struct FaultRing {
    memory: SharedMemory,
    bell: Box<dyn Bell>,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Default)]
struct State {
    head: u32,
    /// The last one that made sense.
    tail: u32,
    lost: u64,
}

impl State {
    fn used(&self) -> u32 {
        self.head.wrapping_sub(self.tail)
    }

    fn accept(&mut self, tail: u32) {
        if tail.wrapping_sub(self.tail) <= self.used() {
            self.tail = tail;
        }
    }
}

impl FaultRing {
    /// How many records it has room for.
    pub const CAPACITY: usize = COUNT as usize;

    /// An empty ring, which rings `bell`.
    ///
    /// # Errors
    /// The kernel's, when it has no memory to share.
    pub fn new(bell: Box<dyn Bell>) -> io::Result<Self> {
        let memory = SharedMemory::create("palisade-faults", REGION_BYTES)?;
        let shape = u64::from(ENTRY_BYTES) << 32 | u64::from(COUNT);
        memory.store_u64(SHAPE, shape).map_err(io::Error::other)?;
        Ok(Self {
            memory,
            bell,
            state: Mutex::default(),
        })
    }

    /// The region, for the VMM to map.
    #[must_use]
    pub fn region(&self) -> Backing {
        self.memory.backing()
    }

    /// The length of the region in bytes.
    #[must_use]
    pub const fn len_bytes(&self) -> u64 {
        REGION_BYTES
    }

    /// How many faults found no room.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.state().lost
    }

    /// Takes the oldest record, for who lives in the same process and maps nothing. What the VMM wrote
    /// over is skipped.
    #[must_use]
    pub fn take(&self) -> Option<FaultRecord> {
        let mut state = self.state();
        self.read_tail(&mut state);
        while state.used() > 0 {
            let record = self.load(state.tail);
            state.tail = state.tail.wrapping_add(1);
            self.memory.slice().store_u32(TAIL, state.tail).ok()?;
            if record.is_some() {
                return record;
            }
        }
        None
    }

    /// Puts a record in; rings where nobody may be looking.
    fn put(&self, record: FaultRecord) -> Result<(), QueueFull> {
        self.put_while(record, || ())
    }

    /// `meanwhile` happens before the record can be seen, when the tail was looked at.
    pub(crate) fn put_while(
        &self,
        record: FaultRecord,
        meanwhile: impl FnOnce(),
    ) -> Result<(), QueueFull> {
        let mut state = self.state();
        self.read_tail(&mut state);
        let was_empty = state.used() == 0;
        if state.used() >= COUNT || self.store(state.head, record).is_err() {
            return Err(QueueFull);
        }
        meanwhile();
        let place = state.head;
        state.head = place.wrapping_add(1);
        // Memory that its VMM took away has no reader to tell.
        if self.memory.slice().store_u32(HEAD, state.head).is_err() {
            return Err(QueueFull);
        }
        // A VMM writes its tail, then looks at the head; this writes the head, then looks at the tail. So
        // one of the two sees the other, and no record waits in a ring whose VMM sleeps.
        fence(Ordering::SeqCst);
        self.read_tail(&mut state);
        let is_alone = state.tail == place;
        drop(state);
        if was_empty || is_alone {
            self.bell.ring();
        }
        Ok(())
    }

    fn read_tail(&self, state: &mut State) {
        if let Ok(tail) = self.memory.load_u32(TAIL) {
            state.accept(tail);
        }
    }

    fn store(&self, index: u32, record: FaultRecord) -> Result<(), MemoryError> {
        for (at, word) in word_offsets(index).zip(record.to_words()) {
            self.memory.store_u64(at, word)?;
        }
        Ok(())
    }

    fn load(&self, index: u32) -> Option<FaultRecord> {
        let mut words = [0; WORDS];
        for (at, word) in word_offsets(index).zip(&mut words) {
            *word = self.memory.load_u64(at).ok()?;
        }
        FaultRecord::from_words(words)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the words of an entry stand in the region; inside of it for every number.
fn word_offsets(index: u32) -> impl Iterator<Item = u64> {
    let entry = ENTRIES + u64::from(index % COUNT) * u64::from(ENTRY_BYTES);
    (entry..entry + u64::from(ENTRY_BYTES)).step_by(8)
}

impl Sink for FaultRing {
    fn fault(&self, fault: Fault) {
        if self.put(FaultRecord::Fault(fault)).is_err() {
            let mut state = self.state();
            state.lost = state.lost.saturating_add(1);
            // The count in this process is right also where the memory is gone.
            let _ = self.memory.store_u64(LOST, state.lost);
        }
    }

    fn page_request(&self, request: PageRequest) -> Result<(), QueueFull> {
        self.put(FaultRecord::PageRequest(request))
    }
}

impl std::fmt::Debug for FaultRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = *self.state();
        write!(
            f,
            "FaultRing({} records, {} lost)",
            state.used(),
            state.lost
        )
    }
}
