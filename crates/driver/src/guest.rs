//! A guest: its physical memory, and which frames of it are in use.

use crate::{
    error::DriverError,
    physical::{Frame, PhysicalAllocator},
};
use palisade_memory::{Backing, MemoryError, SharedMemory};
use palisade_units::{Gpa, PAGE_BYTES, PageSize};

/// The most memory a guest can have: interrupt messages go to 0xFEE0_0000 and above (VT-d §3.14), so no
/// memory stands there.
pub const MAX_MEMORY_BYTES: u64 = 0xfe00_0000;

/// A guest's memory, a file of its own from physical address 0 on, with the allocator of its frames.
#[derive(Debug)]
pub struct Guest {
    memory: SharedMemory,
    frames: PhysicalAllocator,
}

impl Guest {
    /// A guest with `memory_bytes` of memory, rounded up to whole 2 MiB.
    ///
    /// # Errors
    /// [`DriverError::Memory`] when there is too much of it, or the system has none to give.
    pub fn new(memory_bytes: u64) -> Result<Self, DriverError> {
        let large = PageSize::Size2M.bytes();
        let rounded = memory_bytes.div_ceil(large).max(1).saturating_mul(large);
        if rounded > MAX_MEMORY_BYTES {
            return Err(DriverError::Memory(format!(
                "{memory_bytes:#x} bytes would reach the interrupt range: at most {MAX_MEMORY_BYTES:#x}"
            )));
        }
        let memory = SharedMemory::create("palisade-guest", rounded)
            .map_err(|error| DriverError::Memory(error.to_string()))?;
        Ok(Self {
            memory,
            frames: PhysicalAllocator::new(rounded),
        })
    }

    /// The length of the memory in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.memory.len_bytes()
    }

    /// How many bytes of the memory are not in use.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.frames.free_bytes()
    }

    /// The file behind the memory, to be mapped at physical address 0 over a connection.
    #[must_use]
    pub fn backing(&self) -> Backing {
        self.memory.backing()
    }

    /// Takes a frame and fills it with zeros.
    ///
    /// # Errors
    /// [`DriverError::OutOfMemory`].
    pub fn take_zeroed(&mut self, size: PageSize) -> Result<Frame, DriverError> {
        let frame = self.frames.take(size)?;
        self.zero(frame.at, size.bytes())?;
        Ok(frame)
    }

    /// Takes `pages` 4 KiB pages in a row, filled with zeros.
    ///
    /// # Errors
    /// [`DriverError::OutOfMemory`].
    pub fn take_zeroed_run(&mut self, pages: u64) -> Result<Gpa, DriverError> {
        let at = self.frames.take_run(pages)?;
        self.zero(at, pages * PAGE_BYTES)?;
        Ok(at)
    }

    /// Gives a frame back.
    pub fn give_back(&mut self, frame: Frame) {
        self.frames.give_back(frame);
    }

    /// Reads `into.len()` bytes.
    ///
    /// # Errors
    /// [`DriverError::OutsideMemory`].
    pub fn read(&self, at: Gpa, into: &mut [u8]) -> Result<(), DriverError> {
        self.memory
            .read(at.get(), into)
            .map_err(|error| outside(at, error))
    }

    /// Writes all of `from`.
    ///
    /// # Errors
    /// [`DriverError::OutsideMemory`].
    pub fn write(&self, at: Gpa, from: &[u8]) -> Result<(), DriverError> {
        self.memory
            .write(at.get(), from)
            .map_err(|error| outside(at, error))
    }

    /// Loads the eight bytes at `at`, a multiple of eight, at once; later reads of this thread see what was
    /// written before them.
    ///
    /// # Errors
    /// [`DriverError::OutsideMemory`].
    pub fn load_u64(&self, at: Gpa) -> Result<u64, DriverError> {
        self.memory
            .load_u64(at.get())
            .map_err(|error| outside(at, error))
    }

    /// Stores eight bytes at `at`, a multiple of eight, at once, after all earlier writes of this thread.
    ///
    /// # Errors
    /// [`DriverError::OutsideMemory`].
    pub fn store_u64(&self, at: Gpa, value: u64) -> Result<(), DriverError> {
        self.memory
            .store_u64(at.get(), value)
            .map_err(|error| outside(at, error))
    }

    /// Replaces the eight bytes at `at` by `change` of them, at once, however often others write there
    /// meanwhile; returns what was there before.
    ///
    /// # Errors
    /// [`DriverError::OutsideMemory`].
    pub fn update_u64(&self, at: Gpa, change: impl Fn(u64) -> u64) -> Result<u64, DriverError> {
        let mut seen = self.load_u64(at)?;
        loop {
            match self
                .memory
                .compare_exchange_u64(at.get(), seen, change(seen))
                .map_err(|error| outside(at, error))?
            {
                Ok(before) => return Ok(before),
                Err(now) => seen = now,
            }
        }
    }

    fn zero(&self, at: Gpa, len_bytes: u64) -> Result<(), DriverError> {
        self.memory
            .fill(at.get(), len_bytes, 0)
            .map_err(|error| outside(at, error))
    }
}

fn outside(at: Gpa, error: MemoryError) -> DriverError {
    tracing::debug!(%at, %error, "an access outside the guest's memory");
    DriverError::OutsideMemory { at }
}
