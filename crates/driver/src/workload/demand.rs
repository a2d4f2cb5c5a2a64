//! Copies from and to pages that are not there before a device asks for them.

use super::{WorkloadOutcome, WorkloadPlan};
use crate::{
    accelerator::Devices,
    copy::{Copy, InFlight, MissingPage, Submitted},
    error::DriverError,
    kernel::Kernel,
    page_table::Rights,
    pattern::Pattern,
    process::Content,
    tenant::Tenant,
    wait::{LIMIT, Patience},
};
use palisade_units::{Bdf, GuestPasid, Iova, PAGE_BYTES};

/// How many pages one descriptor covers, in turn.
const PAGES: [u64; 4] = [1, 2, 5, 8];
/// How many descriptors may wait for pages at a time; others go on behind them.
const OUTSTANDING: usize = 8;

impl Tenant {
    /// For each process: a range that holds a pattern as soon as it is read, a range for the result, and copies from the one to the
    /// other that wait for their pages. Compared byte by byte.
    pub(super) fn copy_on_demand(
        &mut self,
        bdf: Bdf,
        processes: [GuestPasid; 3],
        plan: &WorkloadPlan,
        outcome: &mut WorkloadOutcome,
    ) -> Result<(), DriverError> {
        let len_bytes = plan.lazy_pages * PAGE_BYTES;
        if len_bytes == 0 {
            return Ok(());
        }
        let before = self.kernel.requests().served;
        for (process, seed) in processes.into_iter().zip(0x1a2_0000_u64..) {
            let pattern = Pattern(seed ^ plan.seed.rotate_left(32));
            let from = self.fresh_range(len_bytes);
            let to = self.fresh_range(len_bytes);
            let (accelerator, kernel) = &mut self.devices_and_kernel(bdf)?;
            let (owner, _) = kernel.process_and_guest(process)?;
            owner.declare(from, len_bytes, Content::Pattern(pattern), Rights::ReadOnly)?;
            owner.declare(to, len_bytes, Content::Zeros, Rights::ReadWrite)?;
            copy_range(
                accelerator,
                kernel,
                Range {
                    process,
                    from,
                    to,
                    len_bytes,
                },
            )?;
            let mut copied = vec![0; usize::try_from(len_bytes).unwrap_or(0)];
            kernel
                .process(process)?
                .space()
                .read(kernel.guest(), to, &mut copied)?;
            if let Some(difference) = pattern.difference(0, &copied) {
                let what = format!("the pages of PASID {process} that came on demand");
                return Err(DriverError::mismatch(what, difference));
            }
            outcome.lazy_bytes += len_bytes;
        }
        outcome.page_requests += self.kernel.requests().served - before;
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Range {
    process: GuestPasid,
    from: Iova,
    to: Iova,
    len_bytes: u64,
}

fn copy_range(
    accelerator: &mut Devices<'_>,
    kernel: &mut Kernel,
    range: Range,
) -> Result<(), DriverError> {
    let bdf = accelerator.bdf();
    let queue = accelerator.queue_for(range.process, kernel)?;
    let most = OUTSTANDING.min(usize::from(accelerator.queue_size()).max(1));
    let mut flight = InFlight::default();
    let mut patience = Patience::new(LIMIT);
    let mut sizes = PAGES.iter().cycle();
    let mut offset = 0;
    loop {
        while offset < range.len_bytes && flight.on_queue(queue) < most {
            let pages = sizes.next().copied().unwrap_or(1);
            let len = (pages * PAGE_BYTES).min(range.len_bytes - offset);
            let copy = Copy {
                process: range.process,
                from: Iova::new(range.from.get() + offset),
                to: Iova::new(range.to.get() + offset),
                len_bytes: u32::try_from(len).unwrap_or(u32::MAX),
                missing: MissingPage::Wait,
            };
            if flight.submit(accelerator, kernel, queue, 0, copy)? == Submitted::NoRecord {
                break;
            }
            offset += len;
        }
        accelerator.flush()?;
        if flight.is_empty() {
            return Ok(());
        }
        accelerator.take_all_events(kernel)?;
        kernel.serve()?;
        let ended = flight.reap(kernel, |_, copy, completion| {
            if completion.status.is_success() {
                return Ok(());
            }
            Err(DriverError::Copy {
                bdf,
                from: copy.from,
                to: copy.to,
                len_bytes: copy.len_bytes.into(),
                status: completion.status.0,
            })
        })?;
        if ended > 0 {
            patience.progressed();
        } else {
            patience.pause(|| flight.describe())?;
        }
    }
}
