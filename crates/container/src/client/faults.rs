//! The faults and page requests of a client's functions.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use palisade_iommu::{GroupIndex, PageResponse};
use palisade_memory::{Backing, GuestMemory, Protection};
use palisade_units::{Bdf, Gpa, GuestPasid};
use palisade_vfio::FaultRecord;
use palisade_vfio::abi::Request;
use palisade_vfio::abi::layout::{
    FaultRing, PageResponse as PageResponseLayout, RESPONSE_FAILURE, RESPONSE_HAS_PASID,
    RESPONSE_INVALID, RESPONSE_SUCCESS, RESPONSE_VERSION, RING_ENTRIES, RingHead,
};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use zerocopy::IntoBytes;

use super::{Client, ClientError, starts_with};

/// Where the tail stands, which alone a client writes.
const TAIL: u64 = 4;

/// What a VMM is told of its functions: the client's end of a ring. It is fed as long as the [`Client`] is
/// connected.
#[derive(Debug)]
pub struct FaultQueue {
    region: GuestMemory,
    eventfd: OwnedFd,
    connection: OwnedFd,
    entries: u32,
    entry_bytes: u32,
    tail: u32,
}

impl FaultQueue {
    /// Takes the oldest record; `None` where there is none, or where what stands there is none.
    #[must_use]
    pub fn take(&mut self) -> Option<FaultRecord> {
        let head = self.head()?;
        if head.head.get() == self.tail {
            return None;
        }
        let place = u64::from(self.tail % self.entries) * u64::from(self.entry_bytes);
        let mut entry = [0; 64];
        let at = Gpa::new(RING_ENTRIES + place);
        self.region.read(at, &mut entry).ok()?;
        self.tail = self.tail.wrapping_add(1);
        self.region.store_u32(Gpa::new(TAIL), self.tail).ok()?;
        FaultRecord::from_bytes(&entry)
    }

    /// Waits until there is a record, or for so long, and takes it.
    ///
    /// # Errors
    /// [`ClientError::Closed`] where there is none and the connection has ended, and those of the system.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<FaultRecord>, ClientError> {
        // The tail was written before this looks at the head, and the server does the two the other way round: so it
        // rings for a record that is not seen here.
        fence(Ordering::SeqCst);
        if let Some(record) = self.take() {
            return Ok(Some(record));
        }
        let timeout = Timespec::try_from(timeout).ok();
        let mut fds = [
            PollFd::new(&self.eventfd, PollFlags::IN),
            // Answers to requests are none of its business, but nobody rings any more when the other side is gone.
            PollFd::new(&self.connection, PollFlags::RDHUP),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(self.take()),
            Ok(_) => {}
            Err(errno) => return Err(ClientError::Socket(errno.into())),
        }
        let has_ended = !fds[1].revents().is_empty();
        // The counter only says that it rang.
        let _ = rustix::io::read(&self.eventfd, &mut [0; 8]);
        match self.take() {
            None if has_ended => Err(ClientError::Closed),
            taken => Ok(taken),
        }
    }

    /// How many faults found no room.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.head().map_or(0, |head| head.lost.get())
    }

    /// What is readable while there may be something to take. The end of the connection is not to be seen there.
    #[must_use]
    pub fn eventfd(&self) -> &OwnedFd {
        &self.eventfd
    }

    fn head(&self) -> Option<RingHead> {
        // The head first, by itself: what it counts stands there when it is seen.
        let head = self.region.load_u32(Gpa::new(0)).ok()?;
        let rest: RingHead = self.region.read_object(Gpa::new(0)).ok()?;
        Some(RingHead {
            head: head.into(),
            ..rest
        })
    }
}

impl Client {
    /// Has faults and page requests delivered in a ring, as long as this connection lasts.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: EOPNOTSUPP where the host tells somebody else, EBUSY where the VMM has a ring.
    pub fn fault_queue(&mut self) -> Result<FaultQueue, ClientError> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let eventfd = eventfd(0, flags).map_err(|errno| ClientError::Socket(errno.into()))?;
        let connection = self.link.watch()?;
        let request = FaultRing {
            argsz: FaultRing::ARGSZ.into(),
            ..FaultRing::default()
        };
        let number = Request::FaultRing.number();
        let reply = self.ioctl(number, request.as_bytes(), &[eventfd.as_fd()])?;
        let len_bytes = starts_with::<FaultRing>(&reply.written)?.region_bytes.get();
        let fd = reply.descriptors.into_iter().next();
        let backing = Backing::new(fd.ok_or(ClientError::Answer)?, 0);
        let region = GuestMemory::new();
        let mapped = region.map(Gpa::new(0), len_bytes, backing, Protection::ReadWrite);
        mapped.map_err(|error| ClientError::Socket(error.errno().into()))?;
        let head: RingHead = region
            .read_object(Gpa::new(0))
            .map_err(|_| ClientError::Answer)?;
        let (entries, entry_bytes) = (head.entries.get(), head.entry_bytes.get());
        let needed = RING_ENTRIES + u64::from(entries) * u64::from(entry_bytes);
        if entries == 0 || entry_bytes < 64 || needed > len_bytes {
            return Err(ClientError::Answer);
        }
        Ok(FaultQueue {
            region,
            eventfd,
            connection,
            entries,
            entry_bytes,
            tail: head.tail.get(),
        })
    }

    /// Answers a page request group, in the names that the request had.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: ENODEV and ENOENT where no such group waits, as after its first answer.
    pub fn respond(
        &mut self,
        guest_bdf: Bdf,
        pasid: Option<GuestPasid>,
        group: GroupIndex,
        response: PageResponse,
    ) -> Result<(), ClientError> {
        let request = PageResponseLayout {
            argsz: PageResponseLayout::ARGSZ.into(),
            flags: 0.into(),
            place: u32::from(guest_bdf.requester_id()).into(),
            version: RESPONSE_VERSION.into(),
            response_flags: pasid.map_or(0, |_| RESPONSE_HAS_PASID).into(),
            pasid: pasid.map_or(0, GuestPasid::get).into(),
            group: u32::from(group.get()).into(),
            code: match response {
                PageResponse::Success => RESPONSE_SUCCESS,
                PageResponse::Invalid => RESPONSE_INVALID,
                PageResponse::Failure => RESPONSE_FAILURE,
            }
            .into(),
        };
        self.request(Request::PageResponse, request.as_bytes())?;
        Ok(())
    }
}
