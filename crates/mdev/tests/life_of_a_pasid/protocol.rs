//! In which steps a container binds, unbinds and frees, and what can be left out of them.

use crate::world::Goal;

/// What is left out of the rooms' work, to see that it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Without {
    /// All is done as the rooms do it.
    Nothing,
    /// All of the drain: unbind waits for no access and answers no page request, and unfinished work holds no number.
    Drain,
    /// Unbind does not wait for accesses in flight.
    WaitForAccesses,
    /// Page requests that are open at an unbind stay so.
    AnswerToRequests,
    /// Unfinished work holds no number.
    HoldOfWork,
    /// The translation cache is not told of an unbind.
    Invalidation,
    /// An access in flight fills the cache even when an invalidation overtook it.
    Generations,
    /// The entry goes last: its hold is dropped and the number freed before.
    EntryBeforeHold,
    /// Work that the engine has in hand when its tenant's queues are emptied may still be put aside.
    RetirementAtParking,
    /// The device is given whatever number the tenant wrote.
    Mediation,
}

/// A step of an operation. Other tenants, engines and death come between any two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    TakeHold,
    PutEntry,
    RemoveEntry,
    Invalidate,
    WaitForAccesses,
    AnswerRequests,
    DropHold,
    Free,
}

impl Without {
    /// The steps to a goal.
    pub(crate) fn steps(self, goal: Goal) -> &'static [Step] {
        use Step::{
            AnswerRequests, DropHold, Free, Invalidate, PutEntry, RemoveEntry, TakeHold,
            WaitForAccesses,
        };
        // An unbind is what a free begins with, all but the last step.
        let free: &[Step] = match self {
            Self::Drain => &[RemoveEntry, Invalidate, DropHold, Free],
            Self::WaitForAccesses => &[RemoveEntry, Invalidate, AnswerRequests, DropHold, Free],
            Self::AnswerToRequests => &[RemoveEntry, Invalidate, WaitForAccesses, DropHold, Free],
            Self::Invalidation => &[RemoveEntry, WaitForAccesses, AnswerRequests, DropHold, Free],
            Self::EntryBeforeHold => &[
                DropHold,
                Free,
                RemoveEntry,
                Invalidate,
                WaitForAccesses,
                AnswerRequests,
            ],
            Self::Nothing
            | Self::HoldOfWork
            | Self::Generations
            | Self::RetirementAtParking
            | Self::Mediation => &[
                RemoveEntry,
                Invalidate,
                WaitForAccesses,
                AnswerRequests,
                DropHold,
                Free,
            ],
        };
        let unbind: &[Step] = match self {
            Self::EntryBeforeHold => &[
                DropHold,
                RemoveEntry,
                Invalidate,
                WaitForAccesses,
                AnswerRequests,
            ],
            _ => free.split_last().map_or(&[], |(_, unbind)| unbind),
        };
        match goal {
            Goal::Bind => &[TakeHold, PutEntry],
            Goal::Unbind => unbind,
            Goal::FreeBound => free,
            Goal::FreeUnbound => &[Free],
        }
    }

    /// Whether a descriptor has a hold on its number until it is finished.
    pub(crate) fn work_holds(self) -> bool {
        !matches!(self, Self::Drain | Self::HoldOfWork)
    }
}
