//! The objects of an iommufd, as Linux 6.15 has them: spaces of addresses (IOAS), tables (HWPT) of spaces and nested
//! ones, devices that are attached to them with or without a PASID, queues of page requests, virtual units and devices
//! with queues of their events.
//!
//! An [`Iommufd`] is one connection of a [`Vmm`](crate::abi::Vmm). It takes the file that a call is made on, the number of
//! the request and the bytes of its argument, and gives back what changed. Sizes and errors are those of Linux: an argument
//! says its size first; one that is shorter than it may be is EINVAL, one that has something where nothing is known is
//! E2BIG, an unknown flag or value is EOPNOTSUPP, an unknown object ENOENT, one in use EBUSY.
//!
//! What it will not do: there is no memory of a process, so that memory is mapped by files alone; an address is not
//! chosen for a client; and no device logs what it writes.

mod argument;
mod attach;
mod channel;
mod device;
mod error;
mod events;
mod fault_queue;
mod hardware;
mod invalidate;
pub mod layout;
mod objects;
mod queues;
mod request;
mod router;
mod session;
mod space;
mod table;
mod virtual_unit;

pub use channel::{Channel, ChannelPair, Taken};
pub use error::IommufdError;
pub use objects::ObjectId;
pub use request::{Family, IommufdRequest, On};
pub use session::{Iommufd, Queue, Refused};
