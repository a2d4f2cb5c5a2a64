use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use palisade_ioasid::{Authority, Hold, PasidSet, Quota};
use palisade_iommu::{
    DmaError, DmaPort, Fault, FaultReason, FirstStage, FunctionHandle, Iommu, Levels, PageRequest,
    PasidSupport, QueueFull, Requester, Sharing, Sink, Space,
};
use palisade_memory::{GuestMemory, Protection, SharedMemory};
use palisade_units::{Bdf, Gpa, GuestPasid, HostPasid, Iova, PasidTag, TenantId};

use crate::{Attachment, Container, SpaceKey, Terms, VfioError};

pub(super) const ENOENT: i32 = 2;
pub(super) const EACCES: i32 = 13;
pub(super) const EBUSY: i32 = 16;
pub(super) const EEXIST: i32 = 17;
pub(super) const ENODEV: i32 = 19;
pub(super) const EINVAL: i32 = 22;
pub(super) const ENOSPC: i32 = 28;
pub(super) const EOPNOTSUPP: i32 = 95;

pub(super) const RAM_BYTES: u64 = 1 << 20;
/// Below are data pages, above the tables.
const TABLES: u64 = RAM_BYTES / 2;
const PAGE: u64 = 4096;

pub(super) fn guest(raw: u32) -> GuestPasid {
    GuestPasid::new(raw).unwrap()
}

pub(super) fn host(raw: u32) -> HostPasid {
    HostPasid::new(raw).unwrap()
}

pub(super) fn errno<T: std::fmt::Debug>(result: Result<T, VfioError>) -> i32 {
    result.unwrap_err().errno()
}

/// The key of requests with a PASID.
pub(super) fn pasid(raw: u32) -> SpaceKey {
    SpaceKey::Pasid(guest(raw))
}

/// A place in a guest.
pub(super) fn slot(device: u8) -> Bdf {
    Bdf::new(0, device, 0)
}

/// The host: one namespace of PASIDs and one platform.
pub(super) struct Host {
    pub(super) authority: Authority,
    pub(super) iommu: Iommu,
}

impl Host {
    pub(super) fn new() -> Self {
        let authority = Authority::new(&[]);
        Self {
            iommu: Iommu::audited_by(&authority),
            authority,
        }
    }

    pub(super) fn parent(&self, device: u8) -> FunctionHandle {
        let bdf = Bdf::new(0x6a, device, 0);
        self.iommu
            .add_function(bdf, PasidSupport::Width(20))
            .unwrap()
    }

    pub(super) fn tenant(&self, number: u32) -> Tenant {
        self.tenant_with(number, Quota::default())
    }

    pub(super) fn tenant_with(&self, number: u32, quota: Quota) -> Tenant {
        let set = self
            .authority
            .create_set(TenantId::new(number), quota)
            .unwrap();
        Tenant::new(set)
    }

    /// Everything that the host has given out and bound, to compare.
    pub(super) fn books(&self) -> String {
        format!("{:?} {:?}", self.authority.ledger(), self.iommu.audit())
    }
}

/// One tenant with one function, at slot 4 of its guest.
pub(super) fn alone(sharing: Sharing) -> (Host, Tenant, FunctionHandle, Attachment) {
    let host_side = Host::new();
    let alice = host_side.tenant(1);
    let function = host_side.parent(1);
    let attachment = alice.attach(slot(4), &function, sharing).unwrap();
    (host_side, alice, function, attachment)
}

/// Tenants 1 and 2 with a slice each of one parent, at these places of their guests.
pub(super) fn neighbours(
    hers: Bdf,
    his: Bdf,
) -> (Host, [Tenant; 2], FunctionHandle, [Attachment; 2]) {
    let host_side = Host::new();
    let (alice, bob) = (host_side.tenant(1), host_side.tenant(2));
    let parent = host_side.parent(1);
    let slices = [alice.mediated(hers, &parent), bob.mediated(his, &parent)];
    (host_side, [alice, bob], parent, slices)
}

/// A tenant's unit, which only remembers what it was told.
#[derive(Default)]
pub(super) struct Unit {
    pub(super) faults: Mutex<Vec<Fault>>,
    pub(super) requests: Mutex<Vec<PageRequest>>,
}

impl Sink for Unit {
    fn fault(&self, fault: Fault) {
        self.faults.lock().unwrap().push(fault);
    }

    fn page_request(&self, request: PageRequest) -> Result<(), QueueFull> {
        self.requests.lock().unwrap().push(request);
        Ok(())
    }
}

/// A tenant with its guest's memory.
pub(super) struct Tenant {
    pub(super) container: Container,
    pub(super) unit: Arc<Unit>,
    pub(super) ram: SharedMemory,
    next_table: AtomicU64,
}

impl Tenant {
    fn new(set: PasidSet) -> Self {
        let container = Container::new(set);
        let unit = Arc::new(Unit::default());
        container.set_sink(unit.clone());
        Self {
            container,
            unit,
            ram: SharedMemory::create("guest", RAM_BYTES).unwrap(),
            next_table: AtomicU64::new(TABLES),
        }
    }

    /// What one connection of the tenant shares.
    pub(super) fn connection(&self) -> GuestMemory {
        let memory = GuestMemory::new();
        let whole = Protection::ReadWrite;
        memory
            .map(Gpa::new(0), RAM_BYTES, self.ram.backing(), whole)
            .unwrap();
        memory
    }

    pub(super) fn attach(
        &self,
        at: Bdf,
        function: &FunctionHandle,
        sharing: Sharing,
    ) -> Result<Attachment, VfioError> {
        self.container
            .attach(at, function.clone(), sharing, self.connection())
    }

    pub(super) fn mediated(&self, at: Bdf, function: &FunctionHandle) -> Attachment {
        self.attach(at, function, Sharing::Mediated).unwrap()
    }

    pub(super) fn exclusive(&self, at: Bdf, function: &FunctionHandle) -> Attachment {
        self.attach(at, function, Sharing::Exclusive).unwrap()
    }

    pub(super) fn bind(&self, at: Bdf, key: SpaceKey, space: Space) -> Result<(), VfioError> {
        self.container.bind(at, key, Terms::new(space))
    }

    /// A process whose tables map each address to the page of RAM beside it.
    pub(super) fn process(&self, pages: &[(u64, u64)]) -> Space {
        let root = self.new_table();
        let space = FirstStage::new(Gpa::new(root), Levels::Four);
        for (virt, phys) in pages {
            self.map(Space::FirstStage(space), *virt, *phys);
        }
        Space::FirstStage(space)
    }

    fn new_table(&self) -> u64 {
        let table = self.next_table.fetch_add(PAGE, Ordering::Relaxed);
        assert!(table < RAM_BYTES, "out of tables");
        table
    }

    /// The process maps a page, read, write, user.
    pub(super) fn map(&self, process: Space, virt: u64, phys: u64) {
        self.set_leaf(process, virt, phys | 7);
    }

    /// The process unmaps a page.
    pub(super) fn unmap(&self, process: Space, virt: u64) {
        self.set_leaf(process, virt, 0);
    }

    fn set_leaf(&self, process: Space, virt: u64, entry: u64) {
        let Space::FirstStage(first) = process else {
            panic!("not a process");
        };
        let mut table = first.root.get();
        for level in (1..4).rev() {
            let at = table + 8 * (virt >> (12 + 9 * level) & 511);
            let mut next = self.ram.load_u64(at).unwrap();
            if next == 0 {
                next = self.new_table() | 7;
                self.ram.store_u64(at, next).unwrap();
            }
            table = next & !0xfff;
        }
        let at = table + 8 * (virt >> 12 & 511);
        self.ram.store_u64(at, entry).unwrap();
    }

    pub(super) fn faults(&self) -> Vec<Fault> {
        self.unit.faults.lock().unwrap().clone()
    }
}

fn by(tag: Option<PasidTag>) -> Requester {
    Requester::new(tag)
}

/// The requester of a device that was programmed with what `hold` is on.
pub(super) fn holding(hold: &Hold) -> Option<PasidTag> {
    Some(hold.pasid().into())
}

/// The requester of an exclusive owner's device that was programmed with a number.
pub(super) fn raw(number: u32) -> Option<PasidTag> {
    Some(PasidTag::of_exclusive_owner(guest(number)))
}

/// The first 8 bytes that a device sees at an address, or why it sees none.
pub(super) fn read(port: &mut DmaPort, tag: Option<PasidTag>, at: u64) -> Result<u64, FaultReason> {
    let mut bytes = [0; 8];
    match port.read(by(tag), Iova::new(at), &mut bytes) {
        Ok(()) => Ok(u64::from_le_bytes(bytes)),
        Err(DmaError::Faulted { reason, .. }) => Err(reason),
        Err(other) => panic!("{other:?}"),
    }
}

pub(super) fn write(
    port: &mut DmaPort,
    tag: Option<PasidTag>,
    at: u64,
    value: u64,
) -> Result<(), FaultReason> {
    match port.write(by(tag), Iova::new(at), &value.to_le_bytes()) {
        Ok(()) => Ok(()),
        Err(DmaError::Faulted { reason, .. }) => Err(reason),
        Err(other) => panic!("{other:?}"),
    }
}
