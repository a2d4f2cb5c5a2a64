//! The accelerator as a user of it sees it: descriptors, completion records, a work queue's portal.
//!
//! The numbers are those of the Data Streaming Accelerator's architecture specification, revision 1.3,
//! and of the kernel's user interface header for it.

mod completion;
mod descriptor;
mod queue;
pub mod registers;

pub use completion::{CompletionRecord, Outcome, Request, Side};
pub use descriptor::{Copy, Descriptor, OnFault};
pub use queue::{Finished, TimedOut, WorkQueue};
