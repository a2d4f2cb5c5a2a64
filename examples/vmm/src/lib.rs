//! The skeleton of a VMM that brings its own vIOMMU: what its guest does, and which call of the container socket that
//! becomes. docs/clients.md walks through it.
//!
//! [`Viommu`] has a method for each event that a vIOMMU knows of; [`Guest`] is what it needs of the rest of the VMM.
//! The unit's registers, queues and interrupts are the VMM's own and not here, and no device is.

mod guest;
mod viommu;

pub use guest::{Guest, Invalidation, Pages, PasidEntry};
pub use viommu::Viommu;
