//! A guest for tests: memory, tables and queues of its own, in front of a unit, a container and a
//! platform that are the real ones.

mod space;

use std::sync::{Arc, Mutex};

use palisade_ioasid::{Authority, Quota};
use palisade_iommu::{
    DmaError, DmaPort, FunctionHandle, Iommu, OnMiss, PasidSupport, Requester, Sharing,
};
use palisade_memory::{GuestMemory, Protection, SharedMemory};
use palisade_pci::{Bar, Function};
use palisade_units::{Bdf, Gpa, GuestPasid, Iova, PasidTag, TenantId};
use palisade_vfio::{Attachment, Container};

use crate::spec::command::{Command, RootTableAddress, TranslationTableMode};
use crate::spec::context::{ContextEntry, ContextFlags, DirectorySize, GUEST_PASID_ZERO};
use crate::spec::descriptor::{InvDescriptor, PasidCacheScope, WaitFlags};
use crate::spec::fault::FaultRecord;
use crate::spec::page_request::PageRequestDescriptor;
use crate::spec::pasid_table::{DirectoryEntry, FirstStageFlags, PagingMode, PasidEntry};
use crate::spec::queue::{
    DescriptorWidth, InvalidationQueueAddress, PageRequestQueueAddress, QueueOrder,
};
use crate::spec::register as reg;
use crate::spec::root::RootEntry;
use crate::spec::{DomainId, event::EventControl};
use crate::{CachingMode, MessageSignal, Unit, UnitConfig, VcmdLayout};

pub(crate) use space::Space;

pub(crate) const MEMORY_BYTES: u64 = 16 << 20;
/// The guest's exclusive function, and where it is on the host.
pub(crate) const FUNCTION: Bdf = Bdf::new(0, 0x10, 0);
pub(crate) const HOST_FUNCTION: Bdf = Bdf::new(0x6a, 1, 0);
pub(crate) const DOMAIN: DomainId = DomainId::new(1);
pub(crate) const QUEUE_BYTES: u64 = 8192;
const TENANT: TenantId = TenantId::new(7);

pub(crate) fn pasid(raw: u32) -> GuestPasid {
    GuestPasid::new(raw).unwrap()
}

/// Keeps what the unit sent.
#[derive(Default)]
pub(crate) struct Messages(Mutex<Vec<(u64, u32)>>);

impl Messages {
    pub(crate) fn take(&self) -> Vec<(u64, u32)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl MessageSignal for Messages {
    fn send(&self, address: u64, data: u32) {
        self.0.lock().unwrap().push((address, data));
    }
}

pub(crate) struct Rig {
    pub(crate) authority: Authority,
    pub(crate) iommu: Iommu,
    pub(crate) container: Container,
    pub(crate) unit: Arc<Unit>,
    pub(crate) messages: Arc<Messages>,
    pub(crate) shared: SharedMemory,
    pub(crate) handle: FunctionHandle,
    attachments: Vec<Attachment>,
    next_frame: u64,
    pub(crate) root: Gpa,
    pub(crate) context_table: Gpa,
    pub(crate) directory: Gpa,
    queue: Gpa,
    status: Gpa,
    tail: u64,
    waits: u32,
}

pub(crate) struct Setup {
    pub(crate) vcmd: VcmdLayout,
    pub(crate) caching_mode: CachingMode,
    pub(crate) quota: u32,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            vcmd: VcmdLayout::Off,
            caching_mode: CachingMode::On,
            quota: 32,
        }
    }
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(Setup::default())
    }

    pub(crate) fn with(setup: Setup) -> Self {
        let authority = Authority::new(&[]);
        let set = authority
            .create_set(TENANT, Quota::Exactly(setup.quota))
            .unwrap();
        let container = Container::new(set);
        let iommu = Iommu::new();
        let handle = iommu
            .add_function(HOST_FUNCTION, PasidSupport::Width(20))
            .unwrap();
        let shared = SharedMemory::create("guest", MEMORY_BYTES).unwrap();
        let messages = Arc::new(Messages::default());
        let unit = Unit::new(
            UnitConfig {
                vcmd: setup.vcmd,
                caching_mode: setup.caching_mode,
            },
            container.clone(),
            connection(&shared),
            Arc::clone(&messages) as Arc<dyn MessageSignal>,
        );
        let mut rig = Self {
            authority,
            iommu,
            container,
            unit,
            messages,
            shared,
            handle: handle.clone(),
            attachments: Vec::new(),
            next_frame: 0x10_0000,
            root: Gpa::new(0),
            context_table: Gpa::new(0),
            directory: Gpa::new(0),
            queue: Gpa::new(0),
            status: Gpa::new(0),
            tail: 0,
            waits: 0,
        };
        rig.attach(FUNCTION, handle, Sharing::Exclusive);
        rig.root = rig.frames(1);
        rig.context_table = rig.frames(1);
        rig.directory = rig.frames(32);
        rig.queue = rig.frames(2);
        rig.status = rig.frames(1);
        rig
    }

    /// A rig whose guest has done what Linux does at boot, with page requests to a queue of one page.
    pub(crate) fn booted() -> Self {
        let mut rig = Self::new();
        rig.boot();
        rig
    }

    pub(crate) fn attach(&mut self, guest: Bdf, handle: FunctionHandle, sharing: Sharing) {
        let memory = connection(&self.shared);
        let attachment = self
            .container
            .attach(guest, handle, sharing, memory)
            .unwrap();
        self.attachments.push(attachment);
    }

    pub(crate) fn boot(&mut self) {
        self.set_context(FUNCTION, all_flags());
        self.set_root_table(TranslationTableMode::Scalable);
        self.enable_queue();
        self.set_page_request_queue(0);
        self.unmask(reg::FECTL, 0xfee0_1000, 0x41);
        self.unmask(reg::IECTL, 0xfee0_2000, 0x42);
        self.unmask(reg::PECTL, 0xfee0_3000, 0x43);
        self.command(Command::TRANSLATION_ENABLE);
    }

    // Registers.

    pub(crate) fn read32(&self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.unit.bar_read(Bar::Bar0, offset, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn read64(&self, offset: u64) -> u64 {
        let mut bytes = [0; 8];
        self.unit.bar_read(Bar::Bar0, offset, &mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn write32(&self, offset: u64, value: u32) {
        let bytes = value.to_le_bytes();
        self.unit.bar_write(Bar::Bar0, offset, &bytes).unwrap();
    }

    pub(crate) fn write64(&self, offset: u64, value: u64) {
        let bytes = value.to_le_bytes();
        self.unit.bar_write(Bar::Bar0, offset, &bytes).unwrap();
    }

    /// Sets a bit of the global command and keeps the others.
    pub(crate) fn command(&self, bit: Command) {
        let status = Command::from_bits_truncate(self.read32(reg::GSTS)) & Command::LASTING;
        self.write32(reg::GCMD, (status | bit).bits());
        assert!(Command::from_bits_truncate(self.read32(reg::GSTS)).contains(bit));
    }

    pub(crate) fn set_root_table(&self, mode: TranslationTableMode) {
        let root = RootTableAddress::at(self.root, mode);
        self.write64(reg::RTADDR, root.into_bits());
        self.command(Command::SET_ROOT_TABLE);
    }

    pub(crate) fn enable_queue(&mut self) {
        let order = QueueOrder::new(1).unwrap();
        let address = InvalidationQueueAddress::at(self.queue, order, DescriptorWidth::Bits256);
        self.write32(reg::IQT, 0);
        self.write64(reg::IQA, address.into_bits());
        self.tail = 0;
        self.command(Command::QUEUED_INVALIDATION_ENABLE);
    }

    pub(crate) fn set_page_request_queue(&mut self, order: u8) -> Gpa {
        let queue = self.frames(1 << order);
        let order = QueueOrder::new(order).unwrap();
        self.write64(reg::PQH, 0);
        self.write64(reg::PQT, 0);
        let address = PageRequestQueueAddress::at(queue, order);
        self.write64(reg::PQA, address.into_bits());
        queue
    }

    pub(crate) fn unmask(&self, control: u64, address: u32, data: u32) {
        self.write32(control + 4, data);
        self.write32(control + 8, address);
        self.write32(control + 12, 0);
        self.write32(control, EventControl::new().into_bits());
    }

    // Memory.

    /// Some pages of zeros.
    pub(crate) fn frames(&mut self, count: u64) -> Gpa {
        let at = self.next_frame;
        self.next_frame += count * 4096;
        assert!(self.next_frame <= MEMORY_BYTES);
        Gpa::new(at)
    }

    pub(crate) fn store(&self, at: Gpa, words: &[u64]) {
        // The last word first, so that what makes an entry present comes last.
        for (index, word) in words.iter().enumerate().rev() {
            let offset = at.get() + 8 * index as u64;
            self.shared.store_u64(offset, *word).unwrap();
        }
    }

    pub(crate) fn load(&self, at: Gpa) -> u64 {
        self.shared.load_u64(at.get()).unwrap()
    }

    fn at(base: Gpa, offset: u64) -> Gpa {
        base.checked_add(offset).unwrap()
    }

    // Tables.

    /// Points the function's root and context entries to the rig's directory.
    pub(crate) fn set_context(&self, function: Bdf, flags: ContextFlags) {
        let size = DirectorySize::ALL_PASIDS;
        let entry = ContextEntry::new(self.directory, size, GUEST_PASID_ZERO, flags);
        self.set_context_entry(function, entry);
    }

    pub(crate) fn set_context_entry(&self, function: Bdf, entry: ContextEntry) {
        let root = RootEntry::new(Some(self.context_table), Some(self.context_table));
        let at = Self::at(self.root, u64::from(function.bus()) * RootEntry::BYTES);
        self.store(at, &root.to_words());
        let at = Self::at(self.context_table, ContextEntry::offset_of(function));
        self.store(at, &entry.to_words());
    }

    /// Where the entry of a PASID is; makes its table if there is none.
    pub(crate) fn entry_at(&mut self, pasid: GuestPasid) -> Gpa {
        let at = Self::at(self.directory, DirectoryEntry::offset_of(pasid));
        let mut entry = DirectoryEntry::from_bits(self.load(at));
        if !entry.present() {
            entry = DirectoryEntry::to(self.frames(1));
            self.store(at, &[entry.into_bits()]);
        }
        Self::at(entry.table(), PasidEntry::offset_of(pasid))
    }

    pub(crate) fn set_entry(&mut self, pasid: GuestPasid, entry: PasidEntry) {
        let at = self.entry_at(pasid);
        self.store(at, &entry.to_words());
    }

    /// Binds a PASID to a page table as Linux does: entry, then invalidation.
    pub(crate) fn bind(&mut self, pasid: GuestPasid, space: &Space) {
        let entry = first_stage(space);
        self.set_entry(pasid, entry);
        self.tell_of(pasid);
    }

    pub(crate) fn unbind(&mut self, pasid: GuestPasid) {
        self.set_entry(pasid, PasidEntry::not_present());
        self.tell_of(pasid);
    }

    pub(crate) fn tell_of(&mut self, pasid: GuestPasid) {
        self.submit(&[InvDescriptor::pasid_cache(PasidCacheScope::Pasid(
            DOMAIN, pasid,
        ))]);
    }

    // Queues.

    /// Puts descriptors into the queue without moving the tail register.
    pub(crate) fn enqueue(&mut self, descriptors: &[InvDescriptor]) {
        for descriptor in descriptors {
            let at = Self::at(self.queue, self.tail);
            self.store(at, &descriptor.to_words());
            self.tail = (self.tail + 32) % QUEUE_BYTES;
        }
    }

    pub(crate) fn ring(&self) {
        self.write32(reg::IQT, u32::try_from(self.tail).unwrap());
    }

    /// Has descriptors processed, and waits for it as a driver does.
    pub(crate) fn submit(&mut self, descriptors: &[InvDescriptor]) {
        self.waits += 1;
        self.enqueue(descriptors);
        let wait = InvDescriptor::wait(self.status, self.waits, WaitFlags::empty());
        self.enqueue(&[wait]);
        self.ring();
        assert_eq!(
            self.status(),
            self.waits,
            "the queue stopped: FSTS {:#x}, IQER {:#x}",
            self.read32(reg::FSTS),
            self.read64(reg::IQER)
        );
    }

    pub(crate) fn status(&self) -> u32 {
        self.shared.load_u32(self.status.get()).unwrap()
    }

    pub(crate) fn status_address(&self) -> Gpa {
        self.status
    }

    pub(crate) fn queue_base(&self) -> Gpa {
        self.queue
    }

    pub(crate) fn page_request(&self, queue: Gpa, index: u64) -> PageRequestDescriptor {
        let at = Self::at(queue, index * PageRequestDescriptor::BYTES);
        let words = [0, 8, 16, 24].map(|offset| self.load(Self::at(at, offset)));
        PageRequestDescriptor::from_words(words).unwrap()
    }

    pub(crate) fn record(&self, index: u64) -> FaultRecord {
        let at = reg::FAULT_RECORDS + index * reg::FAULT_RECORD_BYTES;
        FaultRecord::from_words([self.read64(at), self.read64(at + 8)])
    }

    /// The record of the first fault, which software then clears.
    pub(crate) fn take_record(&self) -> Option<FaultRecord> {
        let status = crate::spec::event::FaultStatusRegister::from_bits(self.read32(reg::FSTS));
        let index = u64::from(status.first_record());
        let record = self.record(index);
        let at = reg::FAULT_RECORDS + index * reg::FAULT_RECORD_BYTES + 12;
        self.write32(at, 1 << 31);
        record.pending().then_some(record)
    }

    // Accesses of the device.

    pub(crate) fn read(&self, pasid: Option<GuestPasid>, at: Iova) -> Result<u64, DmaError> {
        let mut bytes = [0; 8];
        let by = Requester::new(pasid.map(PasidTag::of_exclusive_owner));
        self.handle.port().read(by, at, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    pub(crate) fn write(
        &self,
        pasid: Option<GuestPasid>,
        at: Iova,
        value: u64,
    ) -> Result<(), DmaError> {
        let by = Requester::new(pasid.map(PasidTag::of_exclusive_owner));
        self.handle.port().write(by, at, &value.to_le_bytes())
    }

    pub(crate) fn asking(pasid: GuestPasid) -> Requester {
        Requester {
            on_miss: OnMiss::Ask,
            ..Requester::new(Some(PasidTag::of_exclusive_owner(pasid)))
        }
    }

    pub(crate) fn port(&self) -> DmaPort {
        self.handle.port()
    }
}

/// What a connection sees of the guest's memory.
pub(crate) fn connection(shared: &SharedMemory) -> GuestMemory {
    let memory = GuestMemory::new();
    memory
        .map(
            Gpa::new(0),
            MEMORY_BYTES,
            shared.backing(),
            Protection::ReadWrite,
        )
        .unwrap();
    memory
}

pub(crate) fn all_flags() -> ContextFlags {
    ContextFlags::DEVICE_TLB | ContextFlags::PASID | ContextFlags::PAGE_REQUESTS
}

pub(crate) fn first_stage(space: &Space) -> PasidEntry {
    PasidEntry::first_stage(
        space.root,
        PagingMode::FourLevel,
        DOMAIN,
        FirstStageFlags::empty(),
    )
}
