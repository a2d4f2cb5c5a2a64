//! Bytes that travel from buffer to buffer, each step by another process.

use super::{
    WorkloadOutcome, WorkloadPlan,
    chunks::{Chunk, cut},
};
use crate::{
    accelerator::Devices,
    buffer::{Buffer, Layout},
    copy::{Copy, InFlight, MissingPage, Submitted},
    error::DriverError,
    guest::Guest,
    kernel::Kernel,
    page_table::Rights,
    pattern::Pattern,
    tenant::Tenant,
    wait::{LIMIT, Patience},
};
use palisade_units::{Bdf, GuestPasid, Iova, PAGE_BYTES};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Where a process sees the buffer that it reads, and the one that it writes. Both lie at another address in each process.
const SOURCE_AT: u64 = 0x10_0000_0000;
const DESTINATION_AT: u64 = 0x20_0000_0000;
const APART: u64 = 0x1_0000_0000;
const PIECE: usize = 64 << 10;

/// One step: what a process reads and where it writes.
#[derive(Clone, Copy)]
struct Step {
    process: GuestPasid,
    from: Iova,
    to: Iova,
}

impl Tenant {
    /// Rounds of: a new pattern into the first buffer; process 1 copies it to the second, process 2 to the third, process 3 to the
    /// fourth, all buffers but the first compared.
    pub(super) fn copy_through(
        &mut self,
        bdf: Bdf,
        processes: [GuestPasid; 3],
        plan: &WorkloadPlan,
        outcome: &mut WorkloadOutcome,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), DriverError> {
        let (accelerator, kernel) = &mut self.devices_and_kernel(bdf)?;
        let buffer_bytes = plan.buffer_bytes.max(1).next_multiple_of(PAGE_BYTES);
        let plan = WorkloadPlan {
            buffer_bytes,
            ..*plan
        };
        let buffers = Buffers::new(kernel, buffer_bytes, processes)?;
        let done = buffers.rounds(accelerator, kernel, &plan, outcome, progress);
        let released = buffers.release(kernel);
        done.and(released)
    }
}

/// Four buffers and the three processes between them.
struct Buffers {
    buffers: Vec<Buffer>,
    steps: Vec<Step>,
}

impl Buffers {
    fn new(
        kernel: &mut Kernel,
        len_bytes: u64,
        processes: [GuestPasid; 3],
    ) -> Result<Self, DriverError> {
        let mut all = Self {
            buffers: Vec::new(),
            steps: Vec::new(),
        };
        match all.fill(kernel, len_bytes, processes) {
            Ok(()) => Ok(all),
            Err(error) => {
                all.release(kernel)?;
                Err(error)
            }
        }
    }

    fn fill(
        &mut self,
        kernel: &mut Kernel,
        len_bytes: u64,
        processes: [GuestPasid; 3],
    ) -> Result<(), DriverError> {
        for _ in 0..=processes.len() {
            self.buffers
                .push(Buffer::new(kernel.guest_mut(), len_bytes, Layout::Mixed)?);
        }
        for ((process, pair), apart) in processes
            .into_iter()
            .zip(self.buffers.windows(2))
            .zip((0..).step_by(1 << 32))
        {
            let step = Step {
                process,
                from: Iova::new(SOURCE_AT + apart),
                to: Iova::new(DESTINATION_AT + 3 * APART - apart),
            };
            let (process, guest) = kernel.process_and_guest(process)?;
            process.map(guest, step.from, &pair[0], Rights::ReadOnly)?;
            self.steps.push(step);
            process.map(guest, step.to, &pair[1], Rights::ReadWrite)?;
        }
        Ok(())
    }

    fn rounds(
        &self,
        accelerator: &mut Devices<'_>,
        kernel: &mut Kernel,
        plan: &WorkloadPlan,
        outcome: &mut WorkloadOutcome,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), DriverError> {
        let mut plain = PlainMemory::new(plan.buffer_bytes);
        let steps = self.steps.len() as u64;
        let longest = accelerator.max_transfer_bytes();
        let chunks = |round| cut(plan.buffer_bytes, longest, round);
        // The first round is verified and not counted: in it the host's pages come in, as those of the
        // processor's own buffers have.
        self.round(accelerator, kernel, plan, &chunks(0), 0, &mut |_| {})?;
        let mut round = 0;
        while outcome.copied_bytes < plan.copy_bytes {
            round += 1;
            let chunks = chunks(round);
            let before = outcome.copied_bytes;
            let mut tell = |bytes: u64| progress((before + bytes).min(plan.copy_bytes));
            outcome.copying += self.round(accelerator, kernel, plan, &chunks, round, &mut tell)?;
            outcome.copied_bytes += steps * plan.buffer_bytes;
            outcome.descriptors += steps * chunks.len() as u64;
            for _ in 0..steps {
                outcome.memcpy += plain.copy(&chunks);
                outcome.memcpy_bytes += plan.buffer_bytes;
            }
        }
        Ok(())
    }

    /// A new pattern from the first buffer to the last, all of them compared; returns how long the copies took.
    fn round(
        &self,
        accelerator: &mut Devices<'_>,
        kernel: &mut Kernel,
        plan: &WorkloadPlan,
        chunks: &[Chunk],
        number: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Duration, DriverError> {
        let pattern = Pattern(plan.seed.wrapping_mul(0x1_0001).wrapping_add(number));
        fill(kernel.guest(), &self.buffers[0], pattern)?;
        // With a queue for each process all steps go on at once; otherwise one after the other.
        let together = if usize::from(accelerator.queues()) >= self.steps.len() {
            self.steps.len()
        } else {
            1
        };
        let mut time = Duration::ZERO;
        let mut done = 0;
        for steps in self.steps.chunks(together.max(1)) {
            let mut tell = |bytes: u64| progress(done + bytes);
            time += run(
                accelerator,
                kernel,
                steps,
                chunks,
                plan.outstanding,
                &mut tell,
            )?;
            done += steps.len() as u64 * plan.buffer_bytes;
        }
        for (number, buffer) in self.buffers.iter().enumerate().skip(1) {
            verify(kernel.guest(), buffer, pattern, || {
                format!("buffer {number}")
            })?;
        }
        Ok(time)
    }

    fn release(self, kernel: &mut Kernel) -> Result<(), DriverError> {
        let len_bytes = self.buffers.first().map_or(0, Buffer::len_bytes);
        for step in &self.steps {
            kernel.unmap(step.process, step.from, len_bytes)?;
            kernel.unmap(step.process, step.to, len_bytes)?;
        }
        for buffer in self.buffers {
            buffer.release(kernel.guest_mut());
        }
        Ok(())
    }
}

/// Takes every chunk through all steps, as many at a time as the queues hold; returns how long it took.
fn run(
    accelerator: &mut Devices<'_>,
    kernel: &mut Kernel,
    steps: &[Step],
    chunks: &[Chunk],
    outstanding: usize,
    progress: &mut dyn FnMut(u64),
) -> Result<Duration, DriverError> {
    let bdf = accelerator.bdf();
    let queues = steps
        .iter()
        .map(|step| accelerator.queue_for(step.process, kernel))
        .collect::<Result<Vec<u8>, _>>()?;
    let most = outstanding.clamp(1, usize::from(accelerator.queue_size()).max(1));
    // A copy's number is its chunk's times the number of steps plus its step's.
    let mut ready: Vec<VecDeque<usize>> = vec![VecDeque::new(); steps.len()];
    ready[0].extend(0..chunks.len());
    let mut flight = InFlight::default();
    let mut done_bytes = 0;
    let mut patience = Patience::new(LIMIT);
    let begin = Instant::now();
    loop {
        for (number, step) in steps.iter().enumerate() {
            let queue = queues[number];
            while flight.on_queue(queue) < most {
                let Some(chunk) = ready[number].front().copied() else {
                    break;
                };
                let copy = copy_of(step, chunks[chunk]);
                let id = chunk * steps.len() + number;
                if flight.submit(accelerator, kernel, queue, id, copy)? == Submitted::NoRecord {
                    break;
                }
                ready[number].pop_front();
            }
        }
        accelerator.flush()?;
        if flight.is_empty() {
            return Ok(begin.elapsed());
        }
        let ended = flight.reap(kernel, |id, copy, completion| {
            if !completion.status.is_success() {
                return Err(DriverError::Copy {
                    bdf,
                    from: copy.from,
                    to: copy.to,
                    len_bytes: copy.len_bytes.into(),
                    status: completion.status.0,
                });
            }
            done_bytes += u64::from(copy.len_bytes);
            if let Some(next) = ready.get_mut(id % steps.len() + 1) {
                next.push_back(id / steps.len());
            }
            Ok(())
        })?;
        if ended > 0 {
            progress(done_bytes);
            patience.progressed();
        } else {
            if patience.is_resting() {
                accelerator.take_all_events(kernel)?;
                kernel.serve()?;
            }
            patience.pause(|| flight.describe())?;
        }
    }
}

fn copy_of(step: &Step, chunk: Chunk) -> Copy {
    Copy {
        process: step.process,
        from: Iova::new(step.from.get() + chunk.offset),
        to: Iova::new(step.to.get() + chunk.offset),
        len_bytes: chunk.len_bytes,
        missing: MissingPage::End,
    }
}

fn fill(guest: &Guest, buffer: &Buffer, pattern: Pattern) -> Result<(), DriverError> {
    let mut piece = vec![0; PIECE];
    for offset in (0..buffer.len_bytes()).step_by(PIECE) {
        let piece = clip(&mut piece, buffer.len_bytes() - offset);
        pattern.fill(offset, piece);
        buffer.write(guest, offset, piece)?;
    }
    Ok(())
}

fn verify(
    guest: &Guest,
    buffer: &Buffer,
    pattern: Pattern,
    what: impl Fn() -> String,
) -> Result<(), DriverError> {
    let mut piece = vec![0; PIECE];
    for offset in (0..buffer.len_bytes()).step_by(PIECE) {
        let piece = clip(&mut piece, buffer.len_bytes() - offset);
        buffer.read(guest, offset, piece)?;
        if let Some(difference) = pattern.difference(offset, piece) {
            return Err(DriverError::mismatch(what(), difference));
        }
    }
    Ok(())
}

fn clip(piece: &mut [u8], left_bytes: u64) -> &mut [u8] {
    let len = piece
        .len()
        .min(usize::try_from(left_bytes).unwrap_or(usize::MAX));
    &mut piece[..len]
}

/// Two buffers of the driver's own, for the comparison with what the processor can.
struct PlainMemory {
    from: Vec<u8>,
    to: Vec<u8>,
}

impl PlainMemory {
    fn new(len_bytes: u64) -> Self {
        let len = usize::try_from(len_bytes).unwrap_or(0);
        Self {
            from: vec![0x5a; len],
            to: vec![0xa5; len],
        }
    }

    /// Copies all chunks; returns how long it took.
    fn copy(&mut self, chunks: &[Chunk]) -> Duration {
        let begin = Instant::now();
        for chunk in chunks {
            let start = usize::try_from(chunk.offset).unwrap_or(usize::MAX);
            let end = start.saturating_add(chunk.len_bytes as usize);
            if let (Some(to), Some(from)) = (self.to.get_mut(start..end), self.from.get(start..end))
            {
                to.copy_from_slice(from);
            }
        }
        std::hint::black_box(&mut self.to);
        begin.elapsed()
    }
}
