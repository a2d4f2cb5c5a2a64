//! Page requests through the file of a queue.

use std::os::fd::OwnedFd;
use std::time::Duration;

use palisade_iommu::PageResponse;
use palisade_units::{Access, GuestPasid, Iova};
use palisade_vfio::abi::iommufd::layout::{
    FaultQueueAlloc, HwptPageResponse, HwptPgfault, PAGE_RESPONSE_INVALID, PAGE_RESPONSE_SUCCESS,
    PGFAULT_LAST_PAGE, PGFAULT_PASID_VALID,
};
use palisade_vfio::abi::iommufd::{IommufdRequest, ObjectId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use zerocopy::IntoBytes;

use super::super::{ClientError, starts_with};
use super::{IommufdClient, descriptor};

/// A queue of page requests, with its file. Goes on without the [`IommufdClient`], as long as that is connected.
#[derive(Debug)]
pub struct PageRequests {
    /// Its id, for tables to name.
    pub id: ObjectId,
    file: OwnedFd,
}

/// A page request that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The device.
    pub device: ObjectId,
    /// The PASID; `None` for a request without one.
    pub pasid: Option<GuestPasid>,
    /// The page.
    pub at: Iova,
    /// What is wanted.
    pub access: Access,
    /// Whether the group is complete, so that it may be answered.
    pub is_last: bool,
    /// What it is answered by.
    pub cookie: u32,
}

impl IommufdClient {
    /// Makes a queue of page requests.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: EOPNOTSUPP where the host tells somebody else, EBUSY where another connection of the
    /// VMM is told, ENOMEM.
    pub fn page_requests(&mut self) -> Result<PageRequests, ClientError> {
        let request = FaultQueueAlloc {
            size: FaultQueueAlloc::ARGSZ.into(),
            ..FaultQueueAlloc::default()
        };
        let reply = self.ask(IommufdRequest::FaultQueueAlloc, &request)?;
        let told: FaultQueueAlloc = starts_with(&reply.written)?;
        Ok(PageRequests {
            id: ObjectId::new(told.out_fault_id.get()),
            file: descriptor(reply)?,
        })
    }
}

impl PageRequests {
    /// Waits for a page request, or for so long at the most.
    ///
    /// # Errors
    /// [`ClientError::Closed`] where the queue is gone, and those of the system.
    pub fn wait(&self, timeout: Duration) -> Result<Option<Waiting>, ClientError> {
        let mut record = [0; size_of::<HwptPgfault>()];
        if !read_record(&self.file, timeout, &mut record)? {
            return Ok(None);
        }
        let read: HwptPgfault = starts_with(&record)?;
        let flags = read.flags.get();
        let pasid = match flags & PGFAULT_PASID_VALID {
            0 => None,
            _ => Some(GuestPasid::new(read.pasid.get())?),
        };
        let access = u8::try_from(read.perm.get())
            .ok()
            .and_then(Access::from_bits);
        Ok(Some(Waiting {
            device: ObjectId::new(read.dev_id.get()),
            pasid,
            at: Iova::new(read.addr.get()),
            access: access.ok_or(ClientError::Answer)?,
            is_last: flags & PGFAULT_LAST_PAGE != 0,
            cookie: read.cookie.get(),
        }))
    }

    /// Answers a page request. [`PageResponse::Failure`] is not among what can be said here: it is said as
    /// [`PageResponse::Invalid`].
    ///
    /// # Errors
    /// [`ClientError::Closed`] where the queue is gone, and those of the system.
    pub fn answer(&self, request: Waiting, response: PageResponse) -> Result<(), ClientError> {
        self.answer_by(request.cookie, response)
    }

    /// [`PageRequests::answer`], for who has kept the cookie alone.
    ///
    /// # Errors
    /// Those of [`PageRequests::answer`].
    pub fn answer_by(&self, cookie: u32, response: PageResponse) -> Result<(), ClientError> {
        let answer = HwptPageResponse {
            cookie: cookie.into(),
            code: match response {
                PageResponse::Success => PAGE_RESPONSE_SUCCESS,
                PageResponse::Invalid | PageResponse::Failure => PAGE_RESPONSE_INVALID,
            }
            .into(),
        };
        match send(&self.file, answer.as_bytes(), SendFlags::NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(Errno::PIPE) => Err(ClientError::Closed),
            Err(errno) => Err(ClientError::Socket(errno.into())),
        }
    }

    /// What is readable while there may be something to take.
    #[must_use]
    pub fn file(&self) -> &OwnedFd {
        &self.file
    }
}

/// Reads a whole record. `false` where there is none in time, or a signal or another thread was faster.
fn read_record(file: &OwnedFd, timeout: Duration, into: &mut [u8]) -> Result<bool, ClientError> {
    match read_up_to(file, timeout, into)? {
        0 => Ok(false),
        len_bytes if len_bytes == into.len() => Ok(true),
        _ => Err(ClientError::Answer),
    }
}

/// Reads a record, and says how long it is; 0 where there is none in time, or a signal or another thread was faster.
pub(super) fn read_up_to(
    file: &OwnedFd,
    timeout: Duration,
    into: &mut [u8],
) -> Result<usize, ClientError> {
    let timeout = Timespec::try_from(timeout).ok();
    let mut fds = [PollFd::new(file, PollFlags::IN)];
    match poll(&mut fds, timeout.as_ref()) {
        Ok(0) | Err(Errno::INTR) => return Ok(0),
        Ok(_) => {}
        Err(errno) => return Err(ClientError::Socket(errno.into())),
    }
    // Another thread may have taken what was there.
    match recv(file, &mut *into, RecvFlags::DONTWAIT) {
        Ok((0, _)) => Err(ClientError::Closed),
        Ok((len_bytes, _)) => Ok(len_bytes),
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        Err(errno) => Err(ClientError::Socket(errno.into())),
    }
}
