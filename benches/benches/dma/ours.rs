use std::sync::Arc;

use anyhow::{Context, Result};
use palisade_ioasid::{Authority, PasidRange, Quota};
use palisade_iommu::{
    Binding, Claim, DeviceTlb, DmaPort, Fault, FaultProcessing, FirstStage, Iommu, Levels,
    PageRequest, PasidSupport, QueueFull, Requester, Sharing, Sink, Space, SupervisorRequests,
    UserId,
};
use palisade_memory::{GuestMemory, Protection};
use palisade_units::{Bdf, Gpa, Iova, TenantId};

use crate::Copier;
use crate::layout::{DATA_BYTES, Ground, Job, Layout, MEMORY_BYTES, PAGE_BYTES};

/// Bits of an entry: present, writable, user, accessed, dirty.
const ENTRY: u64 = 0x67;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Nothing is to fault: a copy that does ends the bench.
struct Unheard;

impl Sink for Unheard {
    fn fault(&self, _: Fault) {}

    fn page_request(&self, _: PageRequest) -> Result<(), QueueFull> {
        Err(QueueFull)
    }
}

/// Writes the tables of one process of a guest. Those of an earlier one are in the same place.
fn write_tables(memory: &GuestMemory, layout: &Layout) -> Result<()> {
    const ROOT: u64 = DATA_BYTES;
    for at in (ROOT..MEMORY_BYTES).step_by(8) {
        memory.store_u64(Gpa::new(at), 0)?;
    }
    let mut next = ROOT + PAGE_BYTES;
    for (iova, page) in layout.mappings() {
        let mut table = ROOT;
        for level in (2..=4).rev() {
            let entry_at = Gpa::new(table + ((iova >> (9 * level)) & 0xff8));
            if memory.load_u64(entry_at)? == 0 {
                memory.store_u64(entry_at, next | ENTRY)?;
                next += PAGE_BYTES;
            }
            table = memory.load_u64(entry_at)? & ADDRESS;
        }
        let leaf_at = Gpa::new(table + ((iova >> 9) & 0xff8));
        memory
            .store_u64(leaf_at, page | ENTRY)
            .context("the tables are full")?;
    }
    Ok(())
}

/// How the engine works.
#[derive(Clone, Copy)]
pub(crate) enum Engine {
    /// One copy after the other, each announced to invalidations by itself.
    Single,
    /// In pieces of work, each announced once.
    Pieces,
}

/// A port of a function that a tenant has alone, with one PASID bound.
pub(crate) struct Ours {
    port: DmaPort,
    by: Requester,
    engine: Engine,
    len_bytes: u64,
    /// With it the binding would go.
    _claim: Claim,
}

impl Ours {
    pub(crate) fn new(ground: &Ground, layout: &Layout, engine: Engine) -> Result<Self> {
        let memory = GuestMemory::new();
        let backing = ground.backing();
        memory.map(Gpa::new(0), MEMORY_BYTES, backing, Protection::ReadWrite)?;
        write_tables(&memory, layout)?;
        let first = FirstStage::new(Gpa::new(DATA_BYTES), Levels::Four);

        let tenant = TenantId::new(1);
        let set = Authority::new(&[]).create_set(tenant, Quota::Exactly(1))?;
        let pasid = set.alloc(PasidRange::ALL)?;
        let function = Iommu::new().add_function(Bdf::new(0x6a, 1, 0), PasidSupport::Width(20))?;
        let claim = function.claim(tenant, Sharing::Exclusive)?;
        let tag = Some(pasid.into());
        let binding = Binding {
            user: UserId(1),
            space: Space::FirstStage(first),
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
            len_bytes: layout.len_bytes,
            _claim: claim,
        })
    }
}

impl Copier for Ours {
    fn copy(&mut self, trace: &[Job]) -> Result<()> {
        let Self {
            port,
            by,
            len_bytes,
            ..
        } = self;
        let (by, len_bytes) = (*by, *len_bytes);
        match self.engine {
            Engine::Single => {
                for job in trace {
                    port.copy(by, Iova::new(job.from), by, Iova::new(job.to), len_bytes)?;
                }
                Ok(())
            }
            Engine::Pieces => port.in_one_piece(|work| {
                for job in trace {
                    work.copy(by, Iova::new(job.from), by, Iova::new(job.to), len_bytes)?;
                }
                Ok(())
            }),
        }
    }
}
