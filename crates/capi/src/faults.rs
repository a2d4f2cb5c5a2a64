//! The faults and page requests of a client's functions.

use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::time::Duration;

use palisade_iommu::{Ats, GroupIndex, PageResponse, PlaceInGroup};
use palisade_units::GuestPasid;
use palisade_vfio::FaultRecord;
use safer_ffi::prelude::*;

use crate::client::{Client, PALISADE_NO_PASID, guest, with};
use crate::error::{Failure, call, give_back, locked, needed};
use crate::functions::place;

/// A record: a request was refused.
#[ffi_export]
pub const PALISADE_FAULT: u32 = 1;
/// A record: a device waits for a page, until `palisade_respond`.
#[ffi_export]
pub const PALISADE_PAGE_REQUEST: u32 = 2;

/// An access: read.
#[ffi_export]
pub const PALISADE_ACCESS_READ: u32 = 1;
/// An access: write.
#[ffi_export]
pub const PALISADE_ACCESS_WRITE: u32 = 2;
/// An access: execute.
#[ffi_export]
pub const PALISADE_ACCESS_EXECUTE: u32 = 4;
/// An access: privileged.
#[ffi_export]
pub const PALISADE_ACCESS_PRIVILEGED: u32 = 8;

/// A fault: the function asked for a translation, or used one.
#[ffi_export]
pub const PALISADE_RECORD_ATS: u32 = 1;
/// A page request: it is the last of its group, which may be answered now.
#[ffi_export]
pub const PALISADE_RECORD_LAST: u32 = 2;

/// A response: the pages are there, try again.
#[ffi_export]
pub const PALISADE_RESPONSE_SUCCESS: u32 = 0;
/// A response: the pages will not come, give up.
#[ffi_export]
pub const PALISADE_RESPONSE_INVALID: u32 = 1;
/// A response: something failed, ask for no more.
#[ffi_export]
pub const PALISADE_RESPONSE_FAILURE: u32 = 2;

/// What a VMM is told of its functions, in its guest's names.
#[derive_ReprC(rename = "palisade_record")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The address of the request that was refused, or of the page that is wanted.
    pub at: u64,
    /// `PALISADE_FAULT` or `PALISADE_PAGE_REQUEST`.
    pub kind: u32,
    /// The function's place in the guest, by `PALISADE_BDF`.
    pub guest_bdf: u32,
    /// The guest's PASID; `PALISADE_NO_PASID` for a request without one.
    pub pasid: u32,
    /// What was wanted: `PALISADE_ACCESS_READ` and those after it, or'ed together.
    pub access: u32,
    /// A fault: the reason, as VT-d numbers it (VT-d §7.1.3). Otherwise 0.
    pub reason: u32,
    /// A page request: its group. Otherwise 0.
    pub group: u32,
    /// `PALISADE_RECORD_ATS` or `PALISADE_RECORD_LAST` where they hold.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

/// Where a VMM is told of faults and page requests.
#[derive_ReprC(rename = "palisade_fault_queue")]
#[repr(opaque)]
pub struct FaultQueue {
    inner: Mutex<palisade_container::FaultQueue>,
    eventfd: i32,
}

/// Has faults and page requests delivered, as long as this connection lasts. `*queue` is for `palisade_free_fault_queue` to
/// take back, before the client or after it; it is null where this fails.
///
/// EINVAL; EOPNOTSUPP where the host tells somebody else, EBUSY where the VMM has a queue.
#[ffi_export]
pub fn palisade_open_fault_queue(
    client: Option<&Client>,
    queue: Option<Out<'_, Option<repr_c::Box<FaultQueue>>>>,
) -> i32 {
    call(|| {
        let mut queue = needed(queue, "where the queue goes")?;
        queue.reborrow().write(None);
        let inner = with(client, |client| client.fault_queue())?;
        let eventfd = inner.eventfd().as_raw_fd();
        let inner = Mutex::new(inner);
        queue.write(Some(Box::new(FaultQueue { inner, eventfd }).into()));
        Ok(0)
    })
}

/// Gives a queue back, and closes its eventfd. What is delivered from then on is not looked at; page requests wait until
/// their PASID is unbound or the connection ends. Null is passed over.
#[ffi_export]
pub fn palisade_free_fault_queue(queue: Option<repr_c::Box<FaultQueue>>) {
    give_back(queue);
}

/// Returns the descriptor that polls as readable when there is something to take. It is the queue's: do not
/// read or close it. After it polls as readable, call `palisade_wait_fault` with a timeout of 0 for as long as that returns
/// 1. The end of the connection is not to be seen there. EINVAL.
#[ffi_export]
pub fn palisade_fault_eventfd(queue: Option<&FaultQueue>) -> i32 {
    call(|| Ok(needed(queue, "the queue")?.eventfd))
}

/// Takes the oldest record, without waiting. Returns 1, or 0 where there is none. EINVAL.
#[ffi_export]
pub fn palisade_take_fault(queue: Option<&FaultQueue>, record: Option<Out<'_, Record>>) -> i32 {
    call(|| {
        let (queue, record) = (needed(queue, "the queue")?, needed(record, "the record")?);
        let taken = locked(&queue.inner)?.take();
        Ok(give(taken, record))
    })
}

/// Waits for a record, so many milliseconds at the most, without a limit if negative, and takes it. Returns 1, or 0
/// where none came or a signal did. Other calls on the queue wait as long. EINVAL; ECONNRESET where there is none and the
/// connection has ended.
#[ffi_export]
pub fn palisade_wait_fault(
    queue: Option<&FaultQueue>,
    timeout_ms: i32,
    record: Option<Out<'_, Record>>,
) -> i32 {
    call(|| {
        let (queue, record) = (needed(queue, "the queue")?, needed(record, "the record")?);
        let taken = locked(&queue.inner)?.wait(timeout(timeout_ms))?;
        Ok(give(taken, record))
    })
}

/// How many faults found no room. EINVAL.
#[ffi_export]
pub fn palisade_lost_faults(queue: Option<&FaultQueue>, lost: Option<Out<'_, u64>>) -> i32 {
    call(|| {
        let queue = needed(queue, "the queue")?;
        let lost = needed(lost, "where the number goes")?;
        lost.write(locked(&queue.inner)?.lost());
        Ok(0)
    })
}

/// Answers a page request group once, in the names of its last request, by `PALISADE_RESPONSE_SUCCESS` or one after it.
/// EINVAL; ENODEV and ENOENT where no such group waits, as after its first answer.
#[ffi_export]
pub fn palisade_respond(
    client: Option<&Client>,
    guest_bdf: u32,
    guest_pasid: u32,
    group: u32,
    response: u32,
) -> i32 {
    call(|| {
        let (place, pasid) = (place(guest_bdf)?, guest(guest_pasid)?);
        let group = u16::try_from(group).ok();
        let group = group.filter(|group| *group < GroupIndex::COUNT);
        let group = group.ok_or_else(|| Failure::invalid("groups are below 512"))?;
        let (response, group) = (self::response(response)?, GroupIndex::new(group));
        with(client, |client| {
            client.respond(place, pasid, group, response)
        })?;
        Ok(0)
    })
}

pub(crate) fn response(response: u32) -> Result<PageResponse, Failure> {
    match response {
        PALISADE_RESPONSE_SUCCESS => Ok(PageResponse::Success),
        PALISADE_RESPONSE_INVALID => Ok(PageResponse::Invalid),
        PALISADE_RESPONSE_FAILURE => Ok(PageResponse::Failure),
        other => Err(Failure::invalid(format!("there is no response {other}"))),
    }
}

/// A time to wait: without a limit if negative.
pub(crate) fn timeout(timeout_ms: i32) -> Duration {
    u64::try_from(timeout_ms).map_or(Duration::MAX, Duration::from_millis)
}

fn give(taken: Option<FaultRecord>, to: Out<'_, Record>) -> i32 {
    match taken {
        None => 0,
        Some(taken) => {
            to.write(taken.into());
            1
        }
    }
}

impl From<FaultRecord> for Record {
    fn from(record: FaultRecord) -> Self {
        let number = |pasid: Option<GuestPasid>| pasid.map_or(PALISADE_NO_PASID, GuestPasid::get);
        match record {
            FaultRecord::Fault(fault) => Self {
                at: fault.at.get(),
                kind: PALISADE_FAULT,
                guest_bdf: fault.bdf.requester_id().into(),
                pasid: number(fault.pasid),
                access: fault.access.bits().into(),
                reason: fault.reason.code().into(),
                group: 0,
                flags: match fault.ats {
                    Ats::Off => 0,
                    Ats::On => PALISADE_RECORD_ATS,
                },
                reserved: 0,
            },
            FaultRecord::PageRequest(request) => Self {
                at: request.at.get(),
                kind: PALISADE_PAGE_REQUEST,
                guest_bdf: request.bdf.requester_id().into(),
                pasid: number(request.pasid),
                access: request.access.bits().into(),
                reason: 0,
                group: request.group.get().into(),
                flags: match request.last_in_group {
                    PlaceInGroup::Last => PALISADE_RECORD_LAST,
                    PlaceInGroup::MoreFollow => 0,
                },
                reserved: 0,
            },
        }
    }
}
