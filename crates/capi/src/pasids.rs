//! PASIDs, and what is bound to them.

use palisade_container::{Invalidate, Process as ProcessOfClient, Which};
use palisade_iommu::{ExtendedAccessed, Levels, SupervisorRequests};
use palisade_units::{Gpa, HostPasid, Iova};
use safer_ffi::prelude::*;

use crate::client::{Client, PALISADE_NO_PASID, guest, host, range, with};
use crate::error::{Failure, call, needed};

/// A process: privileged requests are allowed.
#[ffi_export]
pub const PALISADE_PROCESS_SUPERVISOR: u32 = 1;
/// A process: the extended accessed flag is set in its table.
#[ffi_export]
pub const PALISADE_PROCESS_EXTENDED_ACCESSED: u32 = 2;

/// Invalidates translations that the IOMMU unit keeps.
#[ffi_export]
pub const PALISADE_CACHE_UNIT: u32 = 1;
/// Invalidates translations that devices keep.
#[ffi_export]
pub const PALISADE_CACHE_DEVICES: u32 = 2;
/// Invalidates entries of PASIDs.
#[ffi_export]
pub const PALISADE_CACHE_PASIDS: u32 = 4;

/// A range: nothing but leaves of the table has changed.
#[ffi_export]
pub const PALISADE_RANGE_LEAVES: u32 = 1;

/// A guest process's page table.
#[derive_ReprC(rename = "palisade_process")]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Process {
    /// The guest physical address of the top table.
    pub root: u64,
    /// How many levels it has: 4 or 5.
    pub levels: u32,
    /// `PALISADE_PROCESS_SUPERVISOR`, `PALISADE_PROCESS_EXTENDED_ACCESSED`, both or 0.
    pub flags: u32,
}

/// Addresses whose translations are to be forgotten.
#[derive_ReprC(rename = "palisade_range")]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// Where the range starts: a multiple of `granule_bytes`.
    pub at: u64,
    /// A power of two, 4096 at least.
    pub granule_bytes: u64,
    /// How many granules it has, one at least.
    pub count: u64,
    /// The host's PASID; `PALISADE_NO_PASID` for requests without one.
    pub pasid: u32,
    /// `PALISADE_RANGE_LEAVES` or 0.
    pub flags: u32,
}

/// Takes the lowest free PASID of a range, both ends included. EINVAL, ENOSPC; EOPNOTSUPP without nesting.
#[ffi_export]
pub fn palisade_alloc_pasid(
    client: Option<&Client>,
    min: u32,
    max: u32,
    pasid: Option<Out<'_, u32>>,
) -> i32 {
    call(|| {
        let pasid = needed(pasid, "where the PASID goes")?;
        let taken = with(client, |client| client.alloc_pasid(range(min, max)))?;
        pasid.write(taken.get());
        Ok(0)
    })
}

/// Frees a PASID. EINVAL; of one that is not this VMM's ENOENT or EACCES in version 1, nothing in version 7.
#[ffi_export]
pub fn palisade_free_pasid(client: Option<&Client>, pasid: u32) -> i32 {
    call(|| {
        let pasid = host(pasid)?;
        with(client, |client| client.free_pasid(pasid))?;
        Ok(0)
    })
}

/// Version 7: frees what this VMM took in a range, both ends included. EINVAL; ENOTTY in version 1.
#[ffi_export]
pub fn palisade_free_pasids(client: Option<&Client>, min: u32, max: u32) -> i32 {
    call(|| {
        with(client, |client| client.free_pasids(range(min, max)))?;
        Ok(0)
    })
}

/// Binds a process to a PASID that was taken, on all functions or on none; what was bound to it is replaced.
/// `guest_pasid` is what the guest calls it, `PALISADE_NO_PASID` where it goes by its number. The structure is only
/// read during the call; the table is read by the device until the PASID is unbound.
///
/// EINVAL, ENOENT, EACCES, EBUSY, EOPNOTSUPP; without a function to bind it on EFAULT in version 1, EOPNOTSUPP in
/// version 7.
#[ffi_export]
pub fn palisade_bind(
    client: Option<&Client>,
    pasid: u32,
    guest_pasid: u32,
    process: Option<&Process>,
) -> i32 {
    call(|| {
        let process = needed(process, "the process")?;
        let (pasid, name) = (host(pasid)?, guest(guest_pasid)?);
        let process = process.check()?;
        with(client, |client| client.bind(pasid, name, process))?;
        Ok(0)
    })
}

/// Unbinds a PASID from all functions. When this returns, no access uses the table any more. The PASID stays
/// allocated. EINVAL, EACCES; ENOENT where it is bound nowhere.
#[ffi_export]
pub fn palisade_unbind(client: Option<&Client>, pasid: u32) -> i32 {
    call(|| {
        let pasid = host(pasid)?;
        with(client, |client| client.unbind(pasid))?;
        Ok(0)
    })
}

/// Has caches forget everything, and returns when they have: `PALISADE_CACHE_UNIT` or `PALISADE_CACHE_PASIDS`. EINVAL.
#[ffi_export]
pub fn palisade_invalidate_all(client: Option<&Client>, caches: u32) -> i32 {
    call(|| {
        let which = which(caches)?;
        with(client, |client| client.invalidate(which, Invalidate::All))?;
        Ok(0)
    })
}

/// Has caches forget a PASID, by the host's number, and returns when they have. EINVAL, ENOENT, EACCES.
#[ffi_export]
pub fn palisade_invalidate_pasid(client: Option<&Client>, caches: u32, pasid: u32) -> i32 {
    call(|| {
        let (which, what) = (which(caches)?, Invalidate::Pasid(host(pasid)?));
        with(client, |client| client.invalidate(which, what))?;
        Ok(0)
    })
}

/// Has caches forget a range, and returns when they have: `PALISADE_CACHE_UNIT`, `PALISADE_CACHE_DEVICES` or both.
/// EINVAL, ENOENT, EACCES.
#[ffi_export]
pub fn palisade_invalidate_range(
    client: Option<&Client>,
    caches: u32,
    range: Option<&Range>,
) -> i32 {
    call(|| {
        let range = needed(range, "the range")?;
        let (which, what) = (which(caches)?, range.check()?);
        with(client, |client| client.invalidate(which, what))?;
        Ok(0)
    })
}

impl Process {
    pub(crate) fn check(&self) -> Result<ProcessOfClient, Failure> {
        let levels = match self.levels {
            4 => Levels::Four,
            5 => Levels::Five,
            other => {
                return Err(Failure::invalid(format!(
                    "a first stage has 4 or 5 levels, not {other}"
                )));
            }
        };
        known(
            self.flags,
            PALISADE_PROCESS_SUPERVISOR | PALISADE_PROCESS_EXTENDED_ACCESSED,
        )?;
        Ok(ProcessOfClient {
            root: Gpa::new(self.root),
            levels,
            supervisor: match self.flags & PALISADE_PROCESS_SUPERVISOR {
                0 => SupervisorRequests::Refused,
                _ => SupervisorRequests::Allowed,
            },
            extended_accessed: match self.flags & PALISADE_PROCESS_EXTENDED_ACCESSED {
                0 => ExtendedAccessed::Off,
                _ => ExtendedAccessed::On,
            },
        })
    }
}

impl Range {
    fn check(&self) -> Result<Invalidate, Failure> {
        known(self.flags, PALISADE_RANGE_LEAVES)?;
        let pasid: Option<HostPasid> = match self.pasid {
            PALISADE_NO_PASID => None,
            pasid => Some(host(pasid)?),
        };
        let at = Iova::new(self.at);
        let (granule_bytes, count) = (self.granule_bytes, self.count);
        Ok(match self.flags {
            0 => Invalidate::Pages {
                pasid,
                at,
                granule_bytes,
                count,
            },
            _ => Invalidate::Leaves {
                pasid,
                at,
                granule_bytes,
                count,
            },
        })
    }
}

pub(crate) fn known(flags: u32, all: u32) -> Result<(), Failure> {
    match flags & !all {
        0 => Ok(()),
        others => Err(Failure::invalid(format!("flags {others:#x} do not exist"))),
    }
}

fn which(caches: u32) -> Result<Which, Failure> {
    const BOTH: u32 = PALISADE_CACHE_UNIT | PALISADE_CACHE_DEVICES;
    match caches {
        PALISADE_CACHE_UNIT => Ok(Which::Translations),
        PALISADE_CACHE_DEVICES => Ok(Which::InDevices),
        BOTH => Ok(Which::TranslationsAndDevices),
        PALISADE_CACHE_PASIDS => Ok(Which::PasidEntries),
        other => Err(Failure::invalid(format!(
            "caches {other:#x} do not go together or exist"
        ))),
    }
}
