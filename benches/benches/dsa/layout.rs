use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::Result;
use palisade_benches::Random;
use palisade_memory::Backing;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice,
};

pub(crate) const PAGE_BYTES: u64 = 4096;
/// How much memory the data lies in: sources in the lower half, targets in the upper.
pub(crate) const DATA_BYTES: u64 = 16 << 20;
const HALF_BYTES: u64 = DATA_BYTES / 2;
/// Lists of descriptors and completion records stand above the data, the lists first.
pub(crate) const DRIVER_BYTES: u64 = 1 << 20;
/// Tables stand above those.
pub(crate) const TABLES: u64 = DATA_BYTES + DRIVER_BYTES;
pub(crate) const MEMORY_BYTES: u64 = TABLES + (1 << 20);
/// Above 4 GiB, so that an IOVA is no address of memory.
const FIRST_IOVA: u64 = 1 << 40;
/// Where the process has lists and records.
pub(crate) const DRIVER_IOVA: u64 = FIRST_IOVA + (1 << 30);
/// How many descriptors a trace has: as many as the largest batch.
pub(crate) const JOBS: usize = 1024;

/// What a descriptor works on: a source and a target, of as many bytes as its layout says.
#[derive(Clone, Copy)]
pub(crate) struct Job {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// Where each IOVA page lies, and how long transfers are. The first half of the pages is read, the second written.
pub(crate) struct Layout {
    /// Address of a page of memory for each IOVA page.
    pages: Vec<u64>,
    /// After how many pages of a side its pages of memory repeat.
    cycle: usize,
    pub(crate) len_bytes: u32,
}

impl Layout {
    /// So many IOVA pages on each side, which share so many pages of memory that do not follow each other.
    pub(crate) fn scattered(iova_pages: usize, cycle: usize, len_bytes: u32) -> Self {
        let mut random = Random::new(13);
        let mut pages = Vec::with_capacity(2 * iova_pages);
        for side in [0, HALF_BYTES] {
            let places = (side..side + HALF_BYTES).step_by(index(2 * PAGE_BYTES));
            let mut places: Vec<u64> = places.collect();
            random.choose(&mut places, cycle);
            places.truncate(cycle);
            pages.extend(places.iter().cycle().take(iova_pages));
        }
        Self {
            pages,
            cycle,
            len_bytes,
        }
    }

    /// As many pages on each side as one transfer needs, one after the other.
    pub(crate) fn contiguous(len_bytes: u32) -> Self {
        let side_bytes = u64::from(len_bytes);
        let side = |start: u64| (start..start + side_bytes).step_by(index(PAGE_BYTES));
        let pages: Vec<u64> = side(0).chain(side(HALF_BYTES)).collect();
        Self {
            cycle: pages.len() / 2,
            pages,
            len_bytes,
        }
    }

    /// Pairs of IOVA and address of memory, of all that a process has.
    pub(crate) fn mappings(&self) -> impl Iterator<Item = (u64, u64)> {
        let step = index(PAGE_BYTES);
        let data = (FIRST_IOVA..).step_by(step).zip(self.pages.iter().copied());
        let driver = (DRIVER_IOVA..).step_by(step);
        data.chain(driver.zip((DATA_BYTES..TABLES).step_by(step)))
    }

    /// Jobs at random multiples of their length. A place of the targets always gets what stands in the same place of
    /// the sources, so that the outcome does not depend on the order, which a queue does not promise.
    pub(crate) fn trace(&self) -> Vec<Job> {
        let mut random = Random::new(14);
        let side_pages = self.pages.len() / 2;
        let len_bytes = u64::from(self.len_bytes);
        let job = |_| {
            let in_cycle = random.index(self.cycle);
            let (mut page, mut offset_bytes) = ([0, 0], 0);
            if len_bytes <= PAGE_BYTES {
                page =
                    [0; 2].map(|_| in_cycle + random.index(side_pages / self.cycle) * self.cycle);
                offset_bytes = random.index(index(PAGE_BYTES / len_bytes)) as u64 * len_bytes;
            }
            let iova = |page: usize| FIRST_IOVA + page as u64 * PAGE_BYTES + offset_bytes;
            Job {
                from: iova(page[0]),
                to: iova(side_pages + page[1]),
            }
        };
        (0..JOBS).map(job).collect()
    }

    /// Where something lies in memory; all of it, since a transfer is within a page or contiguous.
    pub(crate) fn place(&self, iova: u64) -> usize {
        let offset_bytes = iova - FIRST_IOVA;
        index(self.pages[index(offset_bytes / PAGE_BYTES)] + offset_bytes % PAGE_BYTES)
    }
}

/// The memory of a tenant, and the tenant's view of it.
pub(crate) struct Ground {
    fd: Arc<OwnedFd>,
    mapped: GuestMemoryMmap<()>,
    /// What its data is before anything was done.
    pub(crate) image: Vec<u8>,
}

impl Ground {
    pub(crate) fn new() -> Result<Self> {
        let fd = Arc::new(memfd_create("bench", MemfdFlags::CLOEXEC)?);
        ftruncate(&fd, MEMORY_BYTES)?;
        let mut random = Random::new(15);
        let words = (0..DATA_BYTES / 8).flat_map(|_| random.next_u64().to_ne_bytes());
        let image = words.collect();
        let file = FileOffset::new(File::from(fd.try_clone()?), 0);
        let range = (GuestAddress(0), index(MEMORY_BYTES), Some(file));
        let mapped = GuestMemoryMmap::from_ranges_with_files([range])?;
        Ok(Self { fd, mapped, image })
    }

    /// A mapping for the platform.
    pub(crate) fn backing(&self) -> Backing {
        Backing::new(Arc::clone(&self.fd), 0)
    }

    /// A part of memory as the tenant has it mapped.
    pub(crate) fn slice(&self, at: u64, len: usize) -> Result<VolatileSlice<'_>> {
        Ok(GuestMemoryBackend::get_slice(
            &self.mapped,
            GuestAddress(at),
            len,
        )?)
    }

    /// Puts this in the place of all data.
    pub(crate) fn load(&self, data: &[u8]) -> Result<()> {
        Ok(self.mapped.write_slice(data, GuestAddress(0))?)
    }

    /// Whether the data is this.
    pub(crate) fn holds(&self, data: &[u8]) -> Result<bool> {
        let mut found = vec![0; data.len()];
        self.mapped.read_slice(&mut found, GuestAddress(0))?;
        Ok(found == data)
    }
}

/// All numbers here are below those of the memory's length.
pub(crate) fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
