//! CACHE_INVALIDATE, and the third operation of NESTING_OP.

use palisade_iommu::Cached;
use palisade_units::Iova;

use super::argument::Argument;
use super::layout::{
    CACHE_DEVICE_IOTLB, CACHE_IOTLB, CACHE_PASID, GRANULARITY_ADDRESS, GRANULARITY_DOMAIN,
    GRANULARITY_PASID, Head, INVALIDATE_HAS_ARCHID, INVALIDATE_HAS_PASID, INVALIDATE_LEAF,
    INVALIDATE_VERSION, InvalidateAddress, InvalidateData, InvalidatePasid,
};
use super::pasid::pasid;
use super::{AbiError, Answer, Session};
use crate::{Abi, GuestScope, SpaceKey};

/// CACHE_INVALIDATE of version 1.
pub(super) fn request_v1(session: &Session, argument: Argument<'_>) -> Result<Answer, AbiError> {
    match argument.flags()? {
        0 => invalidate(session, argument.after(Head::ARGSZ)),
        flags => Err(AbiError::Flags(flags.into())),
    }
}

pub(super) fn invalidate(session: &Session, data: Argument<'_>) -> Result<Answer, AbiError> {
    let head: InvalidateData = data.read()?;
    let said = head.version_or_argsz.get();
    let data = match session.abi() {
        Abi::V1 if said != INVALIDATE_VERSION => {
            return Err(AbiError::Value("the version of invalidation data is 1"));
        }
        Abi::V1 => data,
        Abi::V7 => data.cut(said),
    };
    // Once more, as version 7 says itself how much of it there is.
    let head: InvalidateData = data.read()?;
    if head.padding != [0; 2] {
        return Err(AbiError::Value(
            "the padding of invalidation data is not zero",
        ));
    }
    check(head.cache, head.granularity)?;
    let form = data.after(InvalidateData::ARGSZ);
    let (key, pages) = match head.granularity {
        GRANULARITY_PASID => (Some(by_pasid(&form.read()?)?), None),
        GRANULARITY_ADDRESS => {
            let form: InvalidateAddress = form.read()?;
            (Some(by_address(&form)?), Some(range(&form)?))
        }
        // The domain: `check` let no other pass.
        _ => (None, None),
    };
    session.pasid_requests().check()?;
    let Some(scope) = scope(session, key, pages)? else {
        return Ok(Answer::default());
    };
    let unit = match pages {
        Some(Pages {
            leaves: Leaves::Alone,
            ..
        }) => Cached::LeavesInUnit,
        _ => Cached::InUnit,
    };
    // The unit first: what a device asks for anew comes from there (VT-d §6.5.2.5). An entry of a PASID is never
    // stale here: binding and unbinding make ports forget theirs.
    let caches = [(CACHE_IOTLB, unit), (CACHE_DEVICE_IOTLB, Cached::InDevices)];
    for (_, cached) in caches.iter().filter(|(bit, _)| head.cache & bit != 0) {
        for function in session.container().guest_bdfs() {
            session.container().invalidate(function, scope, *cached);
        }
    }
    Ok(Answer::default())
}

/// Which caches know what of which granularity.
fn check(cache: u8, granularity: u8) -> Result<(), AbiError> {
    let known = match granularity {
        GRANULARITY_DOMAIN => CACHE_IOTLB | CACHE_PASID,
        GRANULARITY_PASID => CACHE_IOTLB | CACHE_DEVICE_IOTLB | CACHE_PASID,
        GRANULARITY_ADDRESS => CACHE_IOTLB | CACHE_DEVICE_IOTLB,
        _ => return Err(AbiError::Value("granularities go from 0 to 2")),
    };
    if cache == 0 || cache & !known != 0 {
        return Err(AbiError::Value("these caches do not have this granularity"));
    }
    Ok(())
}

/// What is meant, as the client names it.
#[derive(Clone, Copy)]
enum Named {
    WithoutPasid,
    Pasid(u64),
}

#[derive(Clone, Copy)]
enum Leaves {
    /// Nothing but leaves has changed.
    Alone,
    WithTables,
}

#[derive(Clone, Copy)]
struct Pages {
    at: Iova,
    len_bytes: u64,
    leaves: Leaves,
}

fn by_pasid(form: &InvalidatePasid) -> Result<Named, AbiError> {
    let flags = form.flags.get();
    if flags & !(INVALIDATE_HAS_PASID | INVALIDATE_HAS_ARCHID) != 0 {
        return Err(AbiError::Flags(flags.into()));
    }
    if flags & INVALIDATE_HAS_PASID == 0 {
        return Err(AbiError::Value(
            "the granularity is a PASID, and none is named",
        ));
    }
    Ok(Named::Pasid(form.pasid.get()))
}

fn by_address(form: &InvalidateAddress) -> Result<Named, AbiError> {
    let flags = form.flags.get();
    if flags & !(INVALIDATE_HAS_PASID | INVALIDATE_HAS_ARCHID | INVALIDATE_LEAF) != 0 {
        return Err(AbiError::Flags(flags.into()));
    }
    Ok(match flags & INVALIDATE_HAS_PASID {
        0 => Named::WithoutPasid,
        _ => Named::Pasid(form.pasid.get()),
    })
}

fn range(form: &InvalidateAddress) -> Result<Pages, AbiError> {
    let (at, granule) = (form.addr.get(), form.granule_size.get());
    if !granule.is_power_of_two() || granule < palisade_units::PAGE_BYTES {
        return Err(AbiError::Value(
            "granules have 4 KiB or a greater power of two",
        ));
    }
    let len_bytes = granule.checked_mul(form.nb_granules.get());
    let len_bytes = len_bytes.filter(|len| *len > 0 && at.checked_add(len - 1).is_some());
    let len_bytes = len_bytes.ok_or(AbiError::Value("the range is empty, or passes the end"))?;
    if !at.is_multiple_of(granule) {
        return Err(AbiError::Value("the range does not start at a granule"));
    }
    let leaves = match form.flags.get() & INVALIDATE_LEAF {
        0 => Leaves::WithTables,
        _ => Leaves::Alone,
    };
    Ok(Pages {
        at: Iova::new(at),
        len_bytes,
        leaves,
    })
}

/// What is meant, as the container names it; `None` for a PASID of the client that is bound nowhere, so
/// that nothing of it is cached.
fn scope(
    session: &Session,
    named: Option<Named>,
    pages: Option<Pages>,
) -> Result<Option<GuestScope>, AbiError> {
    let key = match named {
        None => return Ok(Some(GuestScope::All)),
        Some(Named::WithoutPasid) => SpaceKey::WithoutPasid,
        Some(Named::Pasid(raw)) => {
            let name = session.container().name_of_allocated(pasid(raw)?)?;
            let Some(name) = name else {
                return Ok(None);
            };
            SpaceKey::Pasid(name)
        }
    };
    Ok(Some(match pages {
        None => GuestScope::Key(key),
        Some(Pages { at, len_bytes, .. }) => GuestScope::Pages { key, at, len_bytes },
    }))
}
