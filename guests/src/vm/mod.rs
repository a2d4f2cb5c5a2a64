//! One virtual machine: started, listened to, and ended, whatever happens.

mod guest;
mod launch;
mod report;

pub use guest::Guest;
pub use launch::{Console, Direct};
pub use report::Seen;
