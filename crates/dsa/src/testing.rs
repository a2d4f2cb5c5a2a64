//! A small host for tests: one tenant with memory, page tables and a function of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use palisade_ioasid::{Authority, Hold, PasidRange, PasidSet, Quota};
use palisade_iommu::{
    Binding, Claim, DeviceTlb, Fault, FaultProcessing, FirstStage, FunctionHandle, GroupIndex,
    Iommu, Levels, PageRequest, PageResponse, PasidSupport, QueueFull, Sharing, Sink, Space,
    SupervisorRequests, UserId,
};
use palisade_memory::{GuestMemory, Protection, SharedMemory};
use palisade_units::{Bdf, Gpa, GuestPasid, PasidTag, TenantId};

use crate::lock::locked;
use crate::{Accelerator, Doorbell, Engine, Progress};

pub(crate) const MEMORY_BYTES: u64 = 16 << 20;
/// Tables grow from here; below it is for data.
const TABLES: u64 = 12 << 20;
const PRESENT_WRITE_USER: u64 = 0b111;

#[derive(Default)]
pub(crate) struct Bell(pub(crate) AtomicU64);

impl Doorbell for Bell {
    fn ring(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
pub(crate) struct Unit {
    pub(crate) faults: Mutex<Vec<Fault>>,
    pub(crate) requests: Mutex<Vec<PageRequest>>,
}

impl Sink for Unit {
    fn fault(&self, fault: Fault) {
        locked(&self.faults).push(fault);
    }

    fn page_request(&self, request: PageRequest) -> Result<(), QueueFull> {
        locked(&self.requests).push(request);
        Ok(())
    }
}

pub(crate) struct Host {
    pub(crate) memory: SharedMemory,
    guest: GuestMemory,
    pub(crate) set: PasidSet,
    pub(crate) function: FunctionHandle,
    pub(crate) unit: Arc<Unit>,
    pub(crate) bell: Arc<Bell>,
    pub(crate) accelerator: Accelerator,
    _claim: Claim,
    next_table: Arc<AtomicU64>,
}

pub(crate) const BDF: Bdf = Bdf::new(0, 0x10, 0);

pub(crate) fn tag(number: u32) -> PasidTag {
    PasidTag::of_exclusive_owner(GuestPasid::new(number).unwrap())
}

impl Host {
    /// A host whose accelerator has eight queues. The tenant has the function for itself; nothing is bound.
    pub(crate) fn new() -> Self {
        let memory = SharedMemory::create("tenant", MEMORY_BYTES).unwrap();
        Self::with(memory, Arc::new(AtomicU64::new(TABLES)))
    }

    /// Another host, where the same memory is.
    pub(crate) fn beside(&self) -> Self {
        Self::with(self.memory.clone(), Arc::clone(&self.next_table))
    }

    fn with(memory: SharedMemory, next_table: Arc<AtomicU64>) -> Self {
        let guest = GuestMemory::new();
        let backing = memory.backing();
        guest
            .map(Gpa::new(0), MEMORY_BYTES, backing, Protection::ReadWrite)
            .unwrap();
        let tenant = TenantId::new(1);
        let set = Authority::new(&[])
            .create_set(tenant, Quota::default())
            .unwrap();
        let function = Iommu::new()
            .add_function(BDF, PasidSupport::Width(20))
            .unwrap();
        let claim = function.claim(tenant, Sharing::Exclusive).unwrap();
        let bell = Arc::new(Bell::default());
        Self {
            memory,
            guest,
            set,
            function,
            unit: Arc::new(Unit::default()),
            accelerator: Accelerator::new(8, Arc::clone(&bell) as Arc<dyn Doorbell>),
            bell,
            _claim: claim,
            next_table,
        }
    }

    pub(crate) fn engine(&self) -> Engine {
        self.accelerator.engine(self.function.port())
    }

    pub(crate) fn hold(&self) -> Hold {
        let pasid = self.set.alloc(PasidRange::ALL).unwrap();
        let hold = self.set.hold(pasid).unwrap();
        self.set.free(pasid).unwrap();
        hold
    }

    /// Binds a tag, or the requests without one, to a space.
    pub(crate) fn bind(&self, tag: Option<PasidTag>, space: Space) {
        let binding = Binding {
            user: UserId(1),
            space,
            memory: self.guest.clone(),
            sink: Arc::clone(&self.unit) as Arc<dyn Sink>,
            guest_bdf: BDF,
            guest_pasid: tag.and_then(|tag| GuestPasid::new(tag.get()).ok()),
            fault_disable: FaultProcessing::Report,
            device_tlb: DeviceTlb::Allowed,
            supervisor: SupervisorRequests::Refused,
        };
        self.function.bind(tag, self.hold(), binding).unwrap();
    }

    /// Binds a tag to an empty process.
    pub(crate) fn process(&self, number: u32) -> Process<'_> {
        self.process_of(number, self.table())
    }

    /// Binds a tag to a process whose table is there already.
    pub(crate) fn process_of(&self, number: u32, root: u64) -> Process<'_> {
        let stage = FirstStage::new(Gpa::new(root), Levels::Four);
        self.bind(Some(tag(number)), Space::FirstStage(stage));
        Process { host: self, root }
    }

    fn table(&self) -> u64 {
        let table = self.next_table.fetch_add(4096, Ordering::Relaxed);
        assert!(table < MEMORY_BYTES, "no room for tables");
        table
    }

    /// Answers all page requests that are open.
    pub(crate) fn answer(&self, response: PageResponse) -> usize {
        let requests = std::mem::take(&mut *locked(&self.unit.requests));
        for request in &requests {
            let tag = request.pasid.map(PasidTag::of_exclusive_owner);
            self.function.respond(tag, request.group, response).unwrap();
        }
        requests.len()
    }

    pub(crate) fn respond(&self, number: u32, group: GroupIndex, response: PageResponse) {
        self.function
            .respond(Some(tag(number)), group, response)
            .unwrap();
    }

    pub(crate) fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read(at, &mut bytes).unwrap();
        bytes
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write(at, bytes).unwrap();
    }
}

/// A four-level table in the tenant's memory.
pub(crate) struct Process<'a> {
    pub(crate) host: &'a Host,
    pub(crate) root: u64,
}

impl Process<'_> {
    /// Maps pages from `va` to those from `pa`.
    pub(crate) fn map(&self, va: u64, pa: u64, pages: u64) {
        for page in 0..pages {
            let (va, pa) = (va + page * 4096, pa + page * 4096);
            let mut table = self.root;
            for level in [3, 2, 1] {
                let slot = table + ((va >> (12 + 9 * level)) & 0x1ff) * 8;
                let entry = self.host.memory.load_u64(slot).unwrap();
                table = if entry & 1 == 0 {
                    let next = self.host.table();
                    self.host
                        .memory
                        .store_u64(slot, next | PRESENT_WRITE_USER)
                        .unwrap();
                    next
                } else {
                    entry & !0xfff
                };
            }
            let slot = table + ((va >> 12) & 0x1ff) * 8;
            self.host
                .memory
                .store_u64(slot, pa | PRESENT_WRITE_USER)
                .unwrap();
        }
    }
}

/// Runs an engine until it has nothing to do.
pub(crate) fn run(engine: &mut Engine) {
    for _ in 0..100_000 {
        if engine.run(64) == Progress::Idle {
            return;
        }
    }
    panic!("the engine does not come to rest");
}
