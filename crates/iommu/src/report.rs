use palisade_units::{Access, Bdf, GuestPasid, Iova};

use crate::{Ats, FaultReason};

/// What a tenant is told of a request that was refused, in the tenant's own names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The function as the guest sees it.
    pub bdf: Bdf,
    /// The PASID as the guest named it; `None` for a request without one.
    pub pasid: Option<GuestPasid>,
    /// The address of the request that was refused.
    pub at: Iova,
    /// What the request wanted.
    pub access: Access,
    /// Why it was refused.
    pub reason: FaultReason,
    /// Whether the function asked for a translation, or used one.
    pub ats: Ats,
}

/// The index of a page request group: 9 bits (PCIe 10.4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupIndex(u16);

impl GroupIndex {
    /// How many there are.
    pub const COUNT: u16 = 512;

    /// The index with these low 9 bits; higher bits are dropped.
    #[must_use]
    pub const fn new(raw: u16) -> Self {
        Self(raw & (Self::COUNT - 1))
    }

    /// The number, below 512.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// Where a page request stands in its group (PCIe 10.4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceInGroup {
    /// It is the last of its group, so the group may be answered.
    Last,
    /// Others of the group follow.
    MoreFollow,
}

/// A device asks the tenant to make a page present, in the tenant's own names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// The function as the guest sees it.
    pub bdf: Bdf,
    /// The PASID as the guest named it; `None` for a request without one.
    pub pasid: Option<GuestPasid>,
    /// The start of the page.
    pub at: Iova,
    /// What the device wants to do there.
    pub access: Access,
    /// The group that the answer must name.
    pub group: GroupIndex,
    /// Whether the group is complete.
    pub last_in_group: PlaceInGroup,
}

/// The answer to a page request group (VT-d §7.5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageResponse {
    /// The pages are there: try again.
    Success,
    /// The pages will not come: give up on this request.
    Invalid,
    /// Something failed: ask for no more.
    Failure,
}

/// A tenant's page request queue has no room; the request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the page request queue is full: the guest must take requests from it")]
pub struct QueueFull;

/// What came of looking for an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookedUp {
    /// There is none: the request is refused.
    Nothing,
    /// It is bound: the request is made again, once.
    Bound,
    /// Only where the caller may not wait: it cannot be said now.
    Later,
}

/// Whether who asks for an entry may wait for what the tenant itself is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayWait {
    /// It is the tenant's own thread.
    Yes,
    /// It has others to serve.
    No,
}

/// Where a tenant's faults and page requests go: its unit.
///
/// Called from the thread that made the access, never while the platform holds a lock or counts the
/// access as in flight; so a sink may call back into the platform, invalidation included.
pub trait Sink: Send + Sync {
    /// A request was refused. Of a request for a translation that is told, too, where it is an answer and no
    /// fault to the guest (VT-d §7.1.2): who is told knows.
    fn fault(&self, fault: Fault);

    /// A request found nothing bound to its tag, and is about to be refused. Who is not told of new entries
    /// looks for one now, and binds it, as hardware that does not cache entries which are not present
    /// (VT-d §6.1). Who may not wait, as engines that serve others too, is told to come again.
    fn look_up(&self, _bdf: Bdf, _pasid: Option<GuestPasid>, _wait: MayWait) -> LookedUp {
        LookedUp::Nothing
    }

    /// A device needs a page. The answer comes later by
    /// [`FunctionHandle::respond`](crate::FunctionHandle::respond).
    ///
    /// # Errors
    /// [`QueueFull`]: not taken; the platform answers it with [`PageResponse::Failure`].
    fn page_request(&self, request: PageRequest) -> Result<(), QueueFull>;
}

/// Receives the answer to a page request: called exactly once, without any lock of the platform.
pub type PageWaiter = Box<dyn FnOnce(PageResponse) + Send>;
