//! Devices: bound, told of, attached, detached.

use palisade_units::{Bdf, GuestPasid};
use palisade_vfio::abi::iommufd::layout::{
    BindIommufd, DEVICE_ATTACH_PASID, DEVICE_DETACH_PASID, DeviceAttach, DeviceDetach, HW_INFO_VTD,
    HwInfo, HwInfoVtd,
};
use palisade_vfio::abi::iommufd::{IommufdRequest, ObjectId, On};
use palisade_vfio::abi::layout::FunctionPlace;
use zerocopy::{FromBytes, IntoBytes};

use super::super::{ClientError, Reply, starts_with};
use super::IommufdClient;

/// What the unit of a device can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// How many bits a PASID has, 0 where there are none.
    pub pasid_bits: u8,
    /// CAP_REG and ECAP_REG, where it is a VT-d unit.
    pub vtd: Option<(u64, u64)>,
}

impl IommufdClient {
    /// Binds the device at a place. It reaches nothing until it is attached.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: ENODEV where there is none, EINVAL where it is bound; where another connection has
    /// it EEXIST for one that is offered and EBUSY for one of the host's, EBUSY where another tenant has it, ENOSPC
    /// beyond the quota.
    pub fn bind(&mut self, place: Bdf) -> Result<ObjectId, ClientError> {
        let request = BindIommufd {
            argsz: BindIommufd::ARGSZ.into(),
            ..BindIommufd::default()
        };
        let reply = self.on_device(place, IommufdRequest::DeviceBind, request.as_bytes())?;
        let told: BindIommufd = starts_with(&reply.written)?;
        Ok(ObjectId::new(told.out_devid.get()))
    }

    /// Closes a device's file: it is detached, and no longer bound.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: ENODEV.
    pub fn close(&mut self, place: Bdf) -> Result<(), ClientError> {
        let request = FunctionPlace {
            argsz: FunctionPlace::ARGSZ.into(),
            flags: 0.into(),
            place: u32::from(place.requester_id()).into(),
        };
        self.on_device(place, IommufdRequest::DeviceClose, request.as_bytes())?;
        Ok(())
    }

    /// What the unit of a device can do.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: ENOENT.
    pub fn hardware(&mut self, device: ObjectId) -> Result<Hardware, ClientError> {
        let request = HwInfo {
            size: HwInfo::ARGSZ.into(),
            dev_id: device.get().into(),
            data_len: HwInfoVtd::ARGSZ.into(),
            data_uptr: u64::from(HwInfo::ARGSZ).into(),
            ..HwInfo::default()
        };
        let reply = self.ask(IommufdRequest::GetHwInfo, &request)?;
        let (told, data) =
            HwInfo::read_from_prefix(&reply.written).map_err(|_| ClientError::Answer)?;
        let vtd = match told.data_type.get() {
            HW_INFO_VTD => {
                let vtd: HwInfoVtd = starts_with(data)?;
                Some((vtd.cap_reg.get(), vtd.ecap_reg.get()))
            }
            _ => None,
        };
        Ok(Hardware {
            pasid_bits: told.out_max_pasid_log2,
            vtd,
        })
    }

    /// Attaches a device, or a PASID of it, to a table; or to a space, for which there is a table then. Says which
    /// table it is. What it was attached to is replaced in one step, and stays where the new one is refused.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: ENOENT, EINVAL where the table was not made for PASIDs, EBUSY where another device
    /// has the PASID attached to another table on the same parent, ENOSPC beyond the quota.
    pub fn attach(
        &mut self,
        place: Bdf,
        pasid: Option<GuestPasid>,
        table: ObjectId,
    ) -> Result<ObjectId, ClientError> {
        let request = DeviceAttach {
            argsz: DeviceAttach::ARGSZ.into(),
            flags: pasid.map_or(0, |_| DEVICE_ATTACH_PASID).into(),
            pt_id: table.get().into(),
            pasid: pasid.map_or(0, GuestPasid::get).into(),
        };
        let reply = self.on_device(place, IommufdRequest::DeviceAttach, request.as_bytes())?;
        // Without a PASID the last field does not come back.
        const PT_ID: std::ops::Range<usize> = 8..12;
        let told = reply.written.get(PT_ID).ok_or(ClientError::Answer)?;
        let told: zerocopy::little_endian::U32 = starts_with(told)?;
        Ok(ObjectId::new(told.get()))
    }

    /// Detaches a device, or a PASID of it. When this returns, nothing of it uses the table any more.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: EINVAL where the device is not bound.
    pub fn detach(&mut self, place: Bdf, pasid: Option<GuestPasid>) -> Result<(), ClientError> {
        let request = DeviceDetach {
            argsz: DeviceDetach::ARGSZ.into(),
            flags: pasid.map_or(0, |_| DEVICE_DETACH_PASID).into(),
            pasid: pasid.map_or(0, GuestPasid::get).into(),
        };
        self.on_device(place, IommufdRequest::DeviceDetach, request.as_bytes())?;
        Ok(())
    }

    fn on_device(
        &mut self,
        place: Bdf,
        request: IommufdRequest,
        argument: &[u8],
    ) -> Result<Reply, ClientError> {
        self.ioctl(On::Device(place), request.number(), argument, &[])
    }
}
