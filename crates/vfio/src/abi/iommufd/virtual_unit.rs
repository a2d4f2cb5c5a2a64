//! IOMMU_VIOMMU_ALLOC and IOMMU_VDEVICE_ALLOC.

use std::collections::BTreeMap;

use palisade_units::Bdf;

use super::argument::{Message, known_flags, reserved};
use super::layout::{VIOMMU_TYPE_VTD, VdeviceAlloc, ViommuAlloc};
use super::objects::{Object, Objects, VirtualDevice};
use super::router::Router;
use super::table::parent_of;
use super::{Iommufd, IommufdError, ObjectId};
use crate::abi::Answer;

pub(super) fn alloc(session: &Iommufd, message: Message<'_>) -> Result<Answer, IommufdError> {
    let mut request: ViommuAlloc = message.read()?;
    known_flags(request.flags.get(), 0)?;
    reserved(request.reserved.get() | request.data_len.get())?;
    let mut objects = session.objects();
    objects.device(ObjectId::new(request.dev_id.get()))?;
    if request.viommu_type.get() != VIOMMU_TYPE_VTD || !session.vmm().nested.has_format() {
        return Err(IommufdError::NotOffered("a virtual unit of that type"));
    }
    let parent = ObjectId::new(request.hwpt_id.get());
    objects.table(parent)?;
    parent_of(&objects, parent)?;
    let id = objects.add(Object::VirtualUnit(parent))?;
    request.out_viommu_id = id.get().into();
    Ok(message.written(&request))
}

pub(super) fn alloc_device(
    session: &Iommufd,
    message: Message<'_>,
) -> Result<Answer, IommufdError> {
    let mut request: VdeviceAlloc = message.read()?;
    let name = u16::try_from(request.virt_id.get());
    let name = name.map_err(|_| IommufdError::Value("the name of a device has 16 bits"))?;
    let name = Bdf::from_requester_id(name);
    let unit = ObjectId::new(request.viommu_id.get());
    let device = ObjectId::new(request.dev_id.get());
    let mut objects = session.objects();
    objects.virtual_unit(unit)?;
    objects.device(device)?;
    let clashes =
        |one: &VirtualDevice| one.device == device || one.unit == unit && one.name == name;
    let clash = objects.all().any(|(_, object)| match object {
        Object::VirtualDevice(one) => clashes(one),
        _ => false,
    });
    if clash {
        return Err(IommufdError::Exists(
            "the device has a name already, or another one has this",
        ));
    }
    let id = objects.add(Object::VirtualDevice(VirtualDevice { unit, device, name }))?;
    name_devices(&objects, session.router());
    request.out_vdevice_id = id.get().into();
    Ok(message.written(&request))
}

/// The device is no longer bound.
pub(super) fn forget_device(objects: &mut Objects, device: ObjectId) {
    let of_it =
        |object: &Object| matches!(object, Object::VirtualDevice(one) if one.device == device);
    let found = objects.all().find(|(_, object)| of_it(object));
    if let Some(id) = found.map(|(id, _)| id)
        && let Err(error) = objects.remove(id)
    {
        tracing::debug!(%error, "a virtual device was gone already");
    }
}

/// Has events find their queues: of each device that has a name at a virtual unit with a queue.
pub(super) fn name_devices(objects: &Objects, router: &Router) {
    let mut queues = BTreeMap::new();
    for (_, object) in objects.all() {
        if let Object::EventQueue(unit, queue) = object {
            queues.insert(*unit, queue);
        }
    }
    let named = objects.all().filter_map(|(_, object)| match object {
        Object::VirtualDevice(one) => {
            let place = objects.device(one.device).ok()?.place;
            let queue = queues.get(&one.unit)?;
            Some((place, (one.name, (*queue).clone())))
        }
        _ => None,
    });
    router.set_events(named.collect());
}
