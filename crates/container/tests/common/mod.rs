//! A host with one tenant, whose VMM asks over a socket.
#![expect(dead_code, reason = "each test program uses its part")]

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use palisade_container::{Client, ClientError, ConnectionError, EventFds, serve};
use palisade_ioasid::{Authority, Quota};
use palisade_iommu::{DmaError, DmaPort, FunctionHandle, Iommu, PasidSupport, Requester, Sharing};
use palisade_memory::{GuestMemory, Protection, SharedMemory};
use palisade_units::{Bdf, Gpa, HostPasid, Iova, TenantId};
use palisade_vfio::abi::{FaultDelivery, Offer, Offers, StageFormat, Unit, Vmm};
use palisade_vfio::{Abi, Attachment, Container, Nesting};

pub(crate) const BOTH: [Abi; 2] = [Abi::V1, Abi::V7];
pub(crate) const BUFFER: u64 = 0x7f00_0000_0000;
pub(crate) const RAM_BYTES: u64 = 1 << 20;
pub(crate) const PLACE: Bdf = Bdf::new(0, 4, 0);
const TABLES: u64 = RAM_BYTES / 2;

pub(crate) const UNIT: Unit = Unit {
    format: StageFormat::VtD,
    address_bits: 57,
    pasid_bits: 20,
    cap: 0x00d2_ff01_0038_0e06,
    ecap: 0x0003_ef9e_a4f0_10c7,
};

/// A tenant with a function at [`PLACE`] that the host has attached.
pub(crate) struct World {
    pub(crate) authority: Authority,
    pub(crate) iommu: Iommu,
    pub(crate) function: FunctionHandle,
    pub(crate) container: Container,
    pub(crate) vmm: Vmm,
    pub(crate) ram: SharedMemory,
    attachment: Option<Attachment>,
    next_table: AtomicU64,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut world = Self::without_function(Offers {
            units: vec![UNIT],
            ..Offers::default()
        });
        let memory = GuestMemory::new();
        let whole = Protection::ReadWrite;
        memory
            .map(Gpa::new(0), RAM_BYTES, world.ram.backing(), whole)
            .unwrap();
        let function = world.function.clone();
        let attached = world
            .container
            .attach(PLACE, function, Sharing::Mediated, memory);
        world.attachment = Some(attached.unwrap());
        world
    }

    /// A tenant whose VMM attaches the function and maps the memory itself, and is told of its faults.
    pub(crate) fn offering() -> Self {
        let mut world = Self::without_function(Offers::default());
        let offers = Offers {
            units: vec![UNIT],
            functions: vec![Offer {
                guest_bdf: PLACE,
                function: world.function.clone(),
                sharing: Sharing::Mediated,
            }],
            faults: FaultDelivery::ByRing(Arc::new(EventFds::default())),
            ..Offers::default()
        };
        world.vmm = Vmm::with(world.container.clone(), offers);
        world
    }

    fn without_function(offers: Offers) -> Self {
        let authority = Authority::new(&[]);
        let iommu = Iommu::audited_by(&authority);
        let set = authority.create_set(TenantId::new(1), Quota::default());
        let container = Container::new(set.unwrap());
        let function = iommu
            .add_function(Bdf::new(0x6a, 1, 0), PasidSupport::Width(20))
            .unwrap();
        Self {
            vmm: Vmm::with(container.clone(), offers),
            authority,
            iommu,
            function,
            container,
            ram: SharedMemory::create("guest", RAM_BYTES).unwrap(),
            attachment: None,
            next_table: AtomicU64::new(TABLES),
        }
    }

    /// Everything that the host has given out and bound, to compare.
    pub(crate) fn books(&self) -> String {
        format!("{:?} {:?}", self.authority.ledger(), self.iommu.audit())
    }

    /// Waits until the books are these again.
    pub(crate) fn wait_for(&self, books: &str) {
        wait_until(|| self.books() == books);
    }

    /// A process whose tables map each address to the page of RAM beside it.
    pub(crate) fn process(&self, pages: &[(u64, u64)]) -> Gpa {
        let root = self.new_table();
        for (virt, phys) in pages {
            self.map(root, *virt, *phys);
        }
        Gpa::new(root)
    }

    pub(crate) fn map(&self, root: u64, virt: u64, phys: u64) {
        let mut table = root;
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
        self.ram.store_u64(at, phys | 7).unwrap();
    }

    fn new_table(&self) -> u64 {
        let table = self.next_table.fetch_add(0x1000, Ordering::Relaxed);
        assert!(table < RAM_BYTES, "out of tables");
        table
    }

    /// A connection over a pair of sockets, served on a thread of its own.
    pub(crate) fn connect(&self, abi: Abi) -> (Result<Client, ClientError>, Serving) {
        let (theirs, serving) = self.serve();
        (Client::over(theirs, abi), serving)
    }

    /// A client that chose nesting.
    pub(crate) fn client(&self, abi: Abi) -> (Client, Serving) {
        let (client, serving) = self.connect(abi);
        let mut client = client.unwrap();
        client.set_nesting(Nesting::On).unwrap();
        (client, serving)
    }

    /// The client's end of a socket that is served.
    pub(crate) fn serve(&self) -> (UnixStream, Serving) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let vmm = self.vmm.clone();
        let thread = std::thread::spawn(move || serve(&ours, &vmm));
        (theirs, Serving(thread))
    }
}

/// A server of one connection.
pub(crate) struct Serving(JoinHandle<Result<(), ConnectionError>>);

impl Serving {
    pub(crate) fn end(self) -> Result<(), ConnectionError> {
        self.0.join().unwrap()
    }
}

pub(crate) fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited for too long");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The first 8 bytes that the device sees, by a PASID of the host; `None` where it is refused.
pub(crate) fn read(port: &mut DmaPort, pasid: HostPasid, at: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    match port.read(
        Requester::new(Some(pasid.into())),
        Iova::new(at),
        &mut bytes,
    ) {
        Ok(()) => Some(u64::from_le_bytes(bytes)),
        Err(DmaError::Faulted { .. }) => None,
        Err(other) => panic!("{other:?}"),
    }
}

pub(crate) fn errno<T: std::fmt::Debug>(result: Result<T, ClientError>) -> i32 {
    let error = result.unwrap_err();
    error
        .errno()
        .unwrap_or_else(|| panic!("{error}"))
        .raw_os_error()
}
