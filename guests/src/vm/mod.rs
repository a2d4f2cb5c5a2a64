//! One virtual machine: started, listened to, and ended, whatever happens.

mod guest;
mod launch;
mod report;

pub use guest::Guest;
pub use launch::{Console, Direct};
pub(crate) use launch::{image_for, kernel_arguments};
pub use report::Seen;
