//! The device on a platform of its own, with a driver that knows its registers.
#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "each test program uses its part"
)]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use edu::{Edu, registers};
use palisade_ioasid::{Authority, Hold, PasidRange, PasidSet, Quota};
use palisade_iommu::{
    Binding, Claim, DeviceTlb, Fault, FaultProcessing, FirstStage, FunctionHandle, Iommu, Levels,
    PageRequest, PasidSupport, QueueFull, Sharing, Sink, Space, SupervisorRequests, UserId,
};
use palisade_memory::{GuestMemory, Protection, SharedMemory};
use palisade_pci::{Bar, Function, Interrupt};
use palisade_units::{Bdf, Gpa, GuestPasid, PasidTag, TenantId};

pub(crate) const MEMORY_BYTES: u64 = 4 << 20;
pub(crate) const PROCESS: u32 = 5;
/// The process's tables, from the root down, for its lowest 2 MiB.
const TABLES: [u64; 4] = [0x10_0000, 0x10_1000, 0x10_2000, 0x10_3000];
/// Present, writable, user.
const PAGE: u64 = 7;
const WAIT: Duration = Duration::from_secs(20);

/// What the guest was told.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) faults: Mutex<Vec<Fault>>,
    pub(crate) requests: Mutex<Vec<PageRequest>>,
}

impl Sink for Told {
    fn fault(&self, fault: Fault) {
        self.faults.lock().unwrap().push(fault);
    }

    fn page_request(&self, request: PageRequest) -> Result<(), QueueFull> {
        self.requests.lock().unwrap().push(request);
        Ok(())
    }
}

struct Rings(Sender<()>);

impl Interrupt for Rings {
    fn signal(&self) {
        let _ = self.0.send(());
    }
}

pub(crate) struct Rig {
    pub(crate) edu: Arc<Edu>,
    pub(crate) function: FunctionHandle,
    pub(crate) shared: SharedMemory,
    pub(crate) told: Arc<Told>,
    interrupts: Receiver<()>,
    _claim: Claim,
}

fn hold(set: &PasidSet) -> Hold {
    set.hold(set.alloc(PasidRange::ALL).unwrap()).unwrap()
}

pub(crate) fn tag() -> PasidTag {
    PasidTag::of_exclusive_owner(GuestPasid::new(PROCESS).unwrap())
}

impl Rig {
    /// Requests without a PASID reach all memory, those of the process what is mapped for it. Nothing is
    /// enabled but access to memory.
    pub(crate) fn new() -> Self {
        let tenant = TenantId::new(1);
        let set = Authority::new(&[])
            .create_set(tenant, Quota::Exactly(10))
            .unwrap();
        let bdf = Bdf::new(0x6a, 1, 0);
        let function = Iommu::new()
            .add_function(bdf, PasidSupport::Width(20))
            .unwrap();
        let claim = function.claim(tenant, Sharing::Exclusive).unwrap();
        let shared = SharedMemory::create("guest", MEMORY_BYTES).unwrap();
        let memory = GuestMemory::new();
        memory
            .map(
                Gpa::new(0),
                MEMORY_BYTES,
                shared.backing(),
                Protection::ReadWrite,
            )
            .unwrap();
        for (table, below) in TABLES.iter().zip(&TABLES[1..]) {
            shared.store_u64(*table, below | PAGE).unwrap();
        }
        let told = Arc::new(Told::default());
        let binding = |space, guest_pasid| Binding {
            user: UserId(1),
            space,
            memory: memory.clone(),
            sink: Arc::clone(&told) as _,
            guest_bdf: Bdf::new(0, 0x11, 0),
            guest_pasid,
            fault_disable: FaultProcessing::Report,
            device_tlb: DeviceTlb::Allowed,
            supervisor: SupervisorRequests::Refused,
        };
        function
            .bind(None, hold(&set), binding(Space::PassThrough, None))
            .unwrap();
        let tables = FirstStage::new(Gpa::new(TABLES[0]), Levels::Four);
        let process = binding(
            Space::FirstStage(tables),
            Some(GuestPasid::new(PROCESS).unwrap()),
        );
        function.bind(Some(tag()), hold(&set), process).unwrap();
        let edu = Edu::new(function.clone()).unwrap();
        let (rings, interrupts) = channel();
        edu.set_vector(0, Some(Arc::new(Rings(rings))));
        edu.config_write(4, &[0b110]);
        Self {
            edu,
            function,
            shared,
            told,
            interrupts,
            _claim: claim,
        }
    }

    /// Maps a page of the process.
    pub(crate) fn map(&self, at: u64, to: u64) {
        let entry = TABLES[3] + at / 4096 * 8;
        self.shared.store_u64(entry, to | PAGE).unwrap();
    }

    pub(crate) fn memory(&self, at: u64) -> u64 {
        self.shared.load_u64(at).unwrap()
    }

    pub(crate) fn config_u32(&self, at: u16) -> u32 {
        let mut bytes = [0; 4];
        self.edu.config_read(at, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Where an extended capability starts (PCIe 7.6.3).
    pub(crate) fn extended(&self, id: u32) -> u16 {
        let mut at = 0x100;
        while self.config_u32(at) & 0xffff != id {
            at = u16::try_from(self.config_u32(at) >> 20).unwrap();
            assert_ne!(at, 0, "no extended capability {id:#x}");
        }
        at
    }

    pub(crate) fn enable_pasid(&self) {
        self.edu.config_write(self.extended(0x1b) + 6, &[1, 0]);
    }

    pub(crate) fn enable_ats(&self) {
        self.edu.config_write(self.extended(0x0f) + 6, &[0, 0x80]);
    }

    pub(crate) fn enable_page_requests(&self) {
        self.edu.config_write(self.extended(0x13) + 4, &[1, 0]);
    }

    pub(crate) fn read(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.edu.bar_read(Bar::Bar0, at, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn read_u64(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.edu.bar_read(Bar::Bar0, at, &mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn write(&self, at: u64, value: u32) {
        let bytes = value.to_le_bytes();
        self.edu.bar_write(Bar::Bar0, at, &bytes).unwrap();
    }

    pub(crate) fn write_u64(&self, at: u64, value: u64) {
        let bytes = value.to_le_bytes();
        self.edu.bar_write(Bar::Bar0, at, &bytes).unwrap();
    }

    /// Names the process, or nobody.
    pub(crate) fn work_for(&self, process: Option<u32>) {
        let value = process.map_or(0, |pasid| pasid | registers::PASID_ENABLE);
        self.write(registers::PASID, value);
    }

    /// Starts a copy by doorbells of 64 bits.
    pub(crate) fn start(&self, from: u64, to: u64, len_bytes: u64) {
        self.write_u64(registers::SOURCE, from);
        self.write_u64(registers::DESTINATION, to);
        self.write_u64(registers::COUNT, len_bytes);
        let command = registers::START | registers::INTERRUPT_WHEN_COPIED;
        self.write_u64(registers::COMMAND, command.into());
    }

    pub(crate) fn interrupted(&self) {
        self.interrupts.recv_timeout(WAIT).unwrap();
    }

    pub(crate) fn not_interrupted(&self) {
        assert!(self.interrupts.try_recv().is_err());
    }

    /// Waits for the page request after the first `known`.
    pub(crate) fn page_request(&self, known: usize) -> PageRequest {
        let end = Instant::now() + WAIT;
        loop {
            if let Some(request) = self.told.requests.lock().unwrap().get(known) {
                return *request;
            }
            assert!(Instant::now() < end, "no page request");
            std::thread::yield_now();
        }
    }

    /// Waits until no copy runs, and says how the last one ended.
    pub(crate) fn outcome(&self) -> u32 {
        let end = Instant::now() + WAIT;
        while self.read(registers::COMMAND) & registers::START != 0 {
            assert!(Instant::now() < end, "the copy does not end");
            std::thread::yield_now();
        }
        self.read(registers::RESULT)
    }
}
