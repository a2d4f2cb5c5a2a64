use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::Result;
use palisade_benches::Random;
use palisade_memory::Backing;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

pub(crate) const PAGE_BYTES: u64 = 4096;
/// How much memory the data lies in: sources in the lower half, targets in the upper.
pub(crate) const DATA_BYTES: u64 = 4 << 20;
/// Tables stand above the data.
pub(crate) const MEMORY_BYTES: u64 = DATA_BYTES + (1 << 20);
const HALF_BYTES: u64 = DATA_BYTES / 2;
/// Above 4 GiB, so that an IOVA is no address of memory.
const FIRST_IOVA: u64 = 1 << 40;

/// A copy from one IOVA to another, of as many bytes as its layout says.
#[derive(Clone, Copy)]
pub(crate) struct Job {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// A part of a copy whose both sides are contiguous in memory: addresses of memory, and a length.
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) len_bytes: u64,
}

/// Where each IOVA page lies, and how long copies are. The first half of the pages is copied from, the
/// second is copied to.
pub(crate) struct Layout {
    /// Address of a page of memory for each IOVA page.
    pages: Vec<u64>,
    pub(crate) len_bytes: u64,
}

impl Layout {
    /// So many IOVA pages on each side, which share so many pages of memory that do not follow each
    /// other.
    pub(crate) fn scattered(iova_pages: usize, data_pages: usize, len_bytes: u64) -> Self {
        let mut random = Random::new(10);
        let mut pages = Vec::with_capacity(2 * iova_pages);
        for side in [0, HALF_BYTES] {
            let places = (side..side + HALF_BYTES).step_by(index(2 * PAGE_BYTES));
            let mut places: Vec<u64> = places.collect();
            random.choose(&mut places, data_pages);
            places.truncate(data_pages);
            pages.extend(places.iter().cycle().take(iova_pages));
        }
        Self { pages, len_bytes }
    }

    /// As many pages on each side as one copy needs, one after the other.
    pub(crate) fn contiguous(len_bytes: u64) -> Self {
        let side = |start: u64| (start..start + len_bytes).step_by(index(PAGE_BYTES));
        let pages = side(0).chain(side(HALF_BYTES)).collect();
        Self { pages, len_bytes }
    }

    /// Pairs of IOVA and address of memory.
    pub(crate) fn mappings(&self) -> impl Iterator<Item = (u64, u64)> {
        let iovas = (FIRST_IOVA..).step_by(index(PAGE_BYTES));
        iovas.zip(self.pages.iter().copied())
    }

    /// Copies between random multiples of their length.
    pub(crate) fn trace(&self, random: &mut Random, jobs: usize) -> Vec<Job> {
        let side_bytes = self.pages.len() as u64 / 2 * PAGE_BYTES;
        let mut any = || random.index(index(side_bytes / self.len_bytes)) as u64 * self.len_bytes;
        let job = |_| Job {
            from: FIRST_IOVA + any(),
            to: FIRST_IOVA + side_bytes + any(),
        };
        (0..jobs).map(job).collect()
    }

    /// What a copy is in memory.
    pub(crate) fn pieces(&self, job: Job) -> Vec<Piece> {
        let place = |iova: u64| {
            let offset_bytes = iova - FIRST_IOVA;
            self.pages[index(offset_bytes / PAGE_BYTES)] + offset_bytes % PAGE_BYTES
        };
        let step = self.len_bytes.min(PAGE_BYTES);
        let mut pieces: Vec<Piece> = Vec::new();
        for done in (0..self.len_bytes).step_by(index(step)) {
            let (from, to) = (place(job.from + done), place(job.to + done));
            match pieces.last_mut() {
                Some(last)
                    if last.from + last.len_bytes == from && last.to + last.len_bytes == to =>
                {
                    last.len_bytes += step;
                }
                _ => pieces.push(Piece {
                    from,
                    to,
                    len_bytes: step,
                }),
            }
        }
        pieces
    }
}

/// The memory that everyone copies in.
pub(crate) struct Ground {
    fd: Arc<OwnedFd>,
    mapped: GuestMemoryMmap<()>,
    /// What its data is before anything was copied.
    image: Vec<u8>,
}

impl Ground {
    pub(crate) fn new() -> Result<Self> {
        let fd = Arc::new(memfd_create("bench", MemfdFlags::CLOEXEC)?);
        ftruncate(&fd, MEMORY_BYTES)?;
        let mut random = Random::new(12);
        let words = (0..DATA_BYTES / 8).flat_map(|_| random.next_u64().to_ne_bytes());
        let image = words.collect();
        let mapped = map(&fd)?;
        Ok(Self { fd, mapped, image })
    }

    /// A mapping for ours.
    pub(crate) fn backing(&self) -> Backing {
        Backing::new(Arc::clone(&self.fd), 0)
    }

    /// A mapping for a peer.
    pub(crate) fn mapping(&self) -> Result<GuestMemoryMmap<()>> {
        map(&self.fd)
    }

    /// The mapping that is here anyway.
    pub(crate) fn mapped(&self) -> &GuestMemoryMmap<()> {
        &self.mapped
    }

    pub(crate) fn reset(&self) -> Result<()> {
        Ok(self.mapped.write_slice(&self.image, GuestAddress(0))?)
    }

    /// Whether the data is what a trace makes of it.
    pub(crate) fn holds(&self, layout: &Layout, trace: &[Job]) -> Result<bool> {
        let mut expected = self.image.clone();
        for piece in trace.iter().flat_map(|job| layout.pieces(*job)) {
            let from = index(piece.from);
            expected.copy_within(from..from + index(piece.len_bytes), index(piece.to));
        }
        let mut found = vec![0; expected.len()];
        self.mapped.read_slice(&mut found, GuestAddress(0))?;
        Ok(found == expected)
    }
}

fn map(fd: &OwnedFd) -> Result<GuestMemoryMmap<()>> {
    let file = FileOffset::new(File::from(fd.try_clone()?), 0);
    let range = (GuestAddress(0), index(MEMORY_BYTES), Some(file));
    Ok(GuestMemoryMmap::from_ranges_with_files([range])?)
}

/// All numbers here are below those of the memory's length.
pub(crate) fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
