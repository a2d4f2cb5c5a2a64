use std::fmt;

use palisade_units::{Bdf, HostPasid, TenantId};

use crate::{GroupId, Instance, IoasidError, Limit, PasidRange, Timestamp};

/// The number of an event. The first is 0, and each is one more than the event before it, whether or
/// not the log still has that one: a number that is missing between two others was dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(u64);

impl Sequence {
    /// The first event of an authority.
    pub const FIRST: Self = Self(0);

    /// The event with this number.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Something that happened to a PASID or to a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number.
    pub sequence: Sequence,
    /// When, by the authority's clock.
    pub at: Timestamp,
    /// Whose PASID or set it was about, or who was refused; none where nobody owns the PASID.
    pub tenant: Option<TenantId>,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A set was created with this quota.
    SetCreated {
        /// How many PASIDs it may have out.
        quota: u32,
    },
    /// A set's quota was changed.
    QuotaChanged {
        /// How many PASIDs it may have out from now on.
        quota: u32,
    },
    /// A set was closed. What it had out was freed just before.
    SetClosed,
    /// A PASID was allocated.
    Allocated {
        /// Which.
        pasid: HostPasid,
    },
    /// A PASID was entered in the table of a function.
    Bound {
        /// Which.
        pasid: HostPasid,
        /// The function.
        place: Bdf,
    },
    /// An entry of a PASID is gone from the table of a function.
    Unbound {
        /// Which.
        pasid: HostPasid,
        /// The function.
        place: Bdf,
    },
    /// A PASID was freed.
    Freed {
        /// Which.
        pasid: HostPasid,
        /// What became of it.
        outcome: FreeOutcome,
    },
    /// A PASID that was free-pending lost its last hold and may be given out again.
    Reclaimed {
        /// Which.
        pasid: HostPasid,
    },
    /// A request was refused. Nothing else changed.
    Refused {
        /// What was asked for.
        request: Request,
        /// Why not.
        error: IoasidError,
    },
    /// A group of sets was created below another.
    GroupCreated {
        /// Which.
        group: GroupId,
        /// Below which.
        parent: GroupId,
        /// Its limit.
        max: Limit,
    },
    /// The limit of a group was set.
    GroupLimitChanged {
        /// Whose.
        group: GroupId,
        /// The limit from now on.
        max: Limit,
    },
    /// A group was removed.
    GroupRemoved {
        /// Which.
        group: GroupId,
    },
    /// A range was taken out of what can be given out.
    Reserved {
        /// Which.
        range: PasidRange,
    },
    /// A range that was reserved may be given out again.
    Unreserved {
        /// Which.
        range: PasidRange,
    },
    /// An allocator of one's own was registered.
    AllocatorRegistered {
        /// Which.
        instance: Instance,
    },
    /// An allocator of one's own was taken away.
    AllocatorUnregistered {
        /// Which.
        instance: Instance,
    },
    /// The platform refused an entry for a PASID in the table of a function.
    BindRefused {
        /// Which.
        pasid: HostPasid,
        /// The function.
        place: Bdf,
        /// Why, as the platform says it.
        errno: Errno,
    },
    /// An access by a PASID was refused by the platform.
    Faulted {
        /// Which.
        pasid: HostPasid,
        /// The function whose access it was.
        place: Bdf,
        /// Why, as the platform says it.
        reason: FaultCode,
    },
}

/// What became of a PASID that was freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeOutcome {
    /// Nobody held it: it may be given out again.
    Reclaimed,
    /// It is free-pending until its last hold goes, which [`EventKind::Reclaimed`] tells.
    Pending,
}

/// What was asked for when a request was refused. Look-ups are not among them: to find nothing is an
/// answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A set.
    CreateSet,
    /// Another quota.
    Adjust,
    /// A PASID.
    Allocate,
    /// To free a PASID.
    Free,
    /// A reference to a PASID.
    Hold,
    /// An entry in a table.
    Bind,
    /// A pair of a guest's number and a PASID.
    Pair,
    /// A group, another limit of it, or its end.
    Group,
    /// To reserve a range or to give it back.
    Reserve,
    /// To register an allocator or to take it away.
    Allocator,
}

/// The reason of a fault, in the numbering of whoever recorded it (VT-d: the fault reason field).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FaultCode(u8);

impl FaultCode {
    /// The reason with this number.
    #[must_use]
    pub const fn new(raw: u8) -> Self {
        Self(raw)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// An error of whoever refused, as an errno: a positive number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(i32);

impl Errno {
    /// The error with this number.
    #[must_use]
    pub const fn new(raw: i32) -> Self {
        Self(raw)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }
}

/// What [`Authority::events_since`](crate::Authority::events_since) found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    /// The events from the asked one on, oldest first, as far as the log still has them.
    pub events: Vec<Event>,
    /// How many of the events asked for the log has dropped.
    pub dropped: u64,
    /// What to ask for next: the event that is to come.
    pub next: Sequence,
}

impl Events {
    pub(crate) fn in_order(mut self) -> Self {
        self.events.sort_unstable_by_key(|event| event.sequence);
        self
    }
}
