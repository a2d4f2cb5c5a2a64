//! The VT-d unit that a guest sees.
//!
//! A [`Unit`] is a PCI function whose BAR 0 is the register page of a remapping unit. It
//! reads the guest's root, context and PASID tables in the guest's own memory and tells the tenant's
//! [`Container`](palisade_vfio::Container) what it found: bind, unbind, invalidate, respond. The
//! platform translates and decides; a guest that lies in its tables or queues harms itself alone.
//! Faults and page requests come back through [`Sink`](palisade_iommu::Sink) and become fault records,
//! page request descriptors and messages, in the guest's names.
//!
//! - [`spec`] is the specification as data; a driver uses it too.
//! - [`dmar`] is how firmware tells a guest where the unit stands.
//! - In caching mode it binds what it is told of, and otherwise also what a request is found to lack
//!   ([`CachingMode`]).
//! - An invalidation takes effect before the next wait descriptor completes; those between two wait
//!   descriptors are done together, and the same one once.
//! - A [`UnitState`] is what of a unit its guest takes along to another host, as bytes of a version.
//! - One access to a register does a bounded amount of work. A queue that holds more goes on with the
//!   next access, as hardware goes on by itself.
//!
//! What it will not do: it translates nothing and caches no entry, remaps no interrupts, has no threads
//! and no sockets, and offers no performance counters, no enhanced commands and no abort-DMA mode.

mod config_space;
mod function;
mod migration;
mod queue;
#[cfg(test)]
mod reference;
mod registers;
mod sink;
mod state;
mod sync;
mod tables;
#[cfg(test)]
mod testing;
mod unit;

pub mod dmar;
pub mod spec;

pub use state::{RestoreError, UnitState, Unreadable};
pub use unit::{CachingMode, MessageSignal, Unit, UnitConfig, VcmdLayout};
