//! The server's side of the extension ([`crate::wire::pasid`]): what a device asks of the VMM, and what the VMM
//! asks of the device.

mod asked;
mod asking;
mod late;
mod offer;
mod serving;

pub(super) use asked::{Asked, NotAnAnswer};
pub use asking::{AskError, Pending, Translated};
pub(super) use late::LateCounts;
pub use late::{InvalidationDone, RequestReply};
pub use offer::{
    ContainerRequests, PasidOffer, RequestAnswer, RequestNumber, RequestSession, TranslationCache,
};
pub(super) use serving::Extension;
