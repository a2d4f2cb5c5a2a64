//! An Intel-DSA-compatible accelerator: work queues, engines, and the registers by which a driver
//! uses them.
//!
//! [`Accelerator`] is the core. It takes descriptors through [`Lane`]s, each with the [`Session`] of
//! whoever is behind it, and runs them on [`Engine`]s, which touch memory through their
//! [`palisade_iommu::DmaPort`] alone. A descriptor that needs a page is put aside while others go on.
//! A [`SharedPortal`] is a way in for drivers that know of it, without a trap.
//! [`DsaFunction`] is the PCI function that a driver sees; what the PASIDs mean that a driver writes into it is for
//! its [`PasidPolicy`] to say. It moves to another host by [`palisade_pci::Migration`].
//!
//! Read buffers can be given to groups and are checked as the device checks them; engines have no such buffers, and
//! whose turn it is follows from nothing that a driver configures.
//!
//! What it will not do: make a PASID, know a guest, start a thread or look at a clock. There are no
//! interrupt message store, no event log, no performance counters, and no interrupt handles but
//! vectors; operations beyond [`OPERATIONS`], which are those of the first generation, are refused by their status.

mod accelerator;
mod check;
mod engine;
pub mod function;
mod lane;
mod lock;
mod op;
mod queue;
mod record;
mod session;
mod shared_portal;
pub mod spec;
mod tally;
mod task;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use accelerator::{Accelerator, Counters, Doorbell, MAX_QUEUES, NoSuchQueue};
pub use check::OPERATIONS;
pub use engine::{Engine, Progress};
pub use function::{Direct, DsaFunction, EntryPoint, PasidPolicy, PasidRefused, Shape};
pub use lane::SubmitError;
pub use queue::Lane;
pub use session::{Client, Identity, PasidUse, Rules, Session, Switch};
pub use shared_portal::{Rest, SharedPortal, Taken};
pub use tally::Settled;
