use std::sync::Arc;

use anyhow::{Context, Result};
use palisade_ioasid::{Authority, PasidRange, Quota};
use palisade_iommu::{
    Binding, Claim, DeviceTlb, DmaError, DmaPort, Fault, FaultProcessing, FirstStage,
    FunctionHandle, Iommu, Levels, PageRequest, PasidSupport, QueueFull, Requester, SecondStage,
    Sharing, Sink, Space, SupervisorRequests, UserId,
};
use palisade_memory::{GuestMemory, Protection, SharedMemory};
use palisade_units::{Bdf, Gpa, Iova, PasidTag, TenantId};

use crate::{DATA_BYTES, Layout, PAGE_BYTES, Reader, Reads, sum_by};

/// Tables stand above the data; as many as 2^20 pages need.
const MEMORY_BYTES: u64 = DATA_BYTES + (16 << 20);
/// Bits of an entry: present, writable, user, accessed, dirty.
const ENTRY: u64 = 0x67;
/// Bits of an entry of a second stage: readable, writable.
const READ_WRITE: u64 = 3;
/// What a table of a second stage's pages is for.
const PIECE_BYTES: u64 = 2 << 20;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Nothing is to fault: a read that does ends the bench.
struct Unheard;

impl Sink for Unheard {
    fn fault(&self, _: Fault) {}

    fn page_request(&self, _: PageRequest) -> Result<(), QueueFull> {
        Err(QueueFull)
    }
}

/// The tables of one process of a guest.
struct Tables {
    memory: SharedMemory,
    next: u64,
}

impl Tables {
    const ROOT: u64 = DATA_BYTES;

    fn map(&mut self, iova: u64, page: u64) -> Result<()> {
        let mut table = Self::ROOT;
        for level in (2..=4).rev() {
            let entry_at = table + ((iova >> (9 * level)) & 0xff8);
            if self.memory.load_u64(entry_at)? == 0 {
                self.memory.store_u64(entry_at, self.next | ENTRY)?;
                self.next += PAGE_BYTES;
            }
            table = self.memory.load_u64(entry_at)? & ADDRESS;
        }
        let leaf_at = table + ((iova >> 9) & 0xff8);
        Ok(self.memory.store_u64(leaf_at, page | ENTRY)?)
    }

    /// A second stage that leads everywhere to the same address.
    fn second_stage(&mut self) -> Result<SecondStage> {
        let root = self.next;
        let middle = root + PAGE_BYTES;
        self.memory.store_u64(root, middle | READ_WRITE)?;
        for piece in 0..MEMORY_BYTES.div_ceil(PIECE_BYTES) {
            let table = middle + (piece + 1) * PAGE_BYTES;
            self.memory
                .store_u64(middle + piece * 8, table | READ_WRITE)?;
            for index in 0..PIECE_BYTES / PAGE_BYTES {
                let page = piece * PIECE_BYTES + index * PAGE_BYTES;
                self.memory
                    .store_u64(table + index * 8, page | READ_WRITE)
                    .context("the tables are full")?;
            }
        }
        Ok(SecondStage::new(Gpa::new(root), Levels::Three))
    }
}

/// How the engine works.
#[derive(Clone, Copy)]
pub(crate) enum Engine {
    /// One read after the other, each announced to invalidations by itself.
    Single,
    /// In pieces of work, each announced once.
    Pieces,
    /// In pieces of work, of which it knows the next addresses, as of descriptors in its queue.
    Queue,
}

/// How the tenant's tables stand in its memory.
#[derive(Clone, Copy)]
pub(crate) enum Stages {
    /// A first stage.
    First,
    /// A first stage behind a second one, both of 4 KiB pages.
    Nested,
}

/// A port of a function that a tenant has alone, with one PASID bound.
pub(crate) struct Ours {
    port: DmaPort,
    by: Requester,
    engine: Engine,
    function: FunctionHandle,
    /// With it the binding would go.
    _claim: Claim,
}

impl Ours {
    pub(crate) fn new(layout: &Layout, stages: Stages, engine: Engine) -> Result<Self> {
        let mut tables = Tables {
            memory: SharedMemory::create("bench", MEMORY_BYTES)?,
            next: Tables::ROOT + PAGE_BYTES,
        };
        for (at, word) in Layout::words() {
            tables.memory.store_u64(at, word)?;
        }
        for (iova, page) in layout.mappings() {
            tables.map(iova, page).context("the tables are full")?;
        }
        let first = FirstStage::new(Gpa::new(Tables::ROOT), Levels::Four);
        let space = match stages {
            Stages::First => Space::FirstStage(first),
            Stages::Nested => Space::Nested(first, tables.second_stage()?),
        };
        let memory = GuestMemory::new();
        let backing = tables.memory.backing();
        memory.map(Gpa::new(0), MEMORY_BYTES, backing, Protection::ReadWrite)?;

        let tenant = TenantId::new(1);
        let set = Authority::new(&[]).create_set(tenant, Quota::Exactly(1))?;
        let pasid = set.alloc(PasidRange::ALL)?;
        let function = Iommu::new().add_function(Bdf::new(0x6a, 1, 0), PasidSupport::Width(20))?;
        let claim = function.claim(tenant, Sharing::Exclusive)?;
        let tag = Some(pasid.into());
        let binding = Binding {
            user: UserId(1),
            space,
            memory,
            sink: Arc::new(Unheard),
            guest_bdf: Bdf::new(0, 0x10, 0),
            guest_pasid: None,
            fault_disable: FaultProcessing::Report,
            device_tlb: DeviceTlb::Allowed,
            supervisor: SupervisorRequests::Refused,
        };
        function.bind(tag, set.hold(pasid)?, binding)?;
        Ok(Self {
            port: function.port(),
            by: Requester::new(tag),
            engine,
            function,
            _claim: claim,
        })
    }
}

/// One of our ways to read.
fn read(
    by: Requester,
    at: u64,
    read: impl FnOnce(Requester, Iova, &mut [u8]) -> Result<(), DmaError>,
) -> Result<u64> {
    let mut bytes = [0; 8];
    read(by, Iova::new(at), &mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

impl Ours {
    /// The function, to invalidate what is cached of it.
    pub(crate) fn function(&self) -> FunctionHandle {
        self.function.clone()
    }

    /// Whose translations are read by.
    pub(crate) fn tag(&self) -> Option<PasidTag> {
        self.by.tag
    }
}

impl Reader for Ours {
    fn sum(&mut self, trace: &[u64], reads: Reads) -> Result<u64> {
        /// How many reads ahead the engine looks.
        const AHEAD: usize = 12;
        let by = self.by;
        match self.engine {
            Engine::Single => sum_by(trace, reads, |at| {
                read(by, at, |by, at, into| self.port.read(by, at, into))
            }),
            Engine::Pieces => self.port.in_one_piece(|work| {
                sum_by(trace, reads, |at| {
                    read(by, at, |by, at, into| work.read(by, at, into))
                })
            }),
            Engine::Queue => self.port.in_one_piece(|work| {
                let mut next = trace.iter().skip(AHEAD);
                sum_by(trace, reads, |at| {
                    if let Some(next) = next.next() {
                        work.expect(by, Iova::new(*next));
                    }
                    read(by, at, |by, at, into| work.read(by, at, into))
                })
            }),
        }
    }
}
