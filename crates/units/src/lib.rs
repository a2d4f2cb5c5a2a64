//! The names of things that every room of palisade speaks of.
//!
//! A PASID that a guest chose and one that the host gave out are different types; so are an address
//! that a device uses and one that a guest calls physical. Nothing here has behaviour beyond range
//! checks and printing, and nothing here knows what a table, a queue or a socket is.
#![no_std]

mod access;
mod address;
mod bdf;
mod layout;
mod pasid;
mod tenant;

pub use access::{Access, PageSize};
pub use address::{Gpa, Iova, PAGE_BYTES, PAGE_SHIFT};
pub use bdf::{Bdf, ParseBdfError};
pub use layout::Field;
pub use pasid::{GuestPasid, HostPasid, PASID_BITS, PASID_COUNT, PasidOutOfRange, PasidTag};
pub use tenant::TenantId;
