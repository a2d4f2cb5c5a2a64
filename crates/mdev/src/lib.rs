//! Mediated devices: a tenant's slice of a shared accelerator, and the whole of one for an exclusive
//! owner.
//!
//! A [`Parent`] is an accelerator with its function on the host's bus. Either one tenant has all of it
//! ([`Parent::claim`]): he programs any PASID and the function's own table decides. Or tenants
//! have slices of it: a [`Slice`] is made in a [`Registry`] under a UUID, with a queue of its own or a
//! share of a common one, and is then assigned to a tenant. Each PASID that the tenant's driver writes into a slice goes
//! through [`Mediation`], which turns it into the host's, or refuses.
//!
//! Nothing of a slice can be mapped by a client; [`trap_map`] says what stands where.
//!
//! What it will not do: it binds nothing and allocates nothing (the tenant's container does), it makes
//! no thread and knows no socket. A device moves to another host by [`palisade_pci::Migration`]; its state is in the
//! guest's PASIDs, and here they get the meaning that they have on this host.

mod assigned;
mod error;
mod forwarded;
mod mediation;
mod parent;
mod registry;
mod slice;
mod trap_map;
mod whole;

#[cfg(test)]
mod tests;

pub use assigned::Assigned;
pub use error::MdevError;
pub use forwarded::{Forwarded, ForwardedLog};
pub use mediation::Mediation;
pub use parent::{Parent, QueueUse, Shape};
pub use registry::Registry;
pub use slice::{Slice, SliceInfo, SliceType, UnknownSliceType};
pub use trap_map::{
    Access, COMMANDS, CommandRule, Operand, Place, Reaches, TrappedRegister, Treatment, trap_map,
};
pub use whole::Whole;
