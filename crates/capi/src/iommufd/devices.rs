//! Devices: bound, told of, attached, detached.

use palisade_vfio::abi::iommufd::ObjectId;
use safer_ffi::prelude::*;

use super::{Iommufd, making, with};
use crate::client::guest;
use crate::error::{call, needed, tell};
use crate::functions::place;

/// What the unit of a device can do.
#[derive_ReprC(rename = "palisade_hardware")]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hardware {
    /// CAP_REG, of a VT-d unit.
    pub cap: u64,
    /// ECAP_REG.
    pub ecap: u64,
    /// How many bits a PASID has, 0 where there are none.
    pub pasid_bits: u32,
    /// 1 where it is a VT-d unit.
    pub is_vtd: u32,
}

/// Binds the device at a place in the guest, and tells its id. It reaches nothing until it is attached.
///
/// EINVAL, also where it is bound; ENODEV where there is none, EEXIST and EBUSY where another connection has it, EBUSY where
/// another tenant has, ENOSPC beyond the quota.
#[ffi_export]
pub fn palisade_iommufd_bind(
    iommufd: Option<&Iommufd>,
    guest_bdf: u32,
    device: Option<Out<'_, u32>>,
) -> i32 {
    call(|| {
        let place = place(guest_bdf)?;
        making(iommufd, device, |client| client.bind(place))
    })
}

/// Closes a device: it is detached, and no longer bound. EINVAL, ENODEV.
#[ffi_export]
pub fn palisade_iommufd_close(iommufd: Option<&Iommufd>, guest_bdf: u32) -> i32 {
    call(|| {
        let place = place(guest_bdf)?;
        with(iommufd, |client| client.close(place))?;
        Ok(0)
    })
}

/// Tells what the unit of a device can do. EINVAL, ENOENT.
#[ffi_export]
pub fn palisade_iommufd_hardware(
    iommufd: Option<&Iommufd>,
    device: u32,
    hardware: Option<Out<'_, Hardware>>,
) -> i32 {
    call(|| {
        let hardware = needed(hardware, "where the information goes")?;
        let told = with(iommufd, |client| client.hardware(ObjectId::new(device)))?;
        let (cap, ecap) = told.vtd.unwrap_or_default();
        hardware.write(Hardware {
            cap,
            ecap,
            pasid_bits: told.pasid_bits.into(),
            is_vtd: told.vtd.is_some().into(),
        });
        Ok(0)
    })
}

/// Attaches a device, or a PASID of it, to a table; or to a space, for which there is a table then. Without a PASID
/// `guest_pasid` is `PALISADE_NO_PASID`. Tells which table it is, unless `attached` is null. What it was attached to is
/// replaced in one step, and stays where the new one is refused.
///
/// EINVAL, also where the table was not made for PASIDs; ENOENT, ENODEV where the device has gone, EBUSY where another device
/// has the PASID attached to another table on the same parent, ENOSPC beyond the quota.
#[ffi_export]
pub fn palisade_iommufd_attach(
    iommufd: Option<&Iommufd>,
    guest_bdf: u32,
    guest_pasid: u32,
    table: u32,
    attached: Option<Out<'_, u32>>,
) -> i32 {
    call(|| {
        let (place, pasid) = (place(guest_bdf)?, guest(guest_pasid)?);
        let table = ObjectId::new(table);
        let told = with(iommufd, |client| client.attach(place, pasid, table))?;
        tell(attached, told.get());
        Ok(0)
    })
}

/// Detaches a device, or a PASID of it. When this returns, nothing of it uses the table any more. EINVAL, also where the
/// device is not bound.
#[ffi_export]
pub fn palisade_iommufd_detach(iommufd: Option<&Iommufd>, guest_bdf: u32, guest_pasid: u32) -> i32 {
    call(|| {
        let (place, pasid) = (place(guest_bdf)?, guest(guest_pasid)?);
        with(iommufd, |client| client.detach(place, pasid))?;
        Ok(0)
    })
}
