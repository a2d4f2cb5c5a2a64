//! A process whose pages lie about in memory, some of them not there yet.

use palisade_iommu::PageResponse;
use zerocopy::IntoBytes;

use super::model::Memory;
use super::{Dedicated, record};
use crate::Engine;
use crate::lock::locked;
use crate::spec::{CompletionRecord, Descriptor, Status};
use crate::testing::{Host, Process, run};

pub(super) const BASE: u64 = 0x10_0000;
pub(super) const PAGES: usize = 32;
pub(super) const RECORD: u64 = 0x8_0000;
pub(super) const LIST: u64 = 0x9_0000;
const PAGE: usize = 4096;

pub(super) struct Scattered<'a> {
    host: &'a Host,
    process: Process<'a>,
    pub(super) queue: Dedicated,
    pub(super) engine: Engine,
}

impl<'a> Scattered<'a> {
    /// Pages from [`BASE`] on, in descending order in memory; `missing` says which are not there. Records and lists are there.
    pub(super) fn new(host: &'a Host, missing: &[bool]) -> Self {
        let process = host.process(5);
        process.map(RECORD, RECORD, 16);
        process.map(LIST, LIST, 1);
        let scattered = Self {
            host,
            process,
            queue: Dedicated::open(host, 0, 5),
            engine: host.engine(),
        };
        for page in 0..PAGES {
            if !missing.get(page).copied().unwrap_or(false) {
                scattered.bring(BASE + (page * PAGE) as u64);
            }
        }
        scattered
    }

    /// Where a page of the process is in memory.
    fn place(page: usize) -> u64 {
        BASE + ((PAGES - 1 - page) * PAGE) as u64
    }

    /// Maps the page of an address, which must be one of the process.
    pub(super) fn bring(&self, at: u64) {
        let page = usize::try_from((at - BASE) / PAGE as u64).unwrap();
        assert!(page < PAGES, "{at:x} is none of the process's addresses");
        self.process.map(at & !0xfff, Self::place(page), 1);
    }

    pub(super) fn load(&self, memory: &Memory) {
        for (page, bytes) in memory.bytes.chunks(PAGE).enumerate() {
            self.host.write(Self::place(page), bytes);
        }
    }

    pub(super) fn memory(&self) -> Memory {
        let bytes = (0..PAGES).flat_map(|page| self.host.bytes(Self::place(page), PAGE));
        Memory {
            base: BASE,
            bytes: bytes.collect(),
        }
    }

    /// Runs a descriptor to its record, and brings the pages that it asks for.
    pub(super) fn run(&mut self, descriptor: Descriptor) -> CompletionRecord {
        self.queue.submit(descriptor.with_record(RECORD));
        for _ in 0..=PAGES {
            run(&mut self.engine);
            let record = record(self.host, RECORD);
            if record.status() != Status::NONE {
                return record;
            }
            for request in locked(&self.host.unit.requests).iter() {
                self.bring(request.at.get());
            }
            self.host.answer(PageResponse::Success);
        }
        panic!("{descriptor:x?} does not complete");
    }

    /// Runs a descriptor to its record. No page that it asks for is brought.
    pub(super) fn refusing(&mut self, descriptor: Descriptor) -> CompletionRecord {
        self.queue.submit(descriptor.with_record(RECORD));
        for _ in 0..100 {
            run(&mut self.engine);
            if self.host.answer(PageResponse::Invalid) == 0 {
                break;
            }
        }
        record(self.host, RECORD)
    }

    /// Writes a list of descriptors, for a batch.
    pub(super) fn list(&self, parts: &[Descriptor]) {
        self.host.write(LIST, parts.as_bytes());
    }

    /// The record at a place of the record page.
    pub(super) fn record(&self, index: usize) -> CompletionRecord {
        record(self.host, RECORD + index as u64 * 32)
    }
}
