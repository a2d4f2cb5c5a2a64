//! The invalidation queue: fetches descriptors and does what they say, in order (VT-d §6.5.2).

use std::sync::atomic::Ordering;

use palisade_iommu::{Cached, PageResponse};
use palisade_units::{Bdf, Gpa};

use crate::Unit;
use crate::registers::{Message, Registers};
use crate::spec::command::{RootTableAddress, TranslationTableMode};
use crate::spec::descriptor::{
    ContextScope, InvDescriptor, Invalidation, IotlbScope, PageGroupResponse, PageRange,
    PasidCacheScope, PasidIotlbScope, ResponseCode, Wait, WaitFlags,
};
use crate::spec::queue::{DescriptorWidth, QueueError};
use crate::sync::{CacheScope, Pending, TableScope, cached_with};

/// How much one access to a register may do. A guest that fills its queue with the most expensive
/// descriptors gets them done over many accesses, and other tenants their share in between.
#[derive(Debug)]
pub(crate) struct Budget {
    left: u32,
}

impl Budget {
    /// In pages of tables read, or descriptors. A queue of any driver is far below it.
    const ONE_ACCESS: u32 = 1 << 16;

    pub(crate) fn of_one_access() -> Self {
        Self {
            left: Self::ONE_ACCESS,
        }
    }

    /// For what must be whole: bounded by itself.
    pub(crate) fn endless() -> Self {
        Self { left: u32::MAX }
    }

    pub(crate) fn spend(&mut self, cost: u32) {
        self.left = self.left.saturating_sub(cost);
    }

    fn is_spent(&self) -> bool {
        self.left == 0
    }
}

/// What a pass through the queue has come to.
#[derive(Default)]
struct Pass {
    pending: Pending,
    messages: Vec<Message>,
    /// The function whose TLB does not answer, if there is one.
    unanswered: Option<Bdf>,
}

/// Where the next descriptor is.
struct Position {
    at: Gpa,
    width: DescriptorWidth,
    root: RootTableAddress,
    /// The head after it.
    next: u64,
}

impl Unit {
    /// Does what is in the queue, up to the tail of this moment. The caller has the work lock.
    pub(crate) fn process_queue(&self, budget: &mut Budget) -> Vec<Message> {
        let mut pass = Pass::default();
        let tail = self.registers().queue_tail();
        let stopped = loop {
            if budget.is_spent() {
                break None;
            }
            let position = match position(&self.registers(), tail) {
                Ok(Some(position)) => position,
                Ok(None) => break None,
                Err(error) => break Some(error),
            };
            budget.spend(1);
            let what = match self.fetch(&position) {
                Ok(what) => what,
                Err(error) => break Some(error),
            };
            let aborts = pass.unanswered.is_some() && matches!(what, Invalidation::Wait(_));
            if !aborts {
                self.execute(what, &mut pass, budget);
            }
            self.registers().set_queue_head(position.next);
            if aborts {
                break None;
            }
        };
        // What stands before an error is completed as usual.
        self.flush(&mut pass.pending, budget);
        let Pass {
            mut messages,
            unanswered,
            ..
        } = pass;
        let mut registers = self.registers();
        if let Some(function) = unanswered {
            messages.extend(registers.time_out(function));
        }
        if let Some(error) = stopped {
            messages.extend(registers.stop_queue(error));
        }
        let behind = budget.is_spent() && registers.queue_runs() && registers.queue_head() != tail;
        self.behind.store(behind, Ordering::Release);
        messages
    }

    fn fetch(&self, position: &Position) -> Result<Invalidation, QueueError> {
        let words = match position.width {
            DescriptorWidth::Bits128 => {
                let words: Result<[u64; 2], _> = self.memory.read_object(position.at);
                words.map(|[low, high]| [low, high, 0, 0])
            }
            DescriptorWidth::Bits256 => self.memory.read_object(position.at),
        };
        let words = words.map_err(|_| QueueError::DescriptorAccess)?;
        let descriptor = InvDescriptor::from_words(words.map(u64::from_le));
        let what = descriptor.decode(position.width)?;
        let legacy = position.root.mode() == TranslationTableMode::Legacy;
        if legacy && !what.is_of_legacy_mode() {
            return Err(QueueError::DescriptorType);
        }
        Ok(what)
    }

    fn execute(&self, what: Invalidation, pass: &mut Pass, budget: &mut Budget) {
        let Pass {
            pending, messages, ..
        } = pass;
        if let Invalidation::DeviceTlb(function, _) | Invalidation::PasidDeviceTlb(function, ..) =
            what
            && !self.container.guest_bdfs().contains(&function)
        {
            // Nobody is there to answer, which is as if the time were over (VT-d §6.5.2.11).
            pass.unanswered.get_or_insert(function);
            return;
        }
        match what {
            Invalidation::ContextCache(ContextScope::Device { source, mask, .. }) => {
                pending.tables(TableScope::Functions(source, mask));
            }
            // Context entries of scalable mode have no domain, so a domain is everything.
            Invalidation::ContextCache(ContextScope::Global | ContextScope::Domain(_))
            | Invalidation::PasidCache(PasidCacheScope::Global) => {
                pending.tables(TableScope::All);
            }
            Invalidation::PasidCache(PasidCacheScope::Domain(domain)) => {
                pending.tables(TableScope::Domain(domain));
            }
            Invalidation::PasidCache(PasidCacheScope::Pasid(domain, pasid)) => {
                pending.tables(TableScope::Pasid(domain, pasid));
            }
            Invalidation::Iotlb(IotlbScope::Global) => {
                pending.caches(CacheScope::All, Cached::InUnit);
            }
            Invalidation::Iotlb(IotlbScope::Domain(domain)) => {
                pending.caches(CacheScope::Domain(domain), Cached::InUnit);
            }
            Invalidation::Iotlb(IotlbScope::Pages(domain, range, hint)) => {
                let scope = CacheScope::PagesOfDomain(domain, range);
                pending.caches(scope, cached_with(hint));
            }
            Invalidation::PasidIotlb(domain, pasid, PasidIotlbScope::All) => {
                let scope = CacheScope::PasidOfDomain(domain, pasid, PageRange::ALL);
                pending.caches(scope, Cached::InUnit);
            }
            Invalidation::PasidIotlb(domain, pasid, PasidIotlbScope::Pages(range, hint)) => {
                let scope = CacheScope::PasidOfDomain(domain, pasid, range);
                pending.caches(scope, cached_with(hint));
            }
            Invalidation::DeviceTlb(function, range) => {
                let scope = CacheScope::WithoutPasid(function, range);
                pending.caches(scope, Cached::InDevices);
            }
            Invalidation::PasidDeviceTlb(function, Some(pasid), range) => {
                let scope = CacheScope::Pasid(function, pasid, range);
                pending.caches(scope, Cached::InDevices);
            }
            Invalidation::PasidDeviceTlb(function, None, _) => {
                pending.caches(CacheScope::Function(function), Cached::InDevices);
            }
            Invalidation::InterruptEntryCache => {}
            Invalidation::PageGroupResponse(response) => {
                self.flush(pending, budget);
                self.answer(response);
            }
            // Every group of this unit is one request, so that the one is answered with the other.
            Invalidation::PageStreamResponse(response) => {
                self.flush(pending, budget);
                self.answer(PageGroupResponse {
                    requester: response.requester,
                    pasid: Some(response.pasid),
                    group: response.group,
                    code: response.code,
                });
            }
            Invalidation::Wait(wait) => {
                self.flush(pending, budget);
                messages.extend(self.complete(wait));
            }
        }
        if pending.is_full() {
            self.flush(pending, budget);
        }
    }

    fn flush(&self, pending: &mut Pending, budget: &mut Budget) {
        if !pending.is_empty() {
            self.apply(std::mem::take(pending), budget);
        }
    }

    fn answer(&self, response: PageGroupResponse) {
        let code = match response.code {
            ResponseCode::Success => PageResponse::Success,
            ResponseCode::InvalidRequest => PageResponse::Invalid,
            ResponseCode::Failure | ResponseCode::Reserved(_) => PageResponse::Failure,
        };
        self.respond(response.requester, response.pasid, response.group, code);
    }

    /// Everything before it has taken effect, and page requests go into their queue at once, so there
    /// is nothing left to wait for (VT-d §6.5.2.9).
    fn complete(&self, wait: Wait) -> Option<Message> {
        if wait.flags.contains(WaitFlags::STATUS_WRITE) {
            let written = self.memory.store_u32(wait.status_address, wait.status_data);
            if let Err(error) = written
                && let Some(count) = self.counts.lost_statuses.tick()
            {
                tracing::debug!(%error, count, "a wait descriptor's status has no place");
            }
        }
        if wait.flags.contains(WaitFlags::INTERRUPT) {
            self.registers().complete_wait()
        } else {
            None
        }
    }
}

/// The next descriptor, if the queue runs and is not empty.
///
/// # Errors
/// What is wrong with the queue's own registers (VT-d §11.4.9.9).
fn position(registers: &Registers, tail: u64) -> Result<Option<Position>, QueueError> {
    let head = registers.queue_head();
    if !registers.queue_runs() || head == tail {
        return Ok(None);
    }
    let address = registers.queue_address();
    let root = registers.root();
    let width = address.width();
    let len_bytes = address.order().bytes();
    match root.mode() {
        TranslationTableMode::Unsupported(_) => return Err(QueueError::TranslationTableMode),
        TranslationTableMode::Scalable if width == DescriptorWidth::Bits128 => {
            return Err(QueueError::DescriptorWidth);
        }
        TranslationTableMode::Legacy | TranslationTableMode::Scalable => {}
    }
    if !tail.is_multiple_of(width.bytes()) {
        return Err(QueueError::TailMisaligned);
    }
    if tail >= len_bytes || head >= len_bytes || !head.is_multiple_of(width.bytes()) {
        return Err(QueueError::InvalidTail);
    }
    let at = address
        .base()
        .checked_add(head)
        .ok_or(QueueError::DescriptorAccess)?;
    Ok(Some(Position {
        at,
        width,
        root,
        next: (head + width.bytes()) % len_bytes,
    }))
}

#[cfg(test)]
mod matrix;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod time_out;
