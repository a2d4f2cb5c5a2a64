//! What can be asked of an authority.

use palisade_ioasid::{Data, FaultCode, Limit, PasidRange, Priority, Quota};
use palisade_units::{Bdf, GuestPasid, HostPasid, TenantId};

/// Numbers that may be given out: 1 to this. Few, so that operations meet.
pub(crate) const CAPACITY: u32 = 9;

/// A place in a list, counted from its newest entry and round again, so that each number names one.
pub(crate) type Pick = usize;

/// Where in a list of this length a pick is. None where the list is empty.
pub(crate) fn place_of(pick: Pick, len: usize) -> Option<usize> {
    (len > 0).then(|| len - 1 - pick % len)
}

/// What a listener does when it is told that a PASID was freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    /// Nothing.
    Stays,
    /// Drops every hold on it, as who programs hardware does.
    LetsGo,
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    CreateSet(TenantId, Quota),
    CreateSetIn(Pick, TenantId, Quota),
    ShareSet(Pick),
    DropSet(Pick),
    Close(Pick),
    Adjust(Pick, u32),
    Alloc(Pick, PasidRange),
    Free(Pick, HostPasid),
    FreeRange(Pick, PasidRange),
    SetData(Pick, HostPasid, Option<Data>),
    Look(Pick, HostPasid),
    Owned(Pick, PasidRange),
    Hold(Pick, HostPasid),
    CloneHold(Pick),
    DropHold(Pick),
    Put(Pick),
    Bind(Pick, Bdf),
    HoldOfMark(Pick),
    Unbind(Pick),
    Fault(HostPasid, Bdf, FaultCode),
    FaultOf(TenantId, HostPasid, Bdf, FaultCode),
    Attach(Pick, GuestPasid, HostPasid),
    Detach(Pick, GuestPasid),
    FindGuest(Pick, GuestPasid),
    CreateGroup(Pick, Limit),
    RemoveGroup(Pick),
    SetGroupMax(Pick, Limit),
    GroupUsage(Pick),
    Reserve(PasidRange),
    /// One of the reserved ranges in ascending order, or a range that may be none of them.
    Unreserve(usize),
    Register(usize),
    Unregister(usize),
    Listen(Priority, Habit),
    ListenToSet(Pick, Priority, Habit),
    Unlisten(Pick),
    /// Lets go of every PASID.
    Quiet,
}
