//! A tenant as demos and tests have it: a guest with its unit and its accelerators.

use crate::{
    accelerator::{Accelerator, Devices},
    copy::{Completion, Copy},
    error::DriverError,
    guest::Guest,
    kernel::Kernel,
    link::Link,
    page_table::Rights,
    physical::Frame,
    unit::{AllocatorKind, FaultReport, UnitDriver},
};
use palisade_units::{Bdf, GuestPasid, Iova, PageSize};
use std::path::{Path, PathBuf};

/// A function of the tenant's: its place on the guest's bus, and the socket behind which it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionAddress {
    /// The place, as the host was told it.
    pub bdf: Bdf,
    /// The vfio-user socket.
    pub socket: PathBuf,
}

/// A guest whose devices are brought up.
#[derive(Debug)]
pub struct Tenant {
    pub(crate) kernel: Kernel,
    pub(crate) accelerators: Vec<Accelerator>,
    /// Where the next range of pages that appear on demand begins.
    pub(crate) next_lazy: Iova,
    /// Pages with the tenant's own data.
    planted: Vec<Frame>,
}

impl Tenant {
    /// Connects to the unit and the functions, gives each the same `memory_bytes` of memory from physical address 0 on, and
    /// brings all of them up.
    ///
    /// # Errors
    /// [`DriverError::Transport`] where nobody serves a socket, and what keeps a device from coming up.
    pub fn connect(
        unit_socket: &Path,
        functions: &[FunctionAddress],
        memory_bytes: u64,
    ) -> Result<Self, DriverError> {
        let mut guest = Guest::new(memory_bytes)?;
        let unit = Link::connect(unit_socket, "unit", &guest)?;
        let links = functions
            .iter()
            .map(|function| Link::connect(&function.socket, &function.bdf.to_string(), &guest))
            .collect::<Result<Vec<_>, _>>()?;
        let bdfs: Vec<Bdf> = functions.iter().map(|function| function.bdf).collect();
        let unit = UnitDriver::bring_up(unit, &mut guest, &bdfs)?;
        let mut kernel = Kernel::new(guest, unit);
        let accelerators = bdfs
            .into_iter()
            .zip(links)
            .map(|(bdf, link)| Accelerator::bring_up(link, bdf, &mut kernel))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            kernel,
            accelerators,
            next_lazy: Iova::new(0x3000_0000_0000),
            planted: Vec::new(),
        })
    }

    /// Memory, unit and processes.
    #[must_use]
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Memory, unit and processes, to be changed.
    pub fn kernel_mut(&mut self) -> &mut Kernel {
        &mut self.kernel
    }

    /// An accelerator and the kernel beside it.
    ///
    /// # Errors
    /// [`DriverError::NoSuchFunction`].
    pub fn accelerator_and_kernel(
        &mut self,
        bdf: Bdf,
    ) -> Result<(&mut Accelerator, &mut Kernel), DriverError> {
        let found = self
            .accelerators
            .iter_mut()
            .find(|accelerator| accelerator.bdf() == bdf);
        Ok((
            found.ok_or(DriverError::NoSuchFunction(bdf))?,
            &mut self.kernel,
        ))
    }

    /// An accelerator at work, with the others beside it, and the kernel.
    pub(crate) fn devices_and_kernel(
        &mut self,
        bdf: Bdf,
    ) -> Result<(Devices<'_>, &mut Kernel), DriverError> {
        Ok((Devices::new(&mut self.accelerators, bdf)?, &mut self.kernel))
    }

    /// Who gives out this tenant's PASIDs.
    #[must_use]
    pub fn allocator(&self) -> AllocatorKind {
        self.kernel.unit.allocator()
    }

    /// The PASIDs of the tenant's processes, ascending: the host's numbers where the host gives them out.
    #[must_use]
    pub fn pasids(&self) -> Vec<GuestPasid> {
        self.kernel.pasids()
    }

    /// Starts a process that all functions may work for.
    ///
    /// # Errors
    /// [`DriverError::NoPasid`], [`DriverError::OutOfMemory`], and those of the unit.
    pub fn start_process(&mut self) -> Result<GuestPasid, DriverError> {
        let pasid = self.kernel.start_process()?;
        for accelerator in &self.accelerators {
            self.kernel.bind(accelerator.bdf(), pasid)?;
        }
        Ok(pasid)
    }

    /// Ends a process: its queues are drained first, its PASID is given back last.
    ///
    /// # Errors
    /// [`DriverError::NoProcess`], and those of the devices.
    pub fn end_process(&mut self, pasid: GuestPasid) -> Result<(), DriverError> {
        for accelerator in &mut self.accelerators {
            accelerator.disable_queues_of(pasid, &mut self.kernel)?;
        }
        self.kernel.end_process(pasid)
    }

    /// Puts data at an address of a process, on pages of its own that devices may read and write. `at` begins a page.
    ///
    /// # Errors
    /// [`DriverError::Mapped`] where something is there, [`DriverError::BadRange`] where `at` begins no page.
    pub fn plant(&mut self, process: GuestPasid, at: Iova, data: &[u8]) -> Result<(), DriverError> {
        let (process, guest) = self.kernel.process_and_guest(process)?;
        for (offset, bytes) in (0..).step_by(4096).zip(data.chunks(4096)) {
            let page = at.checked_add(offset).ok_or(DriverError::BadRange {
                at,
                len_bytes: data.len() as u64,
                why: "it goes past the end of all addresses",
            })?;
            let frame = guest.take_zeroed(PageSize::Size4K)?;
            self.planted.push(frame);
            guest.write(frame.at, bytes)?;
            process
                .space_mut()
                .map(guest, page, frame, Rights::ReadWrite)?;
        }
        Ok(())
    }

    /// Reads what a process sees.
    ///
    /// # Errors
    /// [`DriverError::NotMapped`].
    pub fn peek(&self, process: GuestPasid, at: Iova, into: &mut [u8]) -> Result<(), DriverError> {
        self.kernel
            .process(process)?
            .space()
            .read(self.kernel.guest(), at, into)
    }

    /// Lets a function copy, and waits for it. What becomes of the copy is in the completion; an error is that there
    /// was none.
    ///
    /// # Errors
    /// [`DriverError::TimedOut`], [`DriverError::Command`] where no queue could be had for the process.
    pub fn copy(&mut self, bdf: Bdf, copy: Copy) -> Result<Completion, DriverError> {
        let outstanding = self.submit(bdf, &[copy])?;
        let ended = self.complete(outstanding)?.pop();
        ended.ok_or_else(|| DriverError::Unsupported {
            what: bdf.to_string(),
            lacking: "a completion of the copy".to_owned(),
        })
    }

    /// Takes the faults that the unit recorded.
    ///
    /// # Errors
    /// Those of the unit.
    pub fn take_faults(&mut self) -> Result<Vec<FaultReport>, DriverError> {
        self.pump()?;
        Ok(self.kernel.take_faults()?.reports)
    }

    /// Takes in the messages that came over all connections, and answers page requests.
    ///
    /// # Errors
    /// Those of the connections.
    pub fn pump(&mut self) -> Result<(), DriverError> {
        for accelerator in &mut self.accelerators {
            accelerator.take_events(&mut self.kernel)?;
        }
        self.kernel.serve()
    }

    /// Gives everything back, in order: work, processes with their PASIDs, translation. The connections stay until the tenant is
    /// dropped.
    ///
    /// # Errors
    /// Those of the devices; what the tenant still holds then goes with its connections.
    pub fn finish(&mut self) -> Result<(), DriverError> {
        for accelerator in &mut self.accelerators {
            accelerator.shut_down(&mut self.kernel)?;
        }
        for pasid in self.kernel.pasids() {
            self.kernel.end_process(pasid)?;
        }
        self.kernel.unit.shut_down()
    }

    /// A range of addresses that nothing of this tenant uses yet, with a gap after it.
    pub(crate) fn fresh_range(&mut self, len_bytes: u64) -> Iova {
        let at = self.next_lazy;
        let step = len_bytes.next_multiple_of(PageSize::Size2M.bytes()) + PageSize::Size2M.bytes();
        self.next_lazy = Iova::new(at.get() + step);
        at
    }
}
