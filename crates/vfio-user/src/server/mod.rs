//! The server's side: one [`Connection`] for each accepted socket.

mod connection;
mod dma;
mod interrupts;
mod outgoing;
mod receiver;
mod session;
mod signaller;
mod waiting;

pub use connection::{Connection, ConnectionError, End};
pub use outgoing::{PeerGone, PeerHandle};
