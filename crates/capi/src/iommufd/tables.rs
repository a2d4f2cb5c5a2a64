//! Spaces and tables.

use palisade_container::{Pages, PasidUse, TableOptions};
use palisade_units::{Gpa, Iova};
use palisade_vfio::abi::iommufd::ObjectId;
use safer_ffi::prelude::*;

use super::{Iommufd, making, with};
use crate::error::{Failure, call, needed, tell};
use crate::functions::backing;
use crate::pasids::{PALISADE_RANGE_LEAVES, Process, known};

/// A table: PASIDs may be attached to it.
#[ffi_export]
pub const PALISADE_TABLE_PASID: u32 = 1;
/// In the place of a queue's id: none.
#[ffi_export]
pub const PALISADE_NO_QUEUE: u32 = 0;

/// Makes a space, in which nothing is mapped. EINVAL; ENOMEM where the client has too many.
#[ffi_export]
pub fn palisade_iommufd_space(iommufd: Option<&Iommufd>, space: Option<Out<'_, u32>>) -> i32 {
    call(|| making(iommufd, space, |client| client.space()))
}

/// Tells the first and the last address of a range of a space where memory may be mapped, by its index from 0 on. Returns
/// 1, or 0 where there are no more. EINVAL, ENOENT.
#[ffi_export]
pub fn palisade_iommufd_range(
    iommufd: Option<&Iommufd>,
    space: u32,
    index: usize,
    first: Option<Out<'_, u64>>,
    last: Option<Out<'_, u64>>,
) -> i32 {
    call(|| {
        let (first, last) = (needed(first, "the first")?, needed(last, "the last")?);
        let ranges = with(iommufd, |client| client.ranges(ObjectId::new(space)))?;
        let Some((from, to)) = ranges.get(index) else {
            return Ok(0);
        };
        first.write(from.get());
        last.write(to.get());
        Ok(1)
    })
}

/// Maps a part of a file into a space, as `palisade_map` does.
///
/// EBADF; EINVAL; ENOENT, EEXIST where there is memory, EACCES where the file is not open for it, ENODEV where it cannot
/// be mapped, ENOSPC.
#[ffi_export]
pub fn palisade_iommufd_map(
    iommufd: Option<&Iommufd>,
    space: u32,
    at: u64,
    len_bytes: u64,
    fd: i32,
    offset_bytes: u64,
    protection: u32,
) -> i32 {
    call(|| {
        let iommufd = needed(iommufd, "the iommufd")?;
        let (backing, protection) = backing(fd, offset_bytes, protection)?;
        with(Some(iommufd), |client| {
            let what = (&backing, protection);
            client.map(ObjectId::new(space), Gpa::new(at), len_bytes, what)
        })?;
        Ok(0)
    })
}

/// Unmaps every map in a range, which may have holes, and tells how many bytes that were, unless `unmapped_bytes` is null.
/// When this returns, no device reaches it. EINVAL; ENOENT where the range cuts a map, or has none.
#[ffi_export]
pub fn palisade_iommufd_unmap(
    iommufd: Option<&Iommufd>,
    space: u32,
    at: u64,
    len_bytes: u64,
    unmapped_bytes: Option<Out<'_, u64>>,
) -> i32 {
    call(|| {
        let (space, at) = (ObjectId::new(space), Gpa::new(at));
        let unmapped = with(iommufd, |client| client.unmap(space, at, len_bytes))?;
        tell(unmapped_bytes, unmapped);
        Ok(0)
    })
}

/// Unmaps all of a space, and tells how many bytes that were, unless `unmapped_bytes` is null. EINVAL, ENOENT.
#[ffi_export]
pub fn palisade_iommufd_unmap_all(
    iommufd: Option<&Iommufd>,
    space: u32,
    unmapped_bytes: Option<Out<'_, u64>>,
) -> i32 {
    call(|| {
        let unmapped = with(iommufd, |client| client.unmap_all(ObjectId::new(space)))?;
        tell(unmapped_bytes, unmapped);
        Ok(0)
    })
}

/// Makes a table of a space that others may be nested in. EINVAL; ENOENT, ENOMEM, EOPNOTSUPP.
#[ffi_export]
pub fn palisade_iommufd_parent(
    iommufd: Option<&Iommufd>,
    device: u32,
    space: u32,
    table: Option<Out<'_, u32>>,
) -> i32 {
    call(|| {
        let (device, space) = (ObjectId::new(device), ObjectId::new(space));
        making(iommufd, table, |client| client.parent(device, space))
    })
}

/// Makes a table of a guest's process, over a parent or a virtual unit. `flags` are `PALISADE_TABLE_PASID` or 0; page
/// requests go to the queue with the id `queue`, and end at once if that is `PALISADE_NO_QUEUE`.
///
/// EINVAL; ENOENT, ENOMEM, EOPNOTSUPP.
#[ffi_export]
pub fn palisade_iommufd_nested(
    iommufd: Option<&Iommufd>,
    device: u32,
    over: u32,
    process: Option<&Process>,
    flags: u32,
    queue: u32,
    table: Option<Out<'_, u32>>,
) -> i32 {
    call(|| {
        let process = needed(process, "the process")?.check()?;
        known(flags, PALISADE_TABLE_PASID)?;
        let options = TableOptions {
            pasids: match flags {
                0 => PasidUse::Refused,
                _ => PasidUse::Allowed,
            },
            faults: (queue != PALISADE_NO_QUEUE).then(|| ObjectId::new(queue)),
        };
        let (device, over) = (ObjectId::new(device), ObjectId::new(over));
        making(iommufd, table, |client| {
            client.nested(device, over, process, options)
        })
    })
}

/// Has caches forget so many pages of 4096 bytes of a nested table, and returns when they have. `flags` are
/// `PALISADE_RANGE_LEAVES` or 0. EINVAL, ENOENT.
#[ffi_export]
pub fn palisade_iommufd_invalidate(
    iommufd: Option<&Iommufd>,
    table: u32,
    at: u64,
    page_count: u64,
    flags: u32,
) -> i32 {
    call(|| {
        known(flags, PALISADE_RANGE_LEAVES)?;
        let at = Iova::new(at);
        invalidate(
            iommufd,
            table,
            match flags {
                0 => Pages::From(at, page_count),
                _ => Pages::Leaves(at, page_count),
            },
        )
    })
}

/// Has caches forget all of a nested table, and returns when they have. EINVAL, ENOENT.
#[ffi_export]
pub fn palisade_iommufd_invalidate_all(iommufd: Option<&Iommufd>, table: u32) -> i32 {
    call(|| invalidate(iommufd, table, Pages::All))
}

fn invalidate(iommufd: Option<&Iommufd>, table: u32, pages: Pages) -> Result<i32, Failure> {
    let table = ObjectId::new(table);
    let told = with(iommufd, |client| client.invalidate(table, &[pages]))?;
    match told.refused {
        None => Ok(0),
        Some(errno) => Err(Failure::new(errno, "the host refuses the invalidation")),
    }
}
