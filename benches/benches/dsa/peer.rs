use std::hint::black_box;

use anyhow::{Result, ensure};
use crc_fast::{CrcAlgorithm, checksum};
use vm_memory::VolatileSlice;

use crate::Runner;
use crate::layout::{Ground, Job, Layout, index};
use crate::work::Work;

/// Copies between host addresses that are known, in the tenant's memory.
pub(crate) struct Memcpy<'a> {
    pieces: Vec<(VolatileSlice<'a>, VolatileSlice<'a>)>,
}

impl<'a> Memcpy<'a> {
    pub(crate) fn new(ground: &'a Ground, layout: &Layout) -> Result<Self> {
        let len = index(layout.len_bytes.into());
        let mut pieces = Vec::new();
        for job in layout.trace() {
            let slice = |iova| ground.slice(layout.place(iova) as u64, len);
            pieces.push((slice(job.from)?, slice(job.to)?));
        }
        Ok(Self { pieces })
    }
}

impl Runner for Memcpy<'_> {
    fn pass(&mut self) -> Result<usize> {
        for (from, to) in &self.pieces {
            from.copy_to_volatile_slice(*to);
        }
        Ok(self.pieces.len())
    }
}

/// The same work in memory that nobody else has: safe code has no `memset` and no `memcmp` for other memory.
pub(crate) struct Private {
    work: Work,
    data: Vec<u8>,
    jobs: Vec<(usize, usize)>,
    len: usize,
}

impl Private {
    pub(crate) fn new(ground: &Ground, layout: &Layout, work: Work) -> Self {
        let jobs = layout.trace();
        let (data, _) = work.data(layout, &jobs, &ground.image);
        let place = |job: &Job| (layout.place(job.from), layout.place(job.to));
        Self {
            work,
            data,
            jobs: jobs.iter().map(place).collect(),
            len: index(layout.len_bytes.into()),
        }
    }
}

impl Runner for Private {
    fn pass(&mut self) -> Result<usize> {
        let Self { data, len, .. } = self;
        let len = *len;
        for &(from, to) in &self.jobs {
            match self.work {
                Work::Move => data.copy_within(from..from + len, to),
                Work::Fill => black_box(&mut data[to..to + len]).fill(black_box(0x5a)),
                Work::Compare => {
                    let both = (&data[from..from + len], &data[to..to + len]);
                    let (one, other) = black_box(both);
                    ensure!(one == other, "what was compared differs");
                }
                Work::Crc => {
                    let source = black_box(&data[from..from + len]);
                    black_box(checksum(CrcAlgorithm::Crc32Iscsi, source));
                }
            }
        }
        Ok(self.jobs.len())
    }
}
