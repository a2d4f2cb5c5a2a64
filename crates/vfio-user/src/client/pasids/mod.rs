//! The client's side of the extension ([`crate::wire::pasid`]): a VMM that answers what the device asks, and makes
//! the container's requests.

mod answering;
mod asking;
mod handler;

pub(super) use answering::Answering;
pub use asking::ContainerReply;
pub use handler::{PageAnswer, PasidHandler};
