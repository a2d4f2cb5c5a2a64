//! What a guest's kernel keeps together: its memory, its unit, its processes.

use crate::{
    error::DriverError,
    guest::Guest,
    link::Event,
    process::{Presence, Process},
    unit::{Faults, UnitDriver},
};
use palisade_units::{Bdf, GuestPasid, Iova};
use palisade_vtd::spec::{
    descriptor::{PageGroupResponse, ResponseCode},
    page_request::{PageRequestDescriptor, PlaceInGroup},
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How often to look for page requests whose event did not come: it travels over the connection of some device, and
/// the loop that waits may look at another one.
const LOOK: Duration = Duration::from_millis(1);

/// How many page requests were answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestCount {
    /// With a page.
    pub served: u64,
    /// With a refusal.
    pub refused: u64,
}

/// Memory, unit and processes of a guest.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) guest: Guest,
    pub(crate) unit: UnitDriver,
    processes: BTreeMap<GuestPasid, Process>,
    /// Which processes are bound on which functions.
    bound: Vec<(Bdf, GuestPasid)>,
    requests: RequestCount,
    page_event: bool,
    fault_events: u64,
    looked: Instant,
}

impl Kernel {
    /// A kernel without processes.
    #[must_use]
    pub fn new(guest: Guest, unit: UnitDriver) -> Self {
        Self {
            guest,
            unit,
            processes: BTreeMap::new(),
            bound: Vec::new(),
            requests: RequestCount::default(),
            page_event: false,
            fault_events: 0,
            looked: Instant::now(),
        }
    }

    /// Starts a process: takes a PASID and makes its address space. It is bound nowhere yet.
    ///
    /// # Errors
    /// [`DriverError::NoPasid`], [`DriverError::OutOfMemory`].
    pub fn start_process(&mut self) -> Result<GuestPasid, DriverError> {
        let pasid = self.unit.allocate_pasid()?;
        match Process::new(&mut self.guest, pasid) {
            Ok(process) => {
                self.processes.insert(pasid, process);
                Ok(pasid)
            }
            Err(error) => {
                self.unit.free_pasid(pasid)?;
                Err(error)
            }
        }
    }

    /// Lets a function translate by a process's page table.
    ///
    /// # Errors
    /// [`DriverError::NoProcess`], and those of the unit.
    pub fn bind(&mut self, function: Bdf, pasid: GuestPasid) -> Result<(), DriverError> {
        let root = self.process(pasid)?.space().root();
        self.unit.bind(&mut self.guest, function, pasid, root)?;
        if !self.bound.contains(&(function, pasid)) {
            self.bound.push((function, pasid));
        }
        Ok(())
    }

    /// Takes a process away from a function; page requests that it still has are refused.
    ///
    /// # Errors
    /// Those of the unit.
    pub fn unbind(&mut self, function: Bdf, pasid: GuestPasid) -> Result<(), DriverError> {
        self.bound.retain(|bound| *bound != (function, pasid));
        self.unit.unbind(&self.guest, function, pasid)?;
        self.answer_requests()
    }

    /// Ends a process: unbinds it everywhere, gives its PASID and its frames back.
    ///
    /// # Errors
    /// [`DriverError::NoProcess`], and those of the unit.
    pub fn end_process(&mut self, pasid: GuestPasid) -> Result<(), DriverError> {
        self.process(pasid)?;
        let bound: Vec<_> = self
            .bound
            .iter()
            .copied()
            .filter(|(_, of)| *of == pasid)
            .collect();
        for (function, pasid) in bound {
            self.unbind(function, pasid)?;
        }
        self.unit.free_pasid(pasid)?;
        if let Some(process) = self.processes.remove(&pasid) {
            process.release(&mut self.guest);
        }
        Ok(())
    }

    /// Takes a range of a process away. On return no device reaches it.
    ///
    /// # Errors
    /// Those of the table and the unit.
    pub fn unmap(
        &mut self,
        pasid: GuestPasid,
        at: Iova,
        len_bytes: u64,
    ) -> Result<(), DriverError> {
        let (process, guest) = self.process_and_guest(pasid)?;
        process.space_mut().unmap(guest, at, len_bytes)?;
        self.unit
            .invalidate_range(&self.guest, pasid, at, len_bytes)
    }

    /// Changes the rights of a range of a process. On return devices are held to them.
    ///
    /// # Errors
    /// Those of the table and the unit.
    pub fn protect(
        &mut self,
        pasid: GuestPasid,
        at: Iova,
        len_bytes: u64,
        rights: crate::page_table::Rights,
    ) -> Result<(), DriverError> {
        let (process, guest) = self.process_and_guest(pasid)?;
        process.space_mut().protect(guest, at, len_bytes, rights)?;
        self.unit
            .invalidate_range(&self.guest, pasid, at, len_bytes)
    }

    /// The PASIDs of the processes, ascending.
    #[must_use]
    pub fn pasids(&self) -> Vec<GuestPasid> {
        self.processes.keys().copied().collect()
    }

    /// A process by its PASID.
    ///
    /// # Errors
    /// [`DriverError::NoProcess`].
    pub fn process(&self, pasid: GuestPasid) -> Result<&Process, DriverError> {
        self.processes
            .get(&pasid)
            .ok_or(DriverError::NoProcess(pasid))
    }

    /// A process and the memory in which it lives, to be changed together.
    ///
    /// # Errors
    /// [`DriverError::NoProcess`].
    pub fn process_and_guest(
        &mut self,
        pasid: GuestPasid,
    ) -> Result<(&mut Process, &mut Guest), DriverError> {
        let process = self
            .processes
            .get_mut(&pasid)
            .ok_or(DriverError::NoProcess(pasid))?;
        Ok((process, &mut self.guest))
    }

    /// The guest's memory.
    #[must_use]
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// The guest's memory, to take frames of.
    pub fn guest_mut(&mut self) -> &mut Guest {
        &mut self.guest
    }

    /// The unit's driver, and the memory that it works on.
    pub fn unit_and_guest(&mut self) -> (&mut UnitDriver, &mut Guest) {
        (&mut self.unit, &mut self.guest)
    }

    /// How many page requests were answered so far.
    #[must_use]
    pub fn requests(&self) -> RequestCount {
        self.requests
    }

    /// Remembers an event until [`Kernel::serve`].
    pub fn note(&mut self, event: Event) {
        match event {
            Event::PageRequest => self.page_event = true,
            Event::Fault => self.fault_events += 1,
        }
    }

    /// Answers page requests if there was an event, or if the last look was a while ago.
    ///
    /// # Errors
    /// Those of the unit.
    pub fn serve(&mut self) -> Result<(), DriverError> {
        if self.page_event || self.looked.elapsed() >= LOOK {
            self.page_event = false;
            self.answer_requests()?;
            self.looked = Instant::now();
        }
        Ok(())
    }

    /// How many fault events came so far: one for each time that the unit's records filled from empty.
    #[must_use]
    pub fn fault_events(&self) -> u64 {
        self.fault_events
    }

    /// Takes the faults that the unit recorded.
    ///
    /// # Errors
    /// Those of the unit.
    pub fn take_faults(&mut self) -> Result<Faults, DriverError> {
        self.unit.take_faults()
    }

    fn answer_requests(&mut self) -> Result<(), DriverError> {
        loop {
            let requests = self.unit.take_page_requests(&self.guest)?;
            if requests.is_empty() {
                return Ok(());
            }
            let mut responses = Vec::with_capacity(requests.len());
            // A group's answer is a refusal as soon as one page of it is refused.
            let mut failed = Vec::new();
            for request in requests {
                let group = (request.requester, request.pasid, request.group);
                if self.answer(&request)? == Presence::Refused {
                    failed.push(group);
                }
                if request.place == PlaceInGroup::Last {
                    let before = failed.len();
                    failed.retain(|other| *other != group);
                    let code = if failed.len() == before {
                        ResponseCode::Success
                    } else {
                        ResponseCode::InvalidRequest
                    };
                    let (requester, pasid, group) = group;
                    responses.push(PageGroupResponse {
                        requester,
                        pasid,
                        group,
                        code,
                    });
                }
            }
            self.unit.respond(&self.guest, &responses)?;
        }
    }

    fn answer(&mut self, request: &PageRequestDescriptor) -> Result<Presence, DriverError> {
        let process = request
            .pasid
            .and_then(|pasid| self.processes.get_mut(&pasid));
        let bound = |pasid| self.bound.contains(&(request.requester, pasid));
        let presence = match process {
            Some(process) if bound(process.pasid()) => {
                process.page_in(&mut self.guest, request.at, request.access)?
            }
            _ => Presence::Refused,
        };
        match presence {
            Presence::Present => self.requests.served += 1,
            Presence::Refused => self.requests.refused += 1,
        }
        Ok(presence)
    }
}
