//! IOMMU_HWPT_INVALIDATE.

use palisade_iommu::Cached;
use palisade_units::{Bdf, Iova, PAGE_BYTES};

use super::argument::{Message, extended, known_flags, reserved};
use super::layout::{HwptInvalidate, INVALIDATE_DATA_VTD_S1, VTD_INV_LEAF, VtdStage1Invalidate};
use super::objects::Object;
use super::{Iommufd, IommufdError, ObjectId};
use crate::abi::Answer;
use crate::{GuestScope, SpaceKey};

const SHORTEST_ENTRY: u32 = VtdStage1Invalidate::BYTES;
/// All of a table, in pages.
const ALL: u64 = u64::MAX;

/// The entries in their order, up to the first that is refused. How many were done stands in `written` in either case.
pub(super) fn invalidate(
    session: &Iommufd,
    message: Message<'_>,
    written: &mut Vec<u8>,
) -> Result<Answer, IommufdError> {
    let mut request: HwptInvalidate = message.read()?;
    let mut done = 0;
    let outcome = entries(session, message, &request, &mut done);
    request.entry_num = done.into();
    let answer = message.written(&request);
    written.clone_from(&answer.written);
    outcome.map(|()| answer)
}

fn entries(
    session: &Iommufd,
    message: Message<'_>,
    request: &HwptInvalidate,
    done: &mut u32,
) -> Result<(), IommufdError> {
    reserved(request.reserved.get())?;
    let (count, len_bytes) = (request.entry_num.get(), request.entry_len.get());
    if count != 0 && (len_bytes == 0 || request.data_uptr.get() == 0) {
        return Err(IommufdError::Value("entries have a length and a place"));
    }
    let id = ObjectId::new(request.hwpt_id.get());
    let objects = session.objects();
    match objects.get(id)? {
        Object::Table(table) if table.is_nested() => {}
        Object::VirtualUnit(_) => {
            return Err(IommufdError::NotOffered("invalidation by a virtual unit"));
        }
        _ => return Err(IommufdError::Value("a nested HWPT is invalidated")),
    }
    if request.data_type.get() != INVALIDATE_DATA_VTD_S1 {
        return Err(IommufdError::Value(
            "entries of that type are not of this table",
        ));
    }
    if count == 0 {
        return Ok(());
    }
    if len_bytes < SHORTEST_ENTRY {
        return Err(IommufdError::Short {
            size: len_bytes,
            shortest: SHORTEST_ENTRY,
        });
    }
    // A message bounds how many there are.
    let attached = |device: &super::objects::Device| -> Vec<(Bdf, SpaceKey)> {
        let keys = device.tables.iter().filter(|(_, table)| **table == id);
        keys.map(|(key, _)| (device.place, *key)).collect()
    };
    let users: Vec<_> = objects
        .devices()
        .flat_map(|(_, one)| attached(one))
        .collect();
    for n in 0..u64::from(count) {
        let at = n.checked_mul(len_bytes.into());
        let at = at.and_then(|at| at.checked_add(request.data_uptr.get()));
        let entry = message.data(at.ok_or(IommufdError::Missing)?, len_bytes.into())?;
        one(session, &users, &extended(entry)?)?;
        *done += 1;
    }
    Ok(())
}

fn one(
    session: &Iommufd,
    users: &[(Bdf, SpaceKey)],
    entry: &VtdStage1Invalidate,
) -> Result<(), IommufdError> {
    known_flags(entry.flags.get(), VTD_INV_LEAF)?;
    reserved(entry.reserved.get())?;
    let (at, pages) = (entry.addr.get(), entry.npages.get());
    if !at.is_multiple_of(PAGE_BYTES) {
        return Err(IommufdError::Value("the range does not start at a page"));
    }
    if pages == ALL && at != 0 {
        return Err(IommufdError::Value("all of a table starts at 0"));
    }
    if pages == 0 {
        return Ok(());
    }
    let unit = match entry.flags.get() {
        0 => Cached::InUnit,
        _ => Cached::LeavesInUnit,
    };
    for (place, key) in users {
        let scope = match pages {
            ALL => GuestScope::Key(*key),
            _ => GuestScope::Pages {
                key: *key,
                at: Iova::new(at),
                // A range that passes the end ends there.
                len_bytes: pages.saturating_mul(PAGE_BYTES).min(u64::MAX - at),
            },
        };
        // The unit first: what a device asks for anew comes from there (VT-d §6.5.2.5).
        for cached in [unit, Cached::InDevices] {
            session.container().invalidate(*place, scope, cached);
        }
    }
    Ok(())
}
