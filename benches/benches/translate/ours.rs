use std::sync::Arc;

use anyhow::{Context, Result};
use palisade_ioasid::{Authority, PasidRange, Quota};
use palisade_iommu::{
    Binding, Claim, DmaPort, Fault, FaultProcessing, FirstStage, Iommu, Levels, PageRequest,
    PasidSupport, QueueFull, Requester, Sharing, Sink, Space, UserId,
};
use palisade_memory::{GuestMemory, Protection, SharedMemory};
use palisade_units::{Bdf, Gpa, Iova, TenantId};

use crate::{DATA_BYTES, Layout, PAGE_BYTES, Reader};

/// Tables stand above the data; as many as 2^20 pages need.
const MEMORY_BYTES: u64 = DATA_BYTES + (16 << 20);
/// Bits of an entry: present, writable, user, accessed, dirty.
const ENTRY: u64 = 0x67;
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
}

/// A port of a function that a tenant has alone, with one PASID bound.
pub(crate) struct Ours {
    port: DmaPort,
    by: Requester,
    /// With it the binding would go.
    _claim: Claim,
}

impl Ours {
    pub(crate) fn new(layout: &Layout) -> Result<Self> {
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
            space: Space::FirstStage(FirstStage::new(Gpa::new(Tables::ROOT), Levels::Four)),
            memory,
            sink: Arc::new(Unheard),
            guest_bdf: Bdf::new(0, 0x10, 0),
            guest_pasid: None,
            fault_disable: FaultProcessing::Report,
        };
        function.bind(tag, set.hold(pasid)?, binding)?;
        Ok(Self {
            port: function.port(),
            by: Requester::new(tag),
            _claim: claim,
        })
    }
}

impl Reader for Ours {
    fn read(&mut self, at: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        self.port.read(self.by, Iova::new(at), &mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }
}
