//! The PASID authority of a host: who may use which PASID, and when a number may be given out again.
//!
//! One [`Authority`] gives out the 2^20 numbers of the host's namespace. A tenant takes them through
//! its [`PasidSet`], whose quota is reserved from what the host has. Whoever programs a PASID into
//! anything that can reach memory keeps a [`Hold`] on it until that is clear again; a PASID that is
//! freed while held stays *free-pending*, still charged and still its tenant's, until the last hold
//! goes. A set also pairs the numbers of its guest with the host's.
//!
//! What happens is written down: every allocation, bind, refusal, fault and free is an [`Event`] with a
//! number and the time of a [`Clock`] that the caller brings, in a log that keeps the latest of them, with a
//! fair share of its room for each tenant, and counts those that it dropped.
//!
//! A PASID that is out costs 32 bytes, up to 8 in its set's list, and some 18 for its pair with a guest's
//! number where it has one; those that an allocator of one's own chose, that carry data, or that are in the
//! tables of several functions cost what a map entry costs beside.
//!
//! What it will not do: it knows no tables and no devices, so it neither grants nor revokes access
//! itself, and it waits for nobody but the [`Listener`]s, which it tells of each transition.

mod authority;
mod bindings;
mod bitmap;
mod capacity;
mod clock;
mod custom;
mod error;
mod event;
mod group;
mod hold;
mod labels;
mod ledger;
mod limits;
mod log;
mod notify;
mod numbers;
mod pairs;
mod range;
mod records;
mod set;
mod sets;
mod state;
mod sync;
mod uses;

#[cfg(test)]
mod tests;

pub use authority::{Audit, Authority, DEFAULT_KEPT_EVENTS};
pub use bindings::Binding;
pub use clock::{Clock, NoClock, Timestamp};
pub use custom::{CustomAllocator, Instance, Operations};
pub use error::IoasidError;
pub use event::{Errno, Event, EventKind, Events, FaultCode, FreeOutcome, Request, Sequence};
pub use group::{GroupId, GroupUsage, Limit, MAX_GROUP_DEPTH};
pub use hold::{BindMark, Hold, Put};
pub use labels::Data;
pub use ledger::{LedgerEntry, PasidState};
pub use notify::{Listener, Notification, Priority, Subscription, Transition};
pub use range::{DEFAULT_QUOTA, PasidRange, Quota};
pub use set::PasidSet;
