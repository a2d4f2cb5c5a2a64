//! Page requests, as they go through the file of a queue and come back answered.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use palisade_iommu::{GroupIndex, PageRequest, PageResponse, PlaceInGroup, QueueFull};
use palisade_units::{Bdf, GuestPasid};
use zerocopy::{FromBytes, IntoBytes};

use super::layout::{
    HwptPageResponse, HwptPgfault, PAGE_RESPONSE_INVALID, PAGE_RESPONSE_SUCCESS, PGFAULT_LAST_PAGE,
    PGFAULT_PASID_VALID,
};
use super::{Channel, ObjectId, Taken};
use crate::abi::vmm::locked;
use crate::{Container, SpaceKey};

/// How many groups of one queue may wait for their answers.
const MOST_WAITING: usize = 4096;
/// How much of what a client wrote is taken in one turn, so that others have theirs.
const TURN: usize = 64;
/// The most bytes that are taken at once.
const WRITE_BYTES: usize = 4096;

/// Whose requests are meant: a device's, under one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Asker {
    pub(super) place: Bdf,
    pub(super) key: SpaceKey,
}

/// A queue of page requests.
pub(super) struct FaultQueue {
    channel: Box<dyn Channel>,
    waiting: Mutex<Waiting>,
    /// Whether the client has closed its end.
    is_over: AtomicBool,
}

#[derive(Default)]
struct Waiting {
    /// The next cookie that is looked at.
    next: u32,
    groups: BTreeMap<u32, (Asker, GroupIndex)>,
}

impl Waiting {
    /// The cookie of a group: a new one, unless others of the group came before.
    fn cookie(&mut self, from: Asker, group: GroupIndex) -> Option<u32> {
        let mut known = self.groups.iter();
        if let Some((cookie, _)) = known.find(|(_, waits)| **waits == (from, group)) {
            return Some(*cookie);
        }
        if self.groups.len() >= MOST_WAITING {
            return None;
        }
        while self.groups.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let cookie = self.next;
        self.next = cookie.wrapping_add(1);
        self.groups.insert(cookie, (from, group));
        Some(cookie)
    }
}

impl FaultQueue {
    pub(super) fn new(channel: Box<dyn Channel>) -> Self {
        Self {
            channel,
            waiting: Mutex::default(),
            is_over: AtomicBool::new(false),
        }
    }

    pub(super) fn readable(&self) -> BorrowedFd<'_> {
        self.channel.readable()
    }

    /// Whether the client has not closed its file.
    pub(super) fn is_open(&self) -> bool {
        self.channel.is_open()
    }

    /// Whether the client will answer no more.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Lets the client read a page request.
    pub(super) fn put(
        &self,
        request: &PageRequest,
        from: Asker,
        device: ObjectId,
    ) -> Result<(), QueueFull> {
        let mut waiting = locked(&self.waiting);
        if self.is_over() {
            return Err(QueueFull);
        }
        let cookie = waiting.cookie(from, request.group).ok_or(QueueFull)?;
        let is_last = match request.last_in_group {
            PlaceInGroup::Last => PGFAULT_LAST_PAGE,
            PlaceInGroup::MoreFollow => 0,
        };
        let has_pasid = request.pasid.map_or(0, |_| PGFAULT_PASID_VALID);
        let record = HwptPgfault {
            flags: (has_pasid | is_last).into(),
            dev_id: device.get().into(),
            pasid: request.pasid.map_or(0, GuestPasid::get).into(),
            grpid: u32::from(request.group.get()).into(),
            perm: u32::from(request.access.bits()).into(),
            addr: request.at.get().into(),
            cookie: cookie.into(),
            ..HwptPgfault::default()
        };
        let put = self.channel.put(record.as_bytes());
        put.inspect_err(|_| {
            waiting.groups.remove(&cookie);
        })
    }

    /// The groups of these that wait now.
    pub(super) fn waiting(&self, from: Asker) -> Vec<u32> {
        let waiting = locked(&self.waiting);
        let of_it = waiting.groups.iter().filter(|(_, (one, _))| *one == from);
        of_it.map(|(cookie, _)| *cookie).collect()
    }

    /// What waits of these was answered by somebody else.
    pub(super) fn forget(&self, from: Asker) {
        let mut waiting = locked(&self.waiting);
        waiting.groups.retain(|_, (one, _)| *one != from);
    }

    /// Answers a group, if it waits.
    pub(super) fn answer(&self, container: &Container, cookie: u32, response: PageResponse) {
        let group = locked(&self.waiting).groups.remove(&cookie);
        match group {
            Some(group) => Self::respond(container, group, response),
            None => tracing::debug!(cookie, "no group waits under this cookie"),
        }
    }

    fn respond(container: &Container, (from, group): (Asker, GroupIndex), response: PageResponse) {
        // Who was unbound meanwhile was answered then.
        if let Err(error) = container.respond(from.place, from.key, group, response) {
            tracing::debug!(%error, "a page response comes too late");
        }
    }

    /// Does what the client wrote.
    pub(super) fn serve(&self, container: &Container) {
        let mut bytes = [0; WRITE_BYTES];
        for _ in 0..TURN {
            let len_bytes = match self.channel.take(&mut bytes) {
                Taken::Bytes(len_bytes) => len_bytes,
                Taken::Nothing => return,
                Taken::Over => return self.end(container),
            };
            let written = bytes.get(..len_bytes).unwrap_or_default();
            let (answers, rest) = written.as_chunks::<{ size_of::<HwptPageResponse>() }>();
            if !rest.is_empty() {
                tracing::debug!("a write is not made of page responses");
            }
            for answer in answers {
                if let Ok(answer) = HwptPageResponse::read_from_bytes(answer) {
                    self.answer_by(container, answer);
                }
            }
        }
    }

    /// Nobody is left who could answer what waits.
    fn end(&self, container: &Container) {
        let left = {
            let mut waiting = locked(&self.waiting);
            // Under the lock, so that nothing is put in behind this.
            self.is_over.store(true, Ordering::Relaxed);
            std::mem::take(&mut waiting.groups)
        };
        for group in left.into_values() {
            Self::respond(container, group, PageResponse::Invalid);
        }
    }

    fn answer_by(&self, container: &Container, answer: HwptPageResponse) {
        let response = match answer.code.get() {
            PAGE_RESPONSE_SUCCESS => PageResponse::Success,
            PAGE_RESPONSE_INVALID => PageResponse::Invalid,
            code => {
                tracing::debug!(code, "no page response has this code");
                return;
            }
        };
        self.answer(container, answer.cookie.get(), response);
    }
}
