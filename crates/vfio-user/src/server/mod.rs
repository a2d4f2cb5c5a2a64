//! The server's side: one [`Connection`] for each accepted socket.

mod connection;
mod dma;
mod features;
mod interrupts;
mod migration;
mod outgoing;
mod receiver;
mod session;
mod signaller;
mod waiting;
mod write_log;

pub use connection::{Connection, ConnectionError, End};
pub use outgoing::{PeerGone, PeerHandle};
