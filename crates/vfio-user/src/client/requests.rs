//! The requests that set a device up: each is sent at once and waited for.

use std::os::fd::{AsFd, BorrowedFd};

use palisade_memory::{Backing, Protection};
use palisade_units::Gpa;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::{Client, ClientError};
use crate::{
    Region,
    wire::{
        self, Command, DeviceInfo, DmaMap, DmaMapFlags, DmaUnmap, DmaUnmapFlags, IrqSet,
        IrqSetFlags,
    },
};

/// The interrupt types of a PCI device as VFIO numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IrqIndex {
    /// The pin; index 0.
    Intx,
    /// MSI; index 1.
    Msi,
    /// MSI-X; index 2.
    Msix,
    /// Errors; index 3.
    Error,
    /// The host wants the device back; index 4.
    Request,
}

impl IrqIndex {
    /// The index on the wire.
    #[must_use]
    pub const fn index(self) -> u32 {
        match self {
            Self::Intx => 0,
            Self::Msi => 1,
            Self::Msix => 2,
            Self::Error => 3,
            Self::Request => 4,
        }
    }
}

/// What a server says of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionInfo {
    /// The size in bytes; 0 where there is none.
    pub len_bytes: u64,
    /// [`wire::REGION_READS`], [`wire::REGION_WRITES`], and what other servers may add.
    pub flags: u32,
}

/// What a server says of an interrupt type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IrqInfo {
    /// How many there are.
    pub count: u32,
    /// [`wire::IRQ_IS_EVENTFD`], and what other servers may add.
    pub flags: u32,
}

impl Client {
    /// What the server says of the device: the numbers of regions and of interrupt types are in it.
    ///
    /// # Errors
    /// As [`Client::region_read`].
    pub fn device_info(&mut self) -> Result<DeviceInfo, ClientError> {
        let request = DeviceInfo {
            argsz: DeviceInfo::ARGSZ.into(),
            ..DeviceInfo::new_zeroed()
        };
        self.ask(Command::DeviceGetInfo, &request)
    }

    /// What the server says of a region.
    ///
    /// # Errors
    /// As [`Client::region_read`].
    pub fn region_info(&mut self, region: Region) -> Result<RegionInfo, ClientError> {
        let request = wire::RegionInfo {
            argsz: wire::RegionInfo::ARGSZ.into(),
            index: region.index().into(),
            ..wire::RegionInfo::new_zeroed()
        };
        let answer = self.ask(Command::DeviceGetRegionInfo, &request)?;
        Ok(RegionInfo {
            len_bytes: answer.len_bytes.get(),
            flags: answer.flags.get(),
        })
    }

    /// What the server says of an interrupt type.
    ///
    /// # Errors
    /// As [`Client::region_read`].
    pub fn irq_info(&mut self, irq: IrqIndex) -> Result<IrqInfo, ClientError> {
        let request = wire::IrqInfo {
            argsz: wire::IrqInfo::ARGSZ.into(),
            index: irq.index().into(),
            ..wire::IrqInfo::new_zeroed()
        };
        let answer = self.ask(Command::DeviceGetIrqInfo, &request)?;
        Ok(IrqInfo {
            count: answer.count.get(),
            flags: answer.flags.get(),
        })
    }

    /// Lets the device reach `len_bytes` at `at`, which are those of a file.
    ///
    /// # Errors
    /// As [`Client::region_read`].
    pub fn dma_map(
        &mut self,
        at: Gpa,
        len_bytes: u64,
        backing: &Backing,
        protection: Protection,
    ) -> Result<(), ClientError> {
        let request = map_request(at, len_bytes, backing.offset_bytes, protection);
        self.tell(
            Command::DmaMap,
            &[request.as_bytes()],
            &[backing.fd.as_fd()],
        )
    }

    /// Announces a range that has no file behind it.
    ///
    /// # Errors
    /// As [`Client::region_read`].
    pub fn dma_announce(
        &mut self,
        at: Gpa,
        len_bytes: u64,
        protection: Protection,
    ) -> Result<(), ClientError> {
        let request = map_request(at, len_bytes, 0, protection);
        self.tell(Command::DmaMap, &[request.as_bytes()], &[])
    }

    /// Takes back ranges. When it returns, the device uses them no more.
    ///
    /// # Errors
    /// As [`Client::region_read`].
    pub fn dma_unmap(&mut self, at: Gpa, len_bytes: u64) -> Result<(), ClientError> {
        self.unmap(at, len_bytes, DmaUnmapFlags::empty())
    }

    /// Takes back all ranges.
    ///
    /// # Errors
    /// As [`Client::region_read`].
    pub fn dma_unmap_all(&mut self) -> Result<(), ClientError> {
        self.unmap(Gpa::new(0), 0, DmaUnmapFlags::ALL)
    }

    /// Connects MSI-X vectors from `first` on to eventfds, which the server makes non-blocking.
    ///
    /// # Errors
    /// As [`Client::region_read`].
    pub fn set_irqs(&mut self, first: u16, eventfds: &[BorrowedFd<'_>]) -> Result<(), ClientError> {
        let limit = self.server.capabilities.max_descriptors;
        if eventfds.len() as u64 > limit {
            return Err(ClientError::TooManyDescriptors(eventfds.len(), limit));
        }
        let count = u32::try_from(eventfds.len()).unwrap_or(u32::MAX);
        self.irqs(IrqSetFlags::DATA_EVENTFD, first.into(), count, eventfds)
    }

    /// Disconnects `count` MSI-X vectors from `first` on.
    ///
    /// # Errors
    /// As [`Client::region_read`].
    pub fn clear_irqs(&mut self, first: u16, count: u16) -> Result<(), ClientError> {
        self.irqs(IrqSetFlags::DATA_EVENTFD, first.into(), count.into(), &[])
    }

    /// Disconnects all MSI-X vectors.
    ///
    /// # Errors
    /// As [`Client::region_read`].
    pub fn disable_irqs(&mut self) -> Result<(), ClientError> {
        self.irqs(IrqSetFlags::DATA_NONE, 0, 0, &[])
    }

    /// Has the server fire `count` MSI-X vectors from `first` on.
    ///
    /// # Errors
    /// As [`Client::region_read`].
    pub fn trigger_irqs(&mut self, first: u16, count: u16) -> Result<(), ClientError> {
        self.irqs(IrqSetFlags::DATA_NONE, first.into(), count.into(), &[])
    }

    /// Resets the device. When it returns, nothing of it is in flight.
    ///
    /// # Errors
    /// As [`Client::region_read`].
    pub fn reset(&mut self) -> Result<(), ClientError> {
        self.tell(Command::DeviceReset, &[], &[])
    }

    fn unmap(&mut self, at: Gpa, len_bytes: u64, how: DmaUnmapFlags) -> Result<(), ClientError> {
        let request = DmaUnmap {
            argsz: DmaUnmap::ARGSZ.into(),
            flags: how.bits().into(),
            address: at.get().into(),
            len_bytes: len_bytes.into(),
        };
        self.ask(Command::DmaUnmap, &request).map(|_| ())
    }

    fn irqs(
        &mut self,
        data: IrqSetFlags,
        start: u32,
        count: u32,
        eventfds: &[BorrowedFd<'_>],
    ) -> Result<(), ClientError> {
        let request = IrqSet {
            argsz: IrqSet::ARGSZ.into(),
            flags: (data | IrqSetFlags::TRIGGER).bits().into(),
            index: IrqIndex::Msix.index().into(),
            start: start.into(),
            count: count.into(),
        };
        self.tell(Command::DeviceSetIrqs, &[request.as_bytes()], eventfds)
    }

    /// A request whose answer has the request's shape, and perhaps more behind it.
    fn ask<T: FromBytes + IntoBytes + zerocopy::Immutable>(
        &mut self,
        command: Command,
        request: &T,
    ) -> Result<T, ClientError> {
        let answer = self.link.request(command, &[request.as_bytes()], &[])?;
        T::read_from_prefix(&answer[..])
            .map(|(answer, _)| answer)
            .map_err(|_| ClientError::Answer(command))
    }

    /// A request whose answer is empty.
    pub(super) fn tell(
        &mut self,
        command: Command,
        parts: &[&[u8]],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ClientError> {
        let answer = self.link.request(command, parts, descriptors)?;
        if answer.is_empty() {
            Ok(())
        } else {
            Err(ClientError::Answer(command))
        }
    }
}

fn map_request(at: Gpa, len_bytes: u64, offset_bytes: u64, protection: Protection) -> DmaMap {
    let flags = match protection {
        Protection::ReadOnly => DmaMapFlags::READ,
        Protection::ReadWrite => DmaMapFlags::READ | DmaMapFlags::WRITE,
    };
    DmaMap {
        argsz: DmaMap::ARGSZ.into(),
        flags: flags.bits().into(),
        offset_bytes: offset_bytes.into(),
        address: at.get().into(),
        len_bytes: len_bytes.into(),
    }
}
