//! A host with two tenants, whose VMMs ask over sockets.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use palisade_container::{Client, EventFds, FaultQueue, Process, serve};
use palisade_ioasid::{Authority, PasidRange, Quota};
use palisade_iommu::{FunctionHandle, Iommu, PasidSupport, Sharing};
use palisade_memory::{Protection, SharedMemory};
use palisade_units::{Bdf, Gpa, HostPasid, TenantId};
use palisade_vfio::abi::{FaultDelivery, Offer, Offers, StageFormat, Unit, Vmm};
use palisade_vfio::{Abi, Container, Nesting};

/// An address that no table leads anywhere from.
pub(crate) const MISSING: u64 = 0x7f00_0000_0000;
/// How long a VMM sleeps before it looks whether the round is over.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
const MEMORY_BYTES: u64 = 1 << 20;
const PLACE: Bdf = Bdf::new(0, 4, 0);
const UNIT: Unit = Unit {
    format: StageFormat::VtD,
    address_bits: 57,
    pasid_bits: 20,
    cap: 0x00d2_ff01_0038_0e06,
    ecap: 0x0003_ef9e_a4f0_10c7,
};

pub(crate) struct Host {
    authority: Authority,
    iommu: Iommu,
}

/// A tenant with a function and a process of which no page is there.
pub(crate) struct Tenant {
    pub(crate) client: Client,
    pub(crate) faults: FaultQueue,
    pub(crate) function: FunctionHandle,
    pub(crate) pasid: HostPasid,
    vmm: Vmm,
}

fn connect(vmm: &Vmm) -> Result<Client> {
    let (ours, theirs) = UnixStream::pair()?;
    let vmm = vmm.clone();
    // It ends with the client.
    std::thread::spawn(move || serve(&ours, &vmm));
    let mut client = Client::over(theirs, Abi::V7)?;
    client.set_nesting(Nesting::On)?;
    Ok(client)
}

impl Host {
    pub(crate) fn new() -> Result<Self> {
        let authority = Authority::new(&[]);
        let iommu = Iommu::audited_by(&authority);
        Ok(Self { authority, iommu })
    }

    pub(crate) fn tenant(&self, number: u8) -> Result<Tenant> {
        let tenant = TenantId::new(number.into());
        let set = self.authority.create_set(tenant, Quota::default())?;
        let at = Bdf::new(0x6a, number, 0);
        let function = self.iommu.add_function(at, PasidSupport::Width(20))?;
        let offers = Offers {
            units: vec![UNIT],
            functions: vec![Offer {
                guest_bdf: PLACE,
                function: function.clone(),
                sharing: Sharing::Mediated,
            }],
            faults: FaultDelivery::ByRing(Arc::new(EventFds::default())),
            ..Offers::default()
        };
        let vmm = Vmm::with(Container::new(set), offers);
        let mut client = connect(&vmm)?;
        let memory = SharedMemory::create("guest", MEMORY_BYTES)?;
        let backing = memory.backing();
        client.map(Gpa::new(0), MEMORY_BYTES, &backing, Protection::ReadWrite)?;
        client.attach(PLACE)?;
        let faults = client.fault_queue()?;
        let pasid = client.alloc_pasid(PasidRange::ALL)?;
        client.bind(pasid, None, Process::at(Gpa::new(0)))?;
        Ok(Tenant {
            client,
            faults,
            function,
            pasid,
            vmm,
        })
    }
}

impl Tenant {
    /// A further connection of the tenant's VMM.
    pub(crate) fn another_client(&self) -> Result<Client> {
        connect(&self.vmm)
    }
}
