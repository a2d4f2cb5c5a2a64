//! The platform as its users see it: tenants with memory and tables of their own, functions, ports.

mod audit;
mod bindings;
mod caches;
mod claims;
mod device_tlb;
mod dirty;
mod faults;
mod interrupt_range;
mod isolation;
mod isolation_properties;
mod owners;
mod page_requests;
mod races;
mod scopes;
mod stale;
mod stale_properties;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use palisade_ioasid::{Authority, Hold, PasidRange, PasidSet, Quota};
use palisade_memory::{GuestMemory, Protection, SharedMemory};
use palisade_units::{Bdf, Gpa, GuestPasid, HostPasid, Iova, PasidTag, TenantId};

use crate::*;

/// Bits of a first-stage entry: present, writable, user; large.
const PAGE: u64 = 7;
const READ_ONLY_PAGE: u64 = 5;
const LARGE: u64 = 1 << 7;

const MEMORY_BYTES: u64 = 16 << 20;
/// Tables are taken from here on, one after the other.
const FIRST_TABLE: u64 = 8 << 20;

const HOST: Bdf = Bdf::new(0x6a, 1, 0);
const GUEST: Bdf = Bdf::new(0, 0x10, 0);

/// How many translations the random tests of tables make at least: 100,000, or as many as
/// `PALISADE_TRANSLATIONS` says.
pub(crate) fn translations() -> u32 {
    let asked = std::env::var("PALISADE_TRANSLATIONS").ok();
    asked.map_or(100_000, |text| {
        text.parse()
            .expect("PALISADE_TRANSLATIONS is a number of translations")
    })
}

/// What a tenant was told.
#[derive(Default)]
struct Record {
    faults: Mutex<Vec<Fault>>,
    requests: Mutex<Vec<PageRequest>>,
    is_full: Mutex<bool>,
}

impl Record {
    fn faults(&self) -> Vec<Fault> {
        self.faults.lock().unwrap().clone()
    }

    fn requests(&self) -> Vec<PageRequest> {
        self.requests.lock().unwrap().clone()
    }
}

impl Sink for Record {
    fn fault(&self, fault: Fault) {
        self.faults.lock().unwrap().push(fault);
    }

    fn page_request(&self, request: PageRequest) -> Result<(), QueueFull> {
        if *self.is_full.lock().unwrap() {
            return Err(QueueFull);
        }
        self.requests.lock().unwrap().push(request);
        Ok(())
    }
}

struct Tenant {
    id: TenantId,
    set: PasidSet,
    shared: SharedMemory,
    memory: GuestMemory,
    sink: Arc<Record>,
    next_table: AtomicU64,
}

impl Tenant {
    fn new(authority: &Authority, number: u32) -> Self {
        let id = TenantId::new(number);
        let set = authority.create_set(id, Quota::Exactly(1000)).unwrap();
        let shared = SharedMemory::create("tenant", MEMORY_BYTES).unwrap();
        let memory = GuestMemory::new();
        let all = (shared.backing(), Protection::ReadWrite);
        memory.map(Gpa::new(0), MEMORY_BYTES, all.0, all.1).unwrap();
        let next_table = AtomicU64::new(FIRST_TABLE);
        Self {
            id,
            set,
            shared,
            memory,
            sink: Arc::default(),
            next_table,
        }
    }

    fn alone() -> Self {
        Self::new(&Authority::new(&[]), 1)
    }

    fn hold(&self) -> Hold {
        let pasid = self.set.alloc(PasidRange::ALL).unwrap();
        self.set.hold(pasid).unwrap()
    }

    fn table(&self) -> u64 {
        self.next_table.fetch_add(0x1000, Ordering::Relaxed)
    }

    /// A process of the guest: an empty table of four levels.
    fn process(&self) -> Process<'_> {
        Process {
            tenant: self,
            root: self.table(),
        }
    }

    fn binding(&self, user: u64, space: Space, guest_pasid: Option<GuestPasid>) -> Binding {
        Binding {
            user: UserId(user),
            space,
            memory: self.memory.clone(),
            sink: self.sink.clone(),
            guest_bdf: GUEST,
            guest_pasid,
            fault_disable: FaultProcessing::Report,
            device_tlb: DeviceTlb::Allowed,
            supervisor: SupervisorRequests::Refused,
        }
    }

    fn pass_through(&self, user: u64) -> Binding {
        self.binding(user, Space::PassThrough, None)
    }

    /// Claims a function exclusively, with the tenant's sink for what is not bound.
    fn own(&self, function: &FunctionHandle) -> Claim {
        let claim = function.claim(self.id, Sharing::Exclusive).unwrap();
        function.set_default_sink(Some(self.sink.clone()), GUEST, UnknownTags::AsGuestPasid);
        claim
    }
}

struct Process<'a> {
    tenant: &'a Tenant,
    root: u64,
}

impl Process<'_> {
    /// Where the entry of an address stands at a level, with the tables above it made.
    fn entry(&self, at: u64, level: u32) -> u64 {
        let mut table = self.root;
        for above in (level + 1..=4).rev() {
            let here = table + ((at >> (9 * above)) & 0xff8);
            if self.tenant.shared.load_u64(here).unwrap() & 1 == 0 {
                self.tenant
                    .shared
                    .store_u64(here, self.tenant.table() | PAGE)
                    .unwrap();
            }
            table = self.tenant.shared.load_u64(here).unwrap() & 0x000f_ffff_ffff_f000;
        }
        table + ((at >> (9 * level)) & 0xff8)
    }

    fn put(&self, at: u64, level: u32, entry: u64) {
        self.tenant
            .shared
            .store_u64(self.entry(at, level), entry)
            .unwrap();
    }

    /// Maps a page of 4 KiB.
    fn map(&self, at: u64, to: u64) -> &Self {
        self.put(at, 1, to | PAGE);
        self
    }

    fn space(&self) -> Space {
        Space::FirstStage(FirstStage::new(Gpa::new(self.root), Levels::Four))
    }

    fn binding(&self, user: u64, guest_pasid: u32) -> Binding {
        let pasid = GuestPasid::new(guest_pasid).unwrap();
        self.tenant.binding(user, self.space(), Some(pasid))
    }
}

fn function(iommu: &Iommu) -> FunctionHandle {
    iommu.add_function(HOST, PasidSupport::Width(20)).unwrap()
}

fn guest(pasid: u32) -> GuestPasid {
    GuestPasid::new(pasid).unwrap()
}

/// The tag of an exclusive owner's own number.
fn tag(pasid: u32) -> Option<PasidTag> {
    Some(PasidTag::of_exclusive_owner(guest(pasid)))
}

/// The tag on a shared function.
fn shared_tag(pasid: HostPasid) -> Option<PasidTag> {
    Some(pasid.into())
}

fn by(tag: Option<PasidTag>) -> Requester {
    Requester::new(tag)
}

fn asking(tag: Option<PasidTag>) -> Requester {
    Requester {
        on_miss: OnMiss::Ask,
        ..Requester::new(tag)
    }
}

fn read(port: &mut DmaPort, tag: Option<PasidTag>, at: u64) -> Result<u64, DmaError> {
    let mut bytes = [0; 8];
    port.read(by(tag), Iova::new(at), &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn write(port: &mut DmaPort, tag: Option<PasidTag>, at: u64, word: u64) -> Result<(), DmaError> {
    port.write(by(tag), Iova::new(at), &word.to_le_bytes())
}

/// The reason of a fault.
fn refused<T: std::fmt::Debug>(result: Result<T, DmaError>) -> FaultReason {
    match result {
        Err(DmaError::Faulted { reason, .. }) => reason,
        other => panic!("not a fault: {other:?}"),
    }
}
