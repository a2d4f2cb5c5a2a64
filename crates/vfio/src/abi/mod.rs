//! The requests of a VMM as bytes: those that were proposed for VFIO in 2020, in both their forms, those of the
//! `/dev/ioasid` that was proposed beside them, and a few more that a VMM needs that is in another process.
//!
//! A [`Session`] is one connection of a [`Vmm`]. It takes the number of a request, as a call of `ioctl` has
//! it, and the bytes of the argument, and gives back what the call returns and the bytes that it
//! changed. What a request means is [`Container`](crate::Container)'s business; here it is only read, checked for
//! shape, and answered.
//!
//! Who speaks of the objects of an iommufd instead, as today's Linux has them, finds them in [`iommufd`].
//!
//! All numbers are little-endian. An argument that begins with `argsz` is read up to that size and no further,
//! however many bytes came with it; one that says less than the request needs is EINVAL, and one that says more
//! than came is EFAULT where the missing bytes are needed.

mod answer;
mod argument;
mod bind;
mod error;
mod faults;
mod functions;
mod info;
mod invalidate;
mod ioasid;
pub mod iommufd;
pub mod layout;
mod memory;
mod pasid;
mod request;
mod session;
mod unit;
mod vmm;

pub use answer::Answer;
pub use error::AbiError;
pub use faults::Doorbells;
pub use info::{EXTENSIONS, Extension};
pub use request::{Number, Request};
pub use session::Session;
pub use unit::{Nested, StageFormat, Unit};
pub use vmm::{FaultDelivery, Offer, Offers, Vmm};
