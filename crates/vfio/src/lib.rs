//! What a VMM may ask of the host: PASIDs, and what they are bound to, for one tenant.
//!
//! A [`Container`] stands between a tenant's unit, which reads the guest's tables, and the platform's
//! IOMMU, which alone translates. It turns the guest's names (BDF, PASID) into the host's, and gives
//! the platform an entry only with a hold on a PASID of the tenant's own set. Everything that it took
//! goes back by detaching and by [`Container::close`].
//!
//! What is charged to the tenant's quota: each PASID that the guest allocates, each number of the
//! guest's own that is bound somewhere, and one PASID for each attached function, which serves its
//! requests without a PASID.
//!
//! A VMM that has no unit here takes faults and page requests from a [`FaultRing`], which is a sink
//! like a unit.
//!
//! A VMM that asks by itself, and not through a unit, does so in the bytes that were proposed for VFIO in 2020, or in
//! those of today's iommufd: [`abi`].
//!
//! What it will not do: it reads no guest memory, knows no register of any unit and no socket, and
//! has no threads.

pub mod abi;
mod attachment;
mod bind_all;
mod binding;
mod container;
mod error;
mod fault_record;
mod fault_ring;
mod key;
mod lease;
mod naming;
mod outlet;
mod pasids;
mod request;
mod state;
mod terms;

#[cfg(test)]
mod tests;

pub use attachment::Attachment;
pub use container::Container;
pub use error::VfioError;
pub use fault_record::FaultRecord;
pub use fault_ring::{Bell, FaultRing};
pub use key::{GuestScope, SpaceKey};
pub use request::{Abi, Nesting, PasidRequests};
pub use terms::Terms;
