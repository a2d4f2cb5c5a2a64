//! The server's side.

mod connection;
mod listener;

pub use connection::{ConnectionError, serve};
pub use listener::{Server, Stopper};
