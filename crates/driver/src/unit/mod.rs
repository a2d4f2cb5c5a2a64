//! The IOMMU unit, brought up and run as Linux does it in scalable mode.

mod faults;
mod pasids;
mod queue;
mod requests;
mod tables;

pub use faults::{FaultReport, Faults, Overflow};
pub use pasids::AllocatorKind;

use crate::{
    error::DriverError,
    guest::Guest,
    link::{Event, Link},
    space::AddressSpace,
    wait::{LIMIT, Patience},
};
use faults::FaultRecords;
use palisade_pci::Bar;
use palisade_units::{Bdf, Gpa, GuestPasid, Iova, PAGE_BYTES};
use palisade_vtd::spec::{
    DomainId,
    capability::{Capabilities, ExtendedCapabilities},
    command::{Command, RootTableAddress, TranslationTableMode},
    descriptor::{
        ContextScope, InvDescriptor, IotlbScope, LeafHint, PageGroupResponse, PageRange,
        PasidCacheScope, PasidIotlbScope, WaitFlags,
    },
    event::{EventControl, FaultStatus},
    page_request::PageRequestDescriptor,
    pasid_table::{FirstStageFlags, PagingMode, PasidEntry},
    register,
};
use pasids::Pasids;
use queue::InvalidationQueue;
use requests::RequestQueue;
use tables::{RID_PASID, Tables};

/// The domain of all first-stage tables, as Linux has one for them. 0 is reserved in caching mode.
const FIRST_STAGE_DOMAIN: DomainId = DomainId::new(1);

/// The driver of one unit.
#[derive(Debug)]
pub struct UnitDriver {
    link: Link,
    tables: Tables,
    queue: InvalidationQueue,
    requests: RequestQueue,
    records: FaultRecords,
    pasids: Pasids,
    /// The space of requests without a PASID: it maps nothing, as a DMA domain without mappings.
    rid_space: AddressSpace,
    max_address_mask: u8,
}

impl UnitDriver {
    /// Brings a unit up for some functions: root and context tables, queued invalidation, page requests, fault
    /// events, and translation on. Requests without a PASID reach nothing.
    ///
    /// # Errors
    /// [`DriverError::Unsupported`] if the unit lacks what shared virtual addressing needs; those of the connection.
    pub fn bring_up(
        mut link: Link,
        guest: &mut Guest,
        functions: &[Bdf],
    ) -> Result<Self, DriverError> {
        let cap = Capabilities::from_bits(link.read_u64(Bar::Bar0, register::CAP)?);
        let ecap = ExtendedCapabilities::from_bits(link.read_u64(Bar::Bar0, register::ECAP)?);
        check_capabilities(&link, ecap)?;
        let kind = AllocatorKind::choose(cap, ecap, |layout| {
            link.read_u64(Bar::Bar0, layout.capability_offset())
        })?;
        let mut unit = Self {
            tables: Tables::new(guest)?,
            queue: InvalidationQueue::new(guest)?,
            requests: RequestQueue::new(guest)?,
            records: FaultRecords::of(cap),
            pasids: Pasids::new(kind),
            rid_space: AddressSpace::new(guest)?,
            max_address_mask: cap.max_address_mask(),
            link,
        };
        unit.quiesce()?;
        unit.start_queue()?;
        unit.set_root(guest)?;
        unit.start_page_requests()?;
        unit.set_event(EventRegisters::FAULT, Event::Fault)?;
        unit.command(Command::TRANSLATION_ENABLE)?;
        for function in functions {
            unit.attach(guest, *function)?;
        }
        Ok(unit)
    }

    /// Gives one more function its context entry, as when its driver probes it.
    ///
    /// # Errors
    /// Those of the guest's memory and of the invalidation.
    pub fn attach(&mut self, guest: &mut Guest, function: Bdf) -> Result<(), DriverError> {
        self.tables.attach(guest, function)?;
        let context = ContextScope::Device {
            source: function,
            mask: palisade_vtd::spec::descriptor::FunctionMask::NONE,
            domain: DomainId::new(0),
        };
        self.invalidate(
            guest,
            &[
                InvDescriptor::context_cache(context),
                InvDescriptor::pasid_cache(PasidCacheScope::Global),
                InvDescriptor::iotlb(IotlbScope::Global),
            ],
        )?;
        let root = self.rid_space.root();
        self.bind(guest, function, RID_PASID, root)
    }

    /// Who gives out PASIDs.
    #[must_use]
    pub fn allocator(&self) -> AllocatorKind {
        self.pasids.kind()
    }

    /// Takes a PASID.
    ///
    /// # Errors
    /// [`DriverError::NoPasid`] when there is none left.
    pub fn allocate_pasid(&mut self) -> Result<GuestPasid, DriverError> {
        self.pasids.allocate(&mut self.link)
    }

    /// Gives a PASID back.
    ///
    /// # Errors
    /// [`DriverError::NoPasid`] when the host says that it was not this guest's.
    pub fn free_pasid(&mut self, pasid: GuestPasid) -> Result<(), DriverError> {
        self.pasids.free(&mut self.link, pasid)
    }

    /// Makes a PASID of a function translate by a page table with four levels.
    ///
    /// # Errors
    /// [`DriverError::NoSuchFunction`] for a function without a context entry.
    pub fn bind(
        &mut self,
        guest: &mut Guest,
        function: Bdf,
        pasid: GuestPasid,
        root: Gpa,
    ) -> Result<(), DriverError> {
        let flags = FirstStageFlags::empty();
        let entry = PasidEntry::first_stage(root, PagingMode::FourLevel, FIRST_STAGE_DOMAIN, flags);
        self.set_entry(guest, function, pasid, entry)
    }

    /// Writes any PASID entry and tells the unit of it, as caching mode wants it.
    ///
    /// # Errors
    /// As [`UnitDriver::bind`].
    pub fn set_entry(
        &mut self,
        guest: &mut Guest,
        function: Bdf,
        pasid: GuestPasid,
        entry: PasidEntry,
    ) -> Result<(), DriverError> {
        self.tables.set(guest, function, pasid, entry)?;
        let domain = entry.domain();
        self.invalidate(
            guest,
            &[
                InvDescriptor::pasid_cache(PasidCacheScope::Pasid(domain, pasid)),
                InvDescriptor::pasid_iotlb(domain, pasid, PasidIotlbScope::All),
            ],
        )
    }

    /// Takes a PASID's entry of a function away: not present first, then the caches, then the device's own, then
    /// page requests under way, and the rest of the entry last. On return nothing uses the page table
    /// any more; page requests that came meanwhile are in the queue.
    ///
    /// # Errors
    /// As [`UnitDriver::bind`].
    pub fn unbind(
        &mut self,
        guest: &Guest,
        function: Bdf,
        pasid: GuestPasid,
    ) -> Result<(), DriverError> {
        self.tables.clear(guest, function, pasid)?;
        let cached = [
            InvDescriptor::pasid_cache(PasidCacheScope::Pasid(FIRST_STAGE_DOMAIN, pasid)),
            InvDescriptor::pasid_iotlb(FIRST_STAGE_DOMAIN, pasid, PasidIotlbScope::All),
            InvDescriptor::pasid_dev_tlb(function, pasid, PageRange::ALL),
        ];
        let drain = WaitFlags::FENCE | WaitFlags::PAGE_REQUEST_DRAIN;
        self.queue.run(guest, &mut self.link, &cached, drain)?;
        self.tables.wipe(guest, function, pasid)
    }

    /// Drops what is cached of a range of a PASID, on all functions.
    ///
    /// # Errors
    /// Those of the connection and the queue.
    pub fn invalidate_range(
        &mut self,
        guest: &Guest,
        pasid: GuestPasid,
        at: Iova,
        len_bytes: u64,
    ) -> Result<(), DriverError> {
        let range = covering(at, len_bytes);
        let scope = match range.len_bytes() {
            Some(bytes) if bytes <= PAGE_BYTES << self.max_address_mask => {
                PasidIotlbScope::Pages(range, LeafHint::AnyLevel)
            }
            _ => PasidIotlbScope::All,
        };
        let mut descriptors = vec![InvDescriptor::pasid_iotlb(FIRST_STAGE_DOMAIN, pasid, scope)];
        for function in self.tables.functions() {
            descriptors.push(InvDescriptor::pasid_dev_tlb(function, pasid, range));
        }
        self.invalidate(guest, &descriptors)
    }

    /// Hands descriptors to the unit; they have taken effect on return.
    ///
    /// # Errors
    /// [`DriverError::Unit`] if the queue stopped at one of them.
    pub fn invalidate(
        &mut self,
        guest: &Guest,
        descriptors: &[InvDescriptor],
    ) -> Result<(), DriverError> {
        self.queue
            .run(guest, &mut self.link, descriptors, WaitFlags::empty())
    }

    /// Takes the page requests that came.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn take_page_requests(
        &mut self,
        guest: &Guest,
    ) -> Result<Vec<PageRequestDescriptor>, DriverError> {
        self.requests.take(guest, &mut self.link)
    }

    /// Answers page request groups.
    ///
    /// # Errors
    /// As [`UnitDriver::invalidate`].
    pub fn respond(
        &mut self,
        guest: &Guest,
        responses: &[PageGroupResponse],
    ) -> Result<(), DriverError> {
        let descriptors: Vec<_> = responses
            .iter()
            .map(|response| InvDescriptor::page_group_response(*response))
            .collect();
        self.invalidate(guest, &descriptors)
    }

    /// Takes the faults that were recorded.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn take_faults(&mut self) -> Result<Faults, DriverError> {
        self.records.take(&mut self.link)
    }

    /// How many faults can be pending at once.
    #[must_use]
    pub fn fault_capacity(&self) -> usize {
        self.records.count()
    }

    /// Turns translation off and the queues with it.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn shut_down(&mut self) -> Result<(), DriverError> {
        self.quiesce()
    }

    /// The connection, for what this driver does not do.
    pub fn link_mut(&mut self) -> &mut Link {
        &mut self.link
    }

    /// Turns off what a predecessor may have left on.
    fn quiesce(&mut self) -> Result<(), DriverError> {
        let errors = FaultStatus::all().difference(FaultStatus::PENDING);
        self.link
            .write_u32(Bar::Bar0, register::FSTS, errors.bits())?;
        let status = self.link.read_u32(Bar::Bar0, register::GSTS)?;
        let mut on = Command::from_bits_retain(status) & Command::LASTING;
        for bit in [
            Command::TRANSLATION_ENABLE,
            Command::QUEUED_INVALIDATION_ENABLE,
        ] {
            if on.contains(bit) {
                on.remove(bit);
                self.link.write_u32(Bar::Bar0, register::GCMD, on.bits())?;
                self.await_status(bit, Command::empty())?;
            }
        }
        Ok(())
    }

    fn start_queue(&mut self) -> Result<(), DriverError> {
        self.link.write_u64(Bar::Bar0, register::IQT, 0)?;
        let address = self.queue.address().into_bits();
        self.link.write_u64(Bar::Bar0, register::IQA, address)?;
        self.command(Command::QUEUED_INVALIDATION_ENABLE)
    }

    fn set_root(&mut self, guest: &Guest) -> Result<(), DriverError> {
        let root = RootTableAddress::at(self.tables.root(), TranslationTableMode::Scalable);
        self.link
            .write_u64(Bar::Bar0, register::RTADDR, root.into_bits())?;
        self.command(Command::SET_ROOT_TABLE)?;
        self.invalidate(
            guest,
            &[
                InvDescriptor::context_cache(ContextScope::Global),
                InvDescriptor::pasid_cache(PasidCacheScope::Global),
                InvDescriptor::iotlb(IotlbScope::Global),
            ],
        )
    }

    fn start_page_requests(&mut self) -> Result<(), DriverError> {
        self.set_event(EventRegisters::PAGE_REQUEST, Event::PageRequest)?;
        self.link.write_u64(Bar::Bar0, register::PQH, 0)?;
        self.link.write_u64(Bar::Bar0, register::PQT, 0)?;
        let address = self.requests.address().into_bits();
        self.link.write_u64(Bar::Bar0, register::PQA, address)
    }

    fn set_event(&mut self, registers: EventRegisters, event: Event) -> Result<(), DriverError> {
        let (address, data) = event.message();
        self.link.write_u32(Bar::Bar0, registers.data, data)?;
        self.link.write_u32(Bar::Bar0, registers.address, address)?;
        self.link.write_u32(Bar::Bar0, registers.upper_address, 0)?;
        let unmasked = EventControl::new().into_bits();
        self.link.write_u32(Bar::Bar0, registers.control, unmasked)
    }

    /// Gives a command beside those that last, and waits for its status.
    fn command(&mut self, command: Command) -> Result<(), DriverError> {
        let status = self.link.read_u32(Bar::Bar0, register::GSTS)?;
        let lasting = Command::from_bits_retain(status) & Command::LASTING;
        self.link
            .write_u32(Bar::Bar0, register::GCMD, (lasting | command).bits())?;
        self.await_status(command, command)
    }

    fn await_status(&mut self, mask: Command, wanted: Command) -> Result<(), DriverError> {
        let mut patience = Patience::new(LIMIT);
        loop {
            let status = self.link.read_u32(Bar::Bar0, register::GSTS)?;
            if Command::from_bits_retain(status) & mask == wanted {
                return Ok(());
            }
            patience.pause(|| format!("global status {wanted:?} of {mask:?}, now {status:#x}"))?;
        }
    }
}

/// The registers of one event (VT-d §11.4.7, §11.4.11).
#[derive(Clone, Copy)]
struct EventRegisters {
    control: u64,
    data: u64,
    address: u64,
    upper_address: u64,
}

impl EventRegisters {
    const FAULT: Self = Self {
        control: register::FECTL,
        data: register::FEDATA,
        address: register::FEADDR,
        upper_address: register::FEUADDR,
    };
    const PAGE_REQUEST: Self = Self {
        control: register::PECTL,
        data: register::PEDATA,
        address: register::PEADDR,
        upper_address: register::PEUADDR,
    };
}

fn check_capabilities(link: &Link, ecap: ExtendedCapabilities) -> Result<(), DriverError> {
    let needed = [
        (ecap.queued_invalidation(), "queued invalidation"),
        (ecap.scalable_mode(), "scalable mode"),
        (ecap.first_stage(), "first-stage translation"),
        (ecap.pasid(), "requests with a PASID"),
        (ecap.page_requests(), "page requests"),
        (ecap.pasid_width() == 19, "PASIDs of 20 bits"),
    ];
    match needed.iter().find(|(there, _)| !there) {
        None => Ok(()),
        Some((_, lacking)) => Err(DriverError::Unsupported {
            what: link.name().to_owned(),
            lacking: (*lacking).to_owned(),
        }),
    }
}

/// The smallest aligned power of two of pages that holds a range.
fn covering(at: Iova, len_bytes: u64) -> PageRange {
    let last = at.get().saturating_add(len_bytes.max(1) - 1);
    (0..52)
        .map(|order| PageRange::holding(at, order))
        .find(|range| {
            range
                .len_bytes()
                .is_some_and(|len| last - range.at().get() < len)
        })
        .unwrap_or(PageRange::ALL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r40_an_invalidated_range_covers_what_was_asked_for() {
        let range = covering(Iova::new(0x1000), 0x1000);
        assert_eq!(
            (range.at().get(), range.len_bytes()),
            (0x1000, Some(0x1000))
        );
        let range = covering(Iova::new(0x1000), 0x2000);
        assert_eq!((range.at().get(), range.len_bytes()), (0, Some(0x4000)));
        let range = covering(Iova::new(0x20_0000), 0x20_0000);
        assert_eq!(
            (range.at().get(), range.len_bytes()),
            (0x20_0000, Some(0x20_0000))
        );
        assert_eq!(covering(Iova::new(0), u64::MAX), PageRange::ALL);
    }
}
