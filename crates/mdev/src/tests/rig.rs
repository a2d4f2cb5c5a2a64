//! A host with tenants, and a driver for a slice's or a whole device's registers.

use std::cell::Cell;
use std::sync::{Arc, Mutex};

use palisade_dsa::spec::{
    Command, CommandCode, CommandError, CommandStatus, CompletionRecord, Descriptor, Portal,
    QueueConfig, QueueLimits, QueueMode, SoftwareError, portal_offset, register,
};
use palisade_dsa::{Doorbell, Engine, Progress};
use palisade_ioasid::{Authority, PasidRange, Quota};
use palisade_iommu::{
    Fault, FirstStage, Iommu, Levels, PageRequest, PageResponse, PasidSupport, QueueFull, Sink,
    Space,
};
use palisade_memory::{GuestMemory, Protection, SharedMemory};
use palisade_pci::{Bar, Function};
use palisade_units::{Bdf, Gpa, GuestPasid, HostPasid, TenantId};
use palisade_vfio::{Container, SpaceKey, Terms};
use uuid::Uuid;
use zerocopy::{FromBytes, IntoBytes};

use crate::{Assigned, Parent, Registry, Shape, Slice, SliceType};

pub(super) const MEMORY_BYTES: u64 = 8 << 20;
/// Tables grow from here; below is for data.
const TABLES: u64 = 6 << 20;
const PRESENT_WRITE_USER: u64 = 0b111;

pub(super) const PARENT: Bdf = Bdf::new(0x6a, 1, 0);
pub(super) const SLOT: Bdf = Bdf::new(0, 0x10, 0);

struct Silent;

impl Doorbell for Silent {
    fn ring(&self) {}
}

pub(super) struct Host {
    pub(super) authority: Authority,
    pub(super) iommu: Iommu,
    pub(super) parent: Arc<Parent>,
    pub(super) registry: Registry,
}

impl Host {
    pub(super) fn new() -> Self {
        Self::reserving(&[])
    }

    /// A host that keeps some PASIDs for itself.
    pub(super) fn reserving(reserved: &[PasidRange]) -> Self {
        let iommu = Iommu::new();
        let function = iommu.add_function(PARENT, PasidSupport::Width(20)).unwrap();
        Self {
            authority: Authority::new(reserved),
            parent: Parent::new("dsa0", function, Shape::default(), Arc::new(Silent)),
            registry: Registry::new(),
            iommu,
        }
    }

    pub(super) fn tenant(&self, number: u32) -> Tenant {
        let memory = SharedMemory::create("tenant", MEMORY_BYTES).unwrap();
        self.tenant_with(number, memory)
    }

    /// A tenant whose guest has come here with its memory. It makes no tables.
    pub(super) fn arrived(&self, number: u32, from: &Tenant) -> Tenant {
        let tenant = self.tenant_with(number, from.memory.clone());
        tenant.next_table.set(MEMORY_BYTES);
        tenant
    }

    fn tenant_with(&self, number: u32, memory: SharedMemory) -> Tenant {
        let set = self
            .authority
            .create_set(TenantId::new(number), Quota::default())
            .unwrap();
        let container = Container::new(set);
        let unit = Arc::new(Unit::default());
        container.set_sink(Arc::clone(&unit) as Arc<dyn Sink>);
        let guest = GuestMemory::new();
        guest
            .map(
                Gpa::new(0),
                MEMORY_BYTES,
                memory.backing(),
                Protection::ReadWrite,
            )
            .unwrap();
        Tenant {
            container,
            memory,
            guest,
            unit,
            next_table: Cell::new(TABLES),
        }
    }

    pub(super) fn slice(&self, number: u128, kind: SliceType) -> Arc<Slice> {
        self.registry
            .create(Uuid::from_u128(number), &self.parent, kind)
            .unwrap()
    }

    /// A tenant with a slice of this type, whose one queue is configured and the device enabled.
    pub(super) fn with_slice(&self, number: u32, kind: SliceType) -> (Tenant, Assigned, Driver) {
        let tenant = self.tenant(number);
        let slice = self.slice(number.into(), kind);
        let assigned = slice
            .assign(&tenant.container, SLOT, tenant.guest.clone())
            .unwrap();
        let driver = Driver::bring_up(&assigned);
        (tenant, assigned, driver)
    }
}

#[derive(Default)]
pub(super) struct Unit {
    faults: Mutex<Vec<Fault>>,
    requests: Mutex<Vec<PageRequest>>,
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

impl Unit {
    pub(super) fn take_faults(&self) -> Vec<Fault> {
        std::mem::take(&mut self.faults.lock().unwrap())
    }

    pub(super) fn take_requests(&self) -> Vec<PageRequest> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

pub(super) fn guest(number: u32) -> GuestPasid {
    GuestPasid::new(number).unwrap()
}

pub(super) struct Tenant {
    pub(super) container: Container,
    pub(super) memory: SharedMemory,
    pub(super) guest: GuestMemory,
    pub(super) unit: Arc<Unit>,
    next_table: Cell<u64>,
}

impl Tenant {
    pub(super) fn id(&self) -> TenantId {
        self.container.set().tenant()
    }

    /// Binds a number of the guest's own to an empty process.
    pub(super) fn process(&self, number: u32) -> Process<'_> {
        self.process_at(SLOT, number)
    }

    pub(super) fn process_at(&self, bdf: Bdf, number: u32) -> Process<'_> {
        let process = Process {
            tenant: self,
            root: self.table(),
        };
        self.bind(bdf, number, process.root);
        process
    }

    /// A process whose table is there already, to map more.
    pub(super) const fn process_of(&self, root: u64) -> Process<'_> {
        Process { tenant: self, root }
    }

    pub(super) fn bind(&self, bdf: Bdf, number: u32, root: u64) {
        let space = Space::FirstStage(FirstStage::new(Gpa::new(root), Levels::Four));
        let key = SpaceKey::Pasid(guest(number));
        self.container.bind(bdf, key, Terms::new(space)).unwrap();
    }

    /// Takes a PASID as a guest with virtual commands does.
    pub(super) fn alloc(&self) -> HostPasid {
        self.container.alloc_pasid(PasidRange::ALL).unwrap()
    }

    pub(super) fn host_of(&self, number: u32) -> HostPasid {
        self.container
            .translate(SLOT, guest(number))
            .unwrap()
            .pasid()
    }

    fn table(&self) -> u64 {
        let table = self.next_table.get();
        assert!(table < MEMORY_BYTES, "no room for tables");
        self.next_table.set(table + 4096);
        table
    }

    /// Answers all page requests that are open.
    pub(super) fn answer(&self, response: PageResponse) -> usize {
        let requests = self.unit.take_requests();
        for request in &requests {
            let key = request
                .pasid
                .map_or(SpaceKey::WithoutPasid, SpaceKey::Pasid);
            self.container
                .respond(request.bdf, key, request.group, response)
                .unwrap();
        }
        requests.len()
    }

    pub(super) fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read(at, &mut bytes).unwrap();
        bytes
    }

    /// The record at a place of the memory, cleared for the next.
    pub(super) fn record(&self, at: u64) -> CompletionRecord {
        let record = CompletionRecord::read_from_bytes(&self.bytes(at, 32)).unwrap();
        self.memory.write(at, &[0; 32]).unwrap();
        record
    }
}

/// A four-level table in the tenant's memory.
pub(super) struct Process<'a> {
    tenant: &'a Tenant,
    pub(super) root: u64,
}

impl Process<'_> {
    /// Maps pages from `va` to those from `pa`.
    pub(super) fn map(&self, va: u64, pa: u64, pages: u64) {
        let memory = &self.tenant.memory;
        for page in 0..pages {
            let (va, pa) = (va + page * 4096, pa + page * 4096);
            let index = |level: u32| ((va >> (12 + 9 * level)) & 0x1ff) * 8;
            let mut table = self.root;
            for level in [3, 2, 1] {
                let entry = memory.load_u64(table + index(level)).unwrap();
                let next = if entry & 1 == 0 {
                    self.tenant.table()
                } else {
                    entry & !0xfff
                };
                memory
                    .store_u64(table + index(level), next | PRESENT_WRITE_USER)
                    .unwrap();
                table = next;
            }
            memory
                .store_u64(table + index(0), pa | PRESENT_WRITE_USER)
                .unwrap();
        }
    }
}

/// Runs an engine until it has nothing to do.
pub(super) fn run(engine: &mut Engine) {
    for _ in 0..100_000 {
        if engine.run(64) == Progress::Idle {
            return;
        }
    }
    panic!("the engine does not come to rest");
}

pub(super) const QUEUES: u64 = 0x800;
pub(super) const PERMISSIONS: u64 = 0x1000;
pub(super) const GROUPS: u64 = 0x400;
pub(super) const ENGINES: u64 = GROUPS + 32;

/// A driver of a function's first queue.
pub(super) struct Driver {
    pub(super) function: Arc<dyn Function>,
}

pub(super) fn dedicated(pasid: u32) -> QueueMode {
    QueueMode::new()
        .with_dedicated(true)
        .with_block_on_fault(true)
        .with_priority(1)
        .with_pasid(pasid)
        .with_pasid_enable(true)
}

impl Driver {
    /// A driver that has touched nothing yet.
    pub(super) fn new(assigned: &Assigned) -> Self {
        Self {
            function: assigned.function(),
        }
    }

    /// Turns everything on that a driver turns on, and configures the device.
    pub(super) fn configured(assigned: &Assigned) -> Self {
        let driver = Self::new(assigned);
        driver.function.config_write(4, &6_u16.to_le_bytes());
        driver.set_pasid_capability(1);
        driver.turn_on(0x13, 4, 1);
        driver.configure();
        driver
    }

    /// Configures the device with one queue of 64.
    pub(super) fn configure(&self) {
        let size = 64;
        let limits = QueueLimits::new()
            .with_max_transfer_shift(31)
            .with_max_batch_shift(10);
        let config = QueueConfig {
            size,
            threshold: size,
            mode: dedicated(0),
            limits,
        };
        for (at, word) in (QUEUES..).step_by(4).zip(config.words()) {
            self.write(at, word);
        }
        self.write(GROUPS, 1);
        self.write(ENGINES, 1);
    }

    /// Configures the device and enables it.
    pub(super) fn bring_up(assigned: &Assigned) -> Self {
        let driver = Self::configured(assigned);
        assert_eq!(
            driver.command(Command::ENABLE_DEVICE, 0),
            CommandError::SUCCESS
        );
        driver
    }

    pub(super) fn set_pasid_capability(&self, control: u16) {
        self.turn_on(0x1b, 6, control);
    }

    fn turn_on(&self, id: u16, offset: u16, control: u16) {
        let mut at = 0x100;
        loop {
            let mut header = [0; 4];
            self.function.config_read(at, &mut header);
            let header = u32::from_le_bytes(header);
            if header & 0xffff == u32::from(id) {
                self.function
                    .config_write(at + offset, &control.to_le_bytes());
                return;
            }
            at = u16::try_from(header >> 20).unwrap();
        }
    }

    pub(super) fn read(&self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.function
            .bar_read(Bar::Bar0, offset, &mut bytes)
            .unwrap();
        u32::from_le_bytes(bytes)
    }

    pub(super) fn write(&self, offset: u64, value: u32) {
        self.function
            .bar_write(Bar::Bar0, offset, &value.to_le_bytes())
            .unwrap();
    }

    pub(super) fn command_now(&self, code: CommandCode, operand: u32) -> CommandStatus {
        self.write(
            register::CMD,
            Command::of(code).with_operand(operand).into_bits(),
        );
        CommandStatus::from_bits(self.read(register::CMDSTS))
    }

    pub(super) fn command(&self, code: CommandCode, operand: u32) -> CommandError {
        let status = self.command_now(code, operand);
        assert!(!status.active());
        status.error()
    }

    /// Sets the mode word and enables the queue.
    pub(super) fn enable(&self, mode: QueueMode) -> CommandError {
        self.write(QUEUES + 8, mode.into_bits());
        self.command(Command::ENABLE_QUEUE, 0)
    }

    pub(super) fn disable(&self) {
        assert_eq!(
            self.command(Command::DISABLE_QUEUES, 1),
            CommandError::SUCCESS
        );
    }

    pub(super) fn submit(&self, descriptor: &Descriptor) {
        let at = portal_offset(0, Portal::Limited);
        self.function
            .bar_write(Bar::Bar2, at, descriptor.as_bytes())
            .unwrap();
    }

    /// The error register, acknowledged.
    pub(super) fn error(&self) -> Option<SoftwareError> {
        let half = |at| u64::from(self.read(at)) | (u64::from(self.read(at + 4)) << 32);
        let error = [0, 8, 16, 24].map(|offset| half(register::SWERR + offset));
        self.write(register::SWERR, 0b11);
        SoftwareError::decode(error)
    }
}
