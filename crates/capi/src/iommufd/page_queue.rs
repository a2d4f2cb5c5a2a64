//! Page requests through the file of a queue.

use std::os::fd::AsRawFd;

use palisade_container::{PageRequests, Waiting};
use palisade_units::GuestPasid;
use safer_ffi::prelude::*;

use super::{Iommufd, with};
use crate::client::PALISADE_NO_PASID;
use crate::error::{call, give_back, needed};
use crate::faults::{PALISADE_RECORD_LAST, response, timeout};

/// A page request that waits for its answer.
#[derive_ReprC(rename = "palisade_page_request")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// The address of the page.
    pub at: u64,
    /// The id of the device.
    pub device: u32,
    /// The PASID; `PALISADE_NO_PASID` for a request without one.
    pub pasid: u32,
    /// What is wanted: `PALISADE_ACCESS_READ` and those after it, or'ed together.
    pub access: u32,
    /// `PALISADE_RECORD_LAST` where the group is complete, so that it may be answered.
    pub flags: u32,
    /// What it is answered by.
    pub cookie: u32,
    /// Zero.
    pub reserved: u32,
}

/// A queue of page requests, with its file.
#[derive_ReprC(rename = "palisade_page_queue")]
#[repr(opaque)]
pub struct PageQueue {
    inner: PageRequests,
}

/// Makes a queue of page requests. `*queue` is for `palisade_iommufd_free_page_queue` to take back, before the iommufd or after
/// it; it is null where this fails.
///
/// EINVAL; EOPNOTSUPP where the host tells somebody else, EBUSY where another connection of the VMM is told, ENOMEM.
#[ffi_export]
pub fn palisade_iommufd_open_page_queue(
    iommufd: Option<&Iommufd>,
    queue: Option<Out<'_, Option<repr_c::Box<PageQueue>>>>,
) -> i32 {
    call(|| {
        let mut queue = needed(queue, "where the queue goes")?;
        queue.reborrow().write(None);
        let inner = with(iommufd, |client| client.page_requests())?;
        queue.write(Some(Box::new(PageQueue { inner }).into()));
        Ok(0)
    })
}

/// Gives a queue back, and closes its file: what waits in it is answered by the host, as not to come. Null is passed over.
#[ffi_export]
pub fn palisade_iommufd_free_page_queue(queue: Option<repr_c::Box<PageQueue>>) {
    give_back(queue);
}

/// The id of a queue, for tables to name; `PALISADE_NO_QUEUE` for null.
#[ffi_export]
#[must_use]
pub fn palisade_iommufd_page_queue_id(queue: Option<&PageQueue>) -> u32 {
    queue.map_or(super::tables::PALISADE_NO_QUEUE, |queue| {
        queue.inner.id.get()
    })
}

/// Returns the descriptor that polls as readable when there is a page request to take, or the queue has gone. It is the
/// queue's: do not read or close it. EINVAL.
#[ffi_export]
pub fn palisade_iommufd_page_queue_fd(queue: Option<&PageQueue>) -> i32 {
    call(|| Ok(needed(queue, "the queue")?.inner.file().as_raw_fd()))
}

/// Waits for a page request, so many milliseconds at the most, without a limit if negative, and takes it. Returns 1, or 0
/// where none came, or a signal did. EINVAL; ECONNRESET where the queue has gone.
#[ffi_export]
pub fn palisade_iommufd_wait_page(
    queue: Option<&PageQueue>,
    timeout_ms: i32,
    request: Option<Out<'_, PageRequest>>,
) -> i32 {
    call(|| {
        let (queue, request) = (needed(queue, "the queue")?, needed(request, "the request")?);
        Ok(match queue.inner.wait(timeout(timeout_ms))? {
            None => 0,
            Some(waiting) => {
                request.write(waiting.into());
                1
            }
        })
    })
}

/// Answers a page request group once, by the cookie of its last request: `PALISADE_RESPONSE_SUCCESS`, or one after it, which
/// all say that the pages will not come. A cookie that nothing waits under is passed over. EINVAL; ECONNRESET where the queue
/// has gone.
#[ffi_export]
pub fn palisade_iommufd_answer(queue: Option<&PageQueue>, cookie: u32, response: u32) -> i32 {
    call(|| {
        let (queue, response) = (needed(queue, "the queue")?, self::response(response)?);
        queue.inner.answer_by(cookie, response)?;
        Ok(0)
    })
}

impl From<Waiting> for PageRequest {
    fn from(waiting: Waiting) -> Self {
        Self {
            at: waiting.at.get(),
            device: waiting.device.get(),
            pasid: waiting.pasid.map_or(PALISADE_NO_PASID, GuestPasid::get),
            access: waiting.access.bits().into(),
            flags: if waiting.is_last {
                PALISADE_RECORD_LAST
            } else {
                0
            },
            cookie: waiting.cookie,
            reserved: 0,
        }
    }
}
