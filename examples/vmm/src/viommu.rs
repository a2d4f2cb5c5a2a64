//! The events, and their calls.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use palisade_container::{Client, ClientError, FaultQueue, Invalidate, Which};
use palisade_ioasid::PasidRange;
use palisade_iommu::{GroupIndex, PageResponse};
use palisade_memory::{Backing, Protection};
use palisade_units::{Bdf, Gpa, GuestPasid, HostPasid};
use palisade_vfio::{Abi, FaultRecord, Nesting};

use crate::guest::{Guest, Invalidation};

/// What a vIOMMU keeps for the container socket: the connection, and which PASID of the host stands for which of the
/// guest's.
///
/// An error says that the host refused. Nothing is bound then for what the guest asked, so that its devices' accesses
/// fault and the guest is told when they do. After an error without an errno the connection is no more, and the host
/// has taken everything back.
pub struct Viommu {
    client: Client,
    bound: BTreeMap<GuestPasid, HostPasid>,
}

impl Viommu {
    /// The machine is put together. The fault queue is for a thread of its own, that calls [`deliver`](Self::deliver).
    ///
    /// # Errors
    /// Those of the socket, and where the host does not offer nesting or a fault queue.
    pub fn connect(socket: &Path) -> Result<(Self, FaultQueue), ClientError> {
        let mut client = Client::connect(socket, Abi::V7)?;
        client.set_nesting(Nesting::On)?;
        let faults = client.fault_queue()?;
        let bound = BTreeMap::new();
        Ok((Self { client, bound }, faults))
    }

    /// Memory is plugged: the machine's RAM at first, later what it gets.
    ///
    /// # Errors
    /// The host's refusal.
    pub fn ram_added(
        &mut self,
        at: Gpa,
        len_bytes: u64,
        file: &Backing,
    ) -> Result<(), ClientError> {
        self.client.map(at, len_bytes, file, Protection::ReadWrite)
    }

    /// Memory is unplugged. It may be given away when this returns.
    ///
    /// # Errors
    /// The host's refusal.
    pub fn ram_removed(&mut self, at: Gpa, len_bytes: u64) -> Result<(), ClientError> {
        self.client.unmap(at, len_bytes)
    }

    /// A function is plugged behind this unit. What is bound is bound again, since the new one has nothing of it, and
    /// what was entered while there was no function is bound.
    ///
    /// # Errors
    /// The host's refusal.
    pub fn function_added(&mut self, bdf: Bdf, guest: &impl Guest) -> Result<(), ClientError> {
        self.client.attach(bdf)?;
        self.look_at_all(guest)
    }

    /// A function is plugged that the host attaches itself, as `palisade serve` does: the VMM has connected to its
    /// vfio-user socket, and told its memory there. What is bound is bound again, as above.
    ///
    /// # Errors
    /// The host's refusal.
    pub fn function_connected(&mut self, guest: &impl Guest) -> Result<(), ClientError> {
        self.look_at_all(guest)
    }

    /// A function is unplugged, or reset for good.
    ///
    /// # Errors
    /// The host's refusal.
    pub fn function_removed(&mut self, bdf: Bdf) -> Result<(), ClientError> {
        self.client.detach(bdf)
    }

    /// A descriptor of the invalidation queue. Everything before a wait descriptor has to have returned from here
    /// before that one's status is written: then nothing stale is used any more.
    ///
    /// # Errors
    /// The host's refusal.
    pub fn invalidated(
        &mut self,
        what: Invalidation,
        guest: &impl Guest,
    ) -> Result<(), ClientError> {
        let known = |pasid| self.bound.get(&pasid).copied();
        let (which, what) = match what {
            Invalidation::PasidEntry(pasid) => return self.look_at(pasid, guest),
            Invalidation::PasidTable => return self.look_at_all(guest),
            Invalidation::All => (Which::Translations, Some(Invalidate::All)),
            Invalidation::Process(pasid) => {
                (Which::Translations, known(pasid).map(Invalidate::Pasid))
            }
            Invalidation::Pages(pages) => {
                let of = known(pages.pasid);
                (Which::Translations, of.map(|host| pages.of(host)))
            }
            Invalidation::PagesInDevices(pages) => {
                let of = known(pages.pasid);
                (Which::InDevices, of.map(|host| pages.of(host)))
            }
        };
        // A guest may name what it never entered; nothing of that is cached.
        what.map_or(Ok(()), |what| self.client.invalidate(which, what))
    }

    /// Does for a PASID what its entry in the guest's table says now: the guest is in caching mode, so that it tells of
    /// new entries too (VT-d §6.1).
    fn look_at(&mut self, pasid: GuestPasid, guest: &impl Guest) -> Result<(), ClientError> {
        let known = self.bound.get(&pasid).copied();
        let Some(entry) = guest.pasid_entry(pasid) else {
            return self.give_up(pasid);
        };
        let host = match known {
            Some(host) => host,
            None => self.client.alloc_pasid(PasidRange::ALL)?,
        };
        self.bound.insert(pasid, host);
        let bound = self.client.bind(host, Some(pasid), entry.into());
        if bound.is_err() {
            // What was bound before must not stay either: the guest takes it for replaced.
            self.give_up(pasid)?;
        }
        bound
    }

    /// Frees a PASID, which unbinds and drains it first, and answers the page requests that are open. By the request that
    /// needs no function, since the last one may be gone before its entries are.
    fn give_up(&mut self, pasid: GuestPasid) -> Result<(), ClientError> {
        match self.bound.remove(&pasid) {
            None => Ok(()),
            Some(host) => self.client.ioasid_free(host),
        }
    }

    /// Looks at all that are bound and all that are to be, whatever comes of one of them; the first error counts.
    fn look_at_all(&mut self, guest: &impl Guest) -> Result<(), ClientError> {
        let mut all: BTreeSet<_> = self.bound.keys().copied().collect();
        all.extend(guest.present_pasids());
        let look = |outcome: Result<_, _>, pasid| outcome.and(self.look_at(pasid, guest));
        all.into_iter().fold(Ok(()), look)
    }

    /// A page group response descriptor. The guest may answer what it was never asked, or twice: ENOENT,
    /// and nothing has happened.
    ///
    /// # Errors
    /// The host's refusal.
    pub fn page_group_response(
        &mut self,
        bdf: Bdf,
        pasid: Option<GuestPasid>,
        group: GroupIndex,
        response: PageResponse,
    ) -> Result<(), ClientError> {
        self.client.respond(bdf, pasid, group, response)
    }

    /// What the host tells, on the thread that waits for it: in the guest's names already, so that it is only to be
    /// written where the guest looks. Returns when none has come for so long.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when the connection has ended, and those of the system.
    pub fn deliver(
        faults: &mut FaultQueue,
        wait: Duration,
        guest: &mut impl Guest,
    ) -> Result<(), ClientError> {
        while let Some(record) = faults.wait(wait)? {
            match record {
                FaultRecord::Fault(fault) => guest.record_fault(fault),
                FaultRecord::PageRequest(request) => guest.request_page(request),
            }
        }
        Ok(())
    }
}
