//! The guest's side of the unit, as the VMM reads and writes it.

use palisade_container::{Invalidate, Process};
use palisade_iommu::{ExtendedAccessed, Fault, Levels, PageRequest, SupervisorRequests};
use palisade_units::{Gpa, GuestPasid, HostPasid, Iova};

/// What the vIOMMU needs of the rest of the VMM.
pub trait Guest {
    /// What stands in the guest's PASID table now; `None` where the entry is not present.
    fn pasid_entry(&self, pasid: GuestPasid) -> Option<PasidEntry>;
    /// The PASIDs whose entries are present.
    fn present_pasids(&self) -> Vec<GuestPasid>;
    /// Writes a fault record for the guest, with an interrupt.
    fn record_fault(&mut self, fault: Fault);
    /// Puts a request into the guest's page request queue, with an interrupt. The guest answers it, some time, by
    /// a page group response.
    fn request_page(&mut self, request: PageRequest);
}

/// An entry of a PASID table that translates by a first stage (VT-d §9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasidEntry {
    /// FSPTPTR.
    pub root: Gpa,
    /// FSPM.
    pub levels: Levels,
    /// SRE.
    pub supervisor: SupervisorRequests,
    /// EAFE.
    pub extended_accessed: ExtendedAccessed,
}

impl From<PasidEntry> for Process {
    fn from(entry: PasidEntry) -> Self {
        Self {
            root: entry.root,
            levels: entry.levels,
            supervisor: entry.supervisor,
            extended_accessed: entry.extended_accessed,
        }
    }
}

/// A descriptor of the guest's invalidation queue (VT-d §6.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// PASID cache, one PASID: its entry was written, changed or cleared.
    PasidEntry(GuestPasid),
    /// PASID cache, all of a domain or everything.
    PasidTable,
    /// IOTLB, everything that a PASID translates.
    Process(GuestPasid),
    /// IOTLB, pages.
    Pages(Pages),
    /// IOTLB, the domain or everything.
    All,
    /// Device TLB, pages. The host sends it to the devices.
    PagesInDevices(Pages),
}

/// Pages of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    /// Whose.
    pub pasid: GuestPasid,
    /// Where they start: a multiple of their length.
    pub at: Iova,
    /// Their length together: a power of two, 4 KiB at least.
    pub len_bytes: u64,
}

impl Pages {
    /// The same by the host's PASID, as the host has to be told.
    pub(crate) fn of(self, host: HostPasid) -> Invalidate {
        Invalidate::Pages {
            pasid: Some(host),
            at: self.at,
            granule_bytes: self.len_bytes,
            count: 1,
        }
    }
}
