//! The platform's IOMMU: what decides where a device's request leads.
//!
//! An [`Iommu`] has functions by BDF, and each function a PASID table of its own, keyed by the tag of
//! a request or by its having none. An entry binds a tag to a [`Space`] of one tenant: tables in the
//! tenant's memory, by which addresses are walked, and that memory itself, where every translation
//! ends. It keeps a [`Hold`](palisade_ioasid::Hold), so the PASID behind it is not given out again
//! while it stands. An engine reaches memory through its [`DmaPort`] and in no other way.
//!
//! - **Walks** follow VT-d revision 5.10, scalable mode: first stage (§3.6), second stage (§3.7),
//!   both (§3.8), pass-through (§3.9). Each violation has its [`FaultReason`] (§7.1.3).
//! - **Caches** are private to ports: translations, tables of pages (paging-structure caches), what a
//!   PASID is bound to, and the tenant's regions. They are checked against the generation of the tag,
//!   which invalidations advance. What is stale stays until it is invalidated, and no longer. An
//!   invalidation, unbind or release returns when accesses in flight that used the old state have
//!   ended.
//! - **Device TLBs** are what ports cache of functions with ATS ([`Ats`]): device-TLB invalidations reach them,
//!   and those of the unit's own caches do not ([`Cached`]).
//! - **Misses** of a tag that nothing is bound to are put to its owner once, who may know of an entry by now
//!   ([`Sink::look_up`]).
//! - **Faults and page requests** go to the [`Sink`] of the binding, in the guest's names. Faults of a
//!   tag that nothing is bound to go to its owner: who has the function, or on a shared one the
//!   [`SliceOwner`] whose set has the PASID; else to the host's log. Each fault is an event of the
//!   authority as well ([`Iommu::audited_by`]). The platform holds no lock and counts no access as in
//!   flight while it calls a sink, a waiter or the authority's log.
//!
//! What a device writes, and what walks mark in tables, is in the log of the tenant's memory where that is on
//! ([`GuestMemory::start_dirty_log`](palisade_memory::GuestMemory::start_dirty_log)): it is kept where memory is
//! written, so nothing here has to know of it.
//!
//! What it will not do: it reads no PASID directories, contexts or queues of guests (their unit does,
//! and binds what it finds); it allocates no PASIDs; it knows no sockets, threads or clocks; it does
//! not translate ahead of requests, and delivers no interrupts: a request without a PASID to the
//! interrupt address range is refused, whatever its space says (§3.14).

mod audit;
mod cached;
mod caches;
mod claim;
mod entry;
mod epoch;
mod error;
mod faults;
mod function;
mod handle;
mod journal;
mod owners;
mod port;
mod reason;
mod report;
mod requests;
mod resolve;
mod space;
mod table;
mod tlb;
mod upper;
mod walk;

#[cfg(test)]
mod tests;

pub use cached::{Ats, Cached, DeviceTlb};
pub use claim::{Claim, Sharing};
pub use entry::{Binding, FaultProcessing, UserId};
pub use error::{IommuError, TagName};
pub use faults::{HostFault, UnknownTags};
pub use function::{PasidEnable, PasidSupport};
pub use handle::{AuditEntry, FunctionHandle, Iommu, Scope, Unbound};
pub use owners::SliceOwner;
pub use port::{DmaError, DmaPort, OnMiss, Partial, PieceOfWork, Privilege, Requester, Side};
pub use reason::FaultReason;
pub use report::{
    Fault, GroupIndex, LookedUp, MayWait, PageRequest, PageResponse, PageWaiter, PlaceInGroup,
    QueueFull, Sink,
};
pub use space::{
    AccessedDirty, ExecuteRequests, ExtendedAccessed, FirstStage, Levels, NoExecute, PageWalkSnoop,
    SecondStage, Space, SupervisorExecution, SupervisorRequests, WriteProtect,
};
