//! Virtual units and devices, and their events.

use std::os::fd::OwnedFd;
use std::time::Duration;

use palisade_units::Bdf;
use palisade_vfio::abi::iommufd::layout::{
    VEVENTQ_LOST_EVENTS, VEVENTQ_TYPE_VTD, VIOMMU_TYPE_VTD, VdeviceAlloc, VeventHeader, VeventVtd,
    VeventqAlloc, ViommuAlloc,
};
use palisade_vfio::abi::iommufd::{IommufdRequest, ObjectId};

use super::super::{ClientError, starts_with};
use super::queues::read_up_to;
use super::{IommufdClient, descriptor};

/// How many events a client asks for room for.
const DEPTH: u32 = 64;

/// A queue of a virtual unit's events, with its file.
#[derive(Debug)]
pub struct Events {
    /// Its id.
    pub id: ObjectId,
    file: OwnedFd,
}

impl Events {
    /// Waits for an event, or for so long: its number, and the fault record of VT-d in its two words. Numbers that
    /// are missing are of events that found no room.
    ///
    /// # Errors
    /// [`ClientError::Closed`] where the queue is gone, and those of the system.
    pub fn wait(&self, timeout: Duration) -> Result<Option<(u32, [u64; 2])>, ClientError> {
        const HEADER: usize = size_of::<VeventHeader>();
        let mut event = [0; HEADER + size_of::<VeventVtd>()];
        let len_bytes = read_up_to(&self.file, timeout, &mut event)?;
        let header: VeventHeader = starts_with(&event)?;
        match len_bytes {
            0 => return Ok(None),
            // The next event's number tells as much.
            HEADER if header.flags.get() & VEVENTQ_LOST_EVENTS != 0 => return self.wait(timeout),
            len_bytes if len_bytes == event.len() => {}
            _ => return Err(ClientError::Answer),
        }
        let record: VeventVtd = starts_with(&event[HEADER..])?;
        let words = [record.low.get(), record.high.get()];
        Ok(Some((header.sequence.get(), words)))
    }

    /// What is readable while there may be something to take.
    #[must_use]
    pub fn file(&self) -> &OwnedFd {
        &self.file
    }
}

impl IommufdClient {
    /// Makes a virtual unit over a parent.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: ENOENT, EINVAL, EOPNOTSUPP.
    pub fn virtual_unit(
        &mut self,
        device: ObjectId,
        parent: ObjectId,
    ) -> Result<ObjectId, ClientError> {
        let request = ViommuAlloc {
            size: ViommuAlloc::ARGSZ.into(),
            viommu_type: VIOMMU_TYPE_VTD.into(),
            dev_id: device.get().into(),
            hwpt_id: parent.get().into(),
            ..ViommuAlloc::default()
        };
        let reply = self.ask(IommufdRequest::ViommuAlloc, &request)?;
        let told: ViommuAlloc = starts_with(&reply.written)?;
        Ok(ObjectId::new(told.out_viommu_id.get()))
    }

    /// Gives a device its name at a virtual unit.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: ENOENT, EEXIST.
    pub fn virtual_device(
        &mut self,
        unit: ObjectId,
        device: ObjectId,
        name: Bdf,
    ) -> Result<ObjectId, ClientError> {
        let request = VdeviceAlloc {
            size: VdeviceAlloc::ARGSZ.into(),
            viommu_id: unit.get().into(),
            dev_id: device.get().into(),
            out_vdevice_id: 0.into(),
            virt_id: u64::from(name.requester_id()).into(),
        };
        let reply = self.ask(IommufdRequest::VdeviceAlloc, &request)?;
        let told: VdeviceAlloc = starts_with(&reply.written)?;
        Ok(ObjectId::new(told.out_vdevice_id.get()))
    }

    /// Makes the queue of a virtual unit's events.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: ENOENT, EEXIST, and those of [`IommufdClient::page_requests`].
    pub fn events(&mut self, unit: ObjectId) -> Result<Events, ClientError> {
        let request = VeventqAlloc {
            size: VeventqAlloc::ARGSZ.into(),
            viommu_id: unit.get().into(),
            veventq_type: VEVENTQ_TYPE_VTD.into(),
            veventq_depth: DEPTH.into(),
            ..VeventqAlloc::default()
        };
        let reply = self.ask(IommufdRequest::VeventqAlloc, &request)?;
        let told: VeventqAlloc = starts_with(&reply.written)?;
        Ok(Events {
            id: ObjectId::new(told.out_veventq_id.get()),
            file: descriptor(reply)?,
        })
    }
}
