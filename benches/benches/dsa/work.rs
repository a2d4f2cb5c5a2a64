use anyhow::{Context, Result, ensure};
use crc_fast::{CrcAlgorithm, checksum};
use palisade_dsa::spec::{CompletionRecord, Descriptor, Status};

use crate::layout::{Job, Layout, index};

/// Of eight different bytes, so that it is no byte repeated.
const PATTERN: u64 = 0x0123_4567_89ab_cdef;

/// What the descriptors of a trace do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Move,
    Fill,
    Compare,
    Crc,
}

impl Work {
    /// The descriptor of a job.
    pub(crate) fn descriptor(self, job: Job, len_bytes: u32) -> Descriptor {
        let Job { from, to } = job;
        match self {
            Self::Move => Descriptor::memory_move(from, to, len_bytes),
            Self::Fill => Descriptor::memory_fill(PATTERN, to, len_bytes),
            // Should they differ, it counts as a failure.
            Self::Compare => Descriptor::compare(from, to, len_bytes).with_expected_result(0),
            Self::Crc => Descriptor::crc(from, len_bytes),
        }
    }

    /// The data before a trace and after it. What is compared is equal.
    pub(crate) fn data(self, layout: &Layout, jobs: &[Job], image: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut after = image.to_vec();
        let len = index(layout.len_bytes.into());
        for job in jobs {
            let (from, to) = (layout.place(job.from), layout.place(job.to));
            match self {
                Self::Move | Self::Compare => after.copy_within(from..from + len, to),
                Self::Fill => {
                    after[to..to + len].copy_from_slice(&PATTERN.to_le_bytes().repeat(len / 8))
                }
                Self::Crc => {}
            }
        }
        let before = if self == Self::Compare {
            after.clone()
        } else {
            image.to_vec()
        };
        (before, after)
    }

    /// Whether a job's record says what it should.
    pub(crate) fn check(
        self,
        layout: &Layout,
        job: Job,
        data: &[u8],
        record: &CompletionRecord,
    ) -> Result<()> {
        let (status, result) = (record.status(), record.result);
        ensure!(
            status == Status::SUCCESS,
            "a descriptor ended with: {status}"
        );
        ensure!(result == 0, "a descriptor had the result {result}");
        if self == Self::Crc {
            let from = layout.place(job.from);
            let source = &data[from..from + index(layout.len_bytes.into())];
            let expected = u32::try_from(checksum(CrcAlgorithm::Crc32Iscsi, source))
                .context("a CRC-32C has 32 bits")?;
            ensure!(record.crc() == expected, "a CRC is wrong");
        }
        Ok(())
    }
}
