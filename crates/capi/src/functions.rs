//! Functions, and the memory that they reach.

use palisade_container::{Attaching, FunctionInfo};
use palisade_memory::{Backing, Protection};
use palisade_units::{Bdf, Gpa};
use safer_ffi::prelude::*;

use crate::client::{Client, with};
use crate::error::{Failure, call, give_back, needed, tell};
use crate::fd::duplicate;

/// Memory that functions may read.
#[ffi_export]
pub const PALISADE_MAP_READ: u32 = 1;
/// Memory that functions may read and write.
#[ffi_export]
pub const PALISADE_MAP_READ_WRITE: u32 = 3;

/// A function that the host has attached.
#[ffi_export]
pub const PALISADE_ATTACHED_BY_HOST: u32 = 1;
/// A function that the VMM may attach, and has not.
#[ffi_export]
pub const PALISADE_OFFERED: u32 = 2;
/// A function that the VMM has attached.
#[ffi_export]
pub const PALISADE_ATTACHED_BY_CLIENT: u32 = 3;

/// A function of a VMM.
#[derive_ReprC(rename = "palisade_function")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its place in the guest, by `PALISADE_BDF`.
    pub guest_bdf: u32,
    /// `PALISADE_ATTACHED_BY_HOST`, `PALISADE_OFFERED` or `PALISADE_ATTACHED_BY_CLIENT`.
    pub attaching: u32,
}

/// Functions, in the order of their places.
#[derive_ReprC(rename = "palisade_function_list")]
#[repr(opaque)]
pub struct FunctionList {
    functions: Vec<Function>,
}

/// Lists the functions that the VMM has or may have. `*list` is for `palisade_free_function_list` to take back; it is
/// null where this fails. EINVAL.
#[ffi_export]
pub fn palisade_functions(
    client: Option<&Client>,
    list: Option<Out<'_, Option<repr_c::Box<FunctionList>>>>,
) -> i32 {
    call(|| {
        let mut list = needed(list, "where the list goes")?;
        list.reborrow().write(None);
        let functions = with(client, |client| client.functions())?;
        list.write(Some(Box::new(FunctionList::of(&functions)).into()));
        Ok(0)
    })
}

impl FunctionList {
    pub(crate) fn of(functions: &[FunctionInfo]) -> Self {
        let function = |function: &FunctionInfo| Function {
            guest_bdf: function.guest_bdf.requester_id().into(),
            attaching: match function.attaching {
                Attaching::ByHost => PALISADE_ATTACHED_BY_HOST,
                Attaching::Offered => PALISADE_OFFERED,
                Attaching::ByClient => PALISADE_ATTACHED_BY_CLIENT,
            },
        };
        Self {
            functions: functions.iter().map(function).collect(),
        }
    }
}

/// How many functions a list has; 0 for null.
#[ffi_export]
#[must_use]
pub fn palisade_function_count(list: Option<&FunctionList>) -> usize {
    list.map_or(0, |list| list.functions.len())
}

/// Tells a function of a list, counted from 0. EINVAL where the list ends before it.
#[ffi_export]
pub fn palisade_function_at(
    list: Option<&FunctionList>,
    index: usize,
    function: Option<Out<'_, Function>>,
) -> i32 {
    call(|| {
        let list = needed(list, "the list")?;
        let function = needed(function, "where the function goes")?;
        let found = list.functions.get(index);
        function.write(*found.ok_or_else(|| {
            let count = list.functions.len();
            Failure::invalid(format!("the list has {count} functions, and none {index}"))
        })?);
        Ok(0)
    })
}

/// Gives a list back. Null is passed over.
#[ffi_export]
pub fn palisade_free_function_list(list: Option<repr_c::Box<FunctionList>>) {
    give_back(list);
}

/// Attaches a function that is offered, by its place in the guest. It reaches the memory that the VMM has mapped; what is
/// bound before is not bound on it.
///
/// EINVAL; ENODEV where none is offered, EEXIST where it is attached, EBUSY where another tenant has it, ENOSPC beyond
/// the quota.
#[ffi_export]
pub fn palisade_attach(client: Option<&Client>, guest_bdf: u32) -> i32 {
    call(|| {
        let place = place(guest_bdf)?;
        with(client, |client| client.attach(place))?;
        Ok(0)
    })
}

/// Detaches a function that the VMM attached. When this returns, everything on it is unbound and drained. EINVAL,
/// ENODEV.
#[ffi_export]
pub fn palisade_detach(client: Option<&Client>, guest_bdf: u32) -> i32 {
    call(|| {
        let place = place(guest_bdf)?;
        with(client, |client| client.detach(place))?;
        Ok(0)
    })
}

/// Maps a part of a file as guest memory: `len_bytes` of it from `offset_bytes` on, at a guest physical address, all
/// multiples of 4096. `protection` is `PALISADE_MAP_READ` or `PALISADE_MAP_READ_WRITE`. The descriptor stays the caller's
/// and may be closed afterwards.
///
/// EBADF; EINVAL; EEXIST where there is memory, EACCES where the file is not open for it, ENODEV where it cannot be
/// mapped, ENOSPC.
#[ffi_export]
pub fn palisade_map(
    client: Option<&Client>,
    guest_address: u64,
    len_bytes: u64,
    fd: i32,
    offset_bytes: u64,
    protection: u32,
) -> i32 {
    call(|| {
        let client = needed(client, "the client")?;
        let (backing, protection) = backing(fd, offset_bytes, protection)?;
        let at = Gpa::new(guest_address);
        with(Some(client), |client| {
            client.map(at, len_bytes, &backing, protection)
        })?;
        Ok(0)
    })
}

/// What is to be mapped, and for what.
pub(crate) fn backing(
    fd: i32,
    offset_bytes: u64,
    protection: u32,
) -> Result<(Backing, Protection), Failure> {
    let protection = match protection {
        PALISADE_MAP_READ => Protection::ReadOnly,
        PALISADE_MAP_READ_WRITE => Protection::ReadWrite,
        other => {
            return Err(Failure::invalid(format!(
                "memory cannot be mapped by {other:#x}"
            )));
        }
    };
    Ok((
        Backing::new(duplicate(fd, protection)?, offset_bytes),
        protection,
    ))
}

/// Unmaps memory, of whole maps. When this returns, no function reaches it. EINVAL; ENOENT where the range has a hole
/// or cuts a map.
#[ffi_export]
pub fn palisade_unmap(client: Option<&Client>, guest_address: u64, len_bytes: u64) -> i32 {
    call(|| {
        let at = Gpa::new(guest_address);
        with(client, |client| client.unmap(at, len_bytes))?;
        Ok(0)
    })
}

/// Unmaps all memory, and tells how many bytes that were, unless `len_bytes` is null. EINVAL.
#[ffi_export]
pub fn palisade_unmap_all(client: Option<&Client>, len_bytes: Option<Out<'_, u64>>) -> i32 {
    call(|| {
        let unmapped = with(client, |client| client.unmap_all())?;
        tell(len_bytes, unmapped);
        Ok(0)
    })
}

/// A function's place in the guest.
pub(crate) fn place(guest_bdf: u32) -> Result<Bdf, Failure> {
    let place = u16::try_from(guest_bdf)
        .map_err(|_| Failure::invalid(format!("{guest_bdf:#x} is not the place of a function")))?;
    Ok(Bdf::from_requester_id(place))
}
