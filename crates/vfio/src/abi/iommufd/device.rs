//! VFIO_DEVICE_BIND_IOMMUFD, and the closing of a device file.

use std::collections::BTreeMap;

use palisade_memory::GuestMemory;
use palisade_units::Bdf;

use super::layout::BindIommufd;
use super::objects::{Device, Object, Right};
use super::{Iommufd, IommufdError, attach, virtual_unit};
use crate::SpaceKey;
use crate::abi::argument::Argument;
use crate::abi::{AbiError, Answer};

/// The device is the client's, and reaches nothing until it is attached.
pub(super) fn bind(session: &Iommufd, place: Bdf, argument: &[u8]) -> Result<Answer, IommufdError> {
    let mut request: BindIommufd = Argument::new(argument)?.read()?;
    if request.flags.get() != 0 {
        return Err(AbiError::Flags(request.flags.get().into()).into());
    }
    if request.iommufd.get() != 0 {
        return Err(IommufdError::NoFile);
    }
    let mut objects = session.objects();
    if objects.device_at(place).is_some() {
        return Err(IommufdError::Value("the device is bound already"));
    }
    let right = take(session, place)?;
    let id = objects.add(Object::Device(Device {
        place,
        right,
        tables: BTreeMap::new(),
    }))?;
    request.out_devid = id.get().into();
    Ok(Answer::written(&request))
}

/// A device that is offered, or one that the host has attached. Until the client attaches it, and under what it is
/// not attached for, there is no memory.
fn take(session: &Iommufd, place: Bdf) -> Result<Right, IommufdError> {
    let container = session.container();
    let mut offered = session.vmm().offered.iter();
    let Some(offer) = offered.find(|offer| offer.guest_bdf == place) else {
        return Ok(Right::Leased(container.lease(place)?));
    };
    let nothing = GuestMemory::new();
    let attachment = container.attach(place, offer.function.clone(), offer.sharing, nothing)?;
    container.unbind(place, SpaceKey::WithoutPasid)?;
    Ok(Right::Own(attachment))
}

/// As closing a device file does: what the device is attached to is detached first, and its virtual device goes.
pub(super) fn close(
    session: &Iommufd,
    place: Bdf,
    argument: &[u8],
) -> Result<Answer, IommufdError> {
    let request: crate::abi::layout::FunctionPlace = Argument::new(argument)?.read()?;
    if request.flags.get() != 0 {
        return Err(AbiError::Flags(request.flags.get().into()).into());
    }
    if request.place.get() != u32::from(place.requester_id()) {
        return Err(IommufdError::Value("the place is that of another device"));
    }
    let mut objects = session.objects();
    let id = objects.device_at(place);
    let id = id.ok_or(AbiError::NoFunction(place))?;
    attach::detach_all(session, &mut objects, id)?;
    virtual_unit::forget_device(&mut objects, id);
    virtual_unit::name_devices(&objects, session.router());
    let device = objects.remove(id)?;
    drop(device);
    Ok(Answer::default())
}
