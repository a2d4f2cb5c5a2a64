//! VFIO_DEVICE_ATTACH_IOMMUFD_PT and VFIO_DEVICE_DETACH_IOMMUFD_PT, with and without a PASID.

use palisade_iommu::PageResponse;
use palisade_units::{Bdf, GuestPasid};

use super::fault_queue::Asker;
use super::layout::{DEVICE_ATTACH_PASID, DEVICE_DETACH_PASID, DeviceAttach, DeviceDetach};
use super::objects::{Asked, Device, MadeBy, Object, Objects, Stage, Table};
use super::router::Route;
use super::{Iommufd, IommufdError, ObjectId};
use crate::SpaceKey;
use crate::abi::argument::Argument;
use crate::abi::{AbiError, Answer};

const NOT_BOUND: IommufdError = IommufdError::Value("the device is not bound: bind it first");

/// What of the last field of either request stands before it.
const ATTACH_HEAD: usize = 12;
const DETACH_HEAD: usize = 8;

/// Attaches, or replaces in one step: a request of the device meets the old table or the new one. Where the new one
/// is refused, the old one stays.
pub(super) fn attach(
    session: &Iommufd,
    place: Bdf,
    argument: &[u8],
) -> Result<Answer, IommufdError> {
    let argument = Argument::new(argument)?;
    argument.read::<[u8; ATTACH_HEAD]>()?;
    let (mut request, len_bytes) = match argument.flags()? {
        0 => {
            let head: [u8; ATTACH_HEAD] = argument.read()?;
            let mut whole = [0; size_of::<DeviceAttach>()];
            whole[..ATTACH_HEAD].copy_from_slice(&head);
            let request: DeviceAttach = zerocopy::transmute!(whole);
            (request, ATTACH_HEAD)
        }
        DEVICE_ATTACH_PASID => (argument.read::<DeviceAttach>()?, size_of::<DeviceAttach>()),
        flags => return Err(AbiError::Flags(flags.into()).into()),
    };
    let key = key(request.flags.get(), request.pasid.get())?;
    let mut objects = session.objects();
    let device = objects.device_at(place).ok_or(NOT_BOUND)?;
    let wanted = ObjectId::new(request.pt_id.get());
    let table = table_of(&mut objects, wanted)?;
    let outcome = join(session, &mut objects, device, key, table);
    objects.tidy(table);
    outcome?;
    request.pt_id = table.get().into();
    let mut answer = Answer::written(&request);
    answer.written.truncate(len_bytes);
    Ok(answer)
}

/// The table that is meant: of a space the one that attaching to it made, or makes now.
fn table_of(objects: &mut Objects, wanted: ObjectId) -> Result<ObjectId, IommufdError> {
    let memory = match objects.get(wanted)? {
        Object::Table(_) => return Ok(wanted),
        Object::Space(memory) => memory.clone(),
        _ => {
            return Err(IommufdError::Value(
                "a device is attached to an IOAS or a HWPT",
            ));
        }
    };
    let made = |object: &Object| matches!(object, Object::Table(one) if one.made_by == MadeBy::Attach && one.over == wanted);
    let found = objects.all().find(|(_, object)| made(object));
    if let Some((id, _)) = found {
        return Ok(id);
    }
    objects.add(Object::Table(Table {
        stage: Stage::OfSpace { parent: Asked::No },
        over: wanted,
        memory,
        pasids: Asked::No,
        faults: None,
        made_by: MadeBy::Attach,
    }))
}

fn key(flags: u32, pasid: u32) -> Result<SpaceKey, IommufdError> {
    // The bit is the same in both requests.
    const _: () = assert!(DEVICE_ATTACH_PASID == DEVICE_DETACH_PASID);
    if flags & DEVICE_ATTACH_PASID == 0 {
        return Ok(SpaceKey::WithoutPasid);
    }
    let pasid = GuestPasid::new(pasid).ok().filter(|pasid| pasid.get() != 0);
    let pasid = pasid.ok_or(IommufdError::Value("PASIDs go from 1 to 2^20 - 1"))?;
    Ok(SpaceKey::Pasid(pasid))
}

/// PASIDs are attached to tables that were made for it, and beside such tables only.
fn check(
    objects: &Objects,
    device: &Device,
    key: SpaceKey,
    table: &Table,
) -> Result<(), IommufdError> {
    const NOT_FOR_PASIDS: IommufdError =
        IommufdError::Value("the table was made without IOMMU_HWPT_ALLOC_PASID");
    let has_pasids = |device: &Device| {
        device
            .tables
            .keys()
            .any(|key| *key != SpaceKey::WithoutPasid)
    };
    let beside = match key {
        SpaceKey::WithoutPasid if !has_pasids(device) => return Ok(()),
        SpaceKey::WithoutPasid => None,
        SpaceKey::Pasid(_) => device.tables.get(&SpaceKey::WithoutPasid),
    };
    let beside = beside.map(|id| objects.table(*id)).transpose()?;
    if [Some(table), beside]
        .into_iter()
        .flatten()
        .any(|one| one.pasids == Asked::No)
    {
        return Err(NOT_FOR_PASIDS);
    }
    Ok(())
}

fn join(
    session: &Iommufd,
    objects: &mut Objects,
    id: ObjectId,
    key: SpaceKey,
    table_id: ObjectId,
) -> Result<(), IommufdError> {
    let (device, table) = (objects.device(id)?, objects.table(table_id)?);
    let before = device.tables.get(&key).copied();
    if before == Some(table_id) {
        return Ok(());
    }
    let place = device.place;
    if !device.right.holds() {
        return Err(AbiError::NoFunction(place).into());
    }
    check(objects, device, key, table)?;
    let asker = Asker { place, key };
    let queue = table.faults.as_ref().map(|(_, queue)| queue);
    let route = queue.map(|queue| Route {
        device: id,
        queue: queue.clone(),
    });
    // The new queue first: whoever asks from the moment of the change on is answered by it.
    let old_route = session.router().set(asker, route);
    let waiting = old_route.as_ref().map(|old| old.queue.waiting(asker));
    let bound = session
        .container()
        .bind_over(place, key, table.terms(), &table.memory);
    if let Err(error) = bound {
        session.router().set(asker, old_route);
        return Err(error.into());
    }
    objects.device_mut(id)?.tables.insert(key, table_id);
    if let Some(before) = before {
        objects.tidy(before);
    }
    // Requests to the old table: whoever made them asks again, if it still wants the page.
    if let Some(old) = old_route {
        for cookie in waiting.unwrap_or_default() {
            old.queue
                .answer(session.container(), cookie, PageResponse::Invalid);
        }
    }
    Ok(())
}

/// What is not attached is detached already.
pub(super) fn detach(
    session: &Iommufd,
    place: Bdf,
    argument: &[u8],
) -> Result<Answer, IommufdError> {
    let argument = Argument::new(argument)?;
    argument.read::<[u8; DETACH_HEAD]>()?;
    let key = match argument.flags()? {
        0 => SpaceKey::WithoutPasid,
        DEVICE_DETACH_PASID => {
            let request: DeviceDetach = argument.read()?;
            key(request.flags.get(), request.pasid.get())?
        }
        flags => return Err(AbiError::Flags(flags.into()).into()),
    };
    let mut objects = session.objects();
    let device = objects.device_at(place).ok_or(NOT_BOUND)?;
    leave(session, &mut objects, device, key)?;
    Ok(Answer::default())
}

pub(super) fn detach_all(
    session: &Iommufd,
    objects: &mut Objects,
    device: ObjectId,
) -> Result<(), IommufdError> {
    let keys: Vec<_> = objects.device(device)?.tables.keys().copied().collect();
    for key in keys {
        leave(session, objects, device, key)?;
    }
    Ok(())
}

/// When this returns, nothing uses the table under the key, and page requests were answered.
fn leave(
    session: &Iommufd,
    objects: &mut Objects,
    id: ObjectId,
    key: SpaceKey,
) -> Result<(), IommufdError> {
    let device = objects.device_mut(id)?;
    let place = device.place;
    let Some(table) = device.tables.remove(&key) else {
        return Ok(());
    };
    // What is at the place after the device went is none of its.
    if device.right.holds()
        && let Err(error) = session.container().unbind(place, key)
    {
        tracing::debug!(%error, "what was attached was unbound already");
    }
    let asker = Asker { place, key };
    if let Some(route) = session.router().set(asker, None) {
        route.queue.forget(asker);
    }
    objects.tidy(table);
    Ok(())
}
