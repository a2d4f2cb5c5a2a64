//! The server's side: one [`Connection`] for each accepted socket.

mod connection;
mod dma;
mod features;
mod interrupts;
mod migration;
mod outgoing;
mod pasids;
mod queue;
mod receiver;
mod session;
mod signaller;
mod waiting;
mod write_log;

pub use connection::{Connection, ConnectionError, End};
pub use outgoing::{PeerGone, PeerHandle};
pub use pasids::{
    AskError, ContainerRequests, InvalidationDone, PasidOffer, Pending, RequestAnswer,
    RequestNumber, RequestReply, RequestSession, Translated, TranslationCache,
};
