//! The server's side.

mod connection;
mod listener;
mod queues;

pub use connection::{ConnectionError, serve};
pub use listener::{Server, Stopper};
