//! A driver written as for bare metal: it brings up the IOMMU unit that a guest sees, binds page tables of its own making
//! to PASIDs, and makes the accelerator copy by their addresses.
//!
//! It is a tenant of the host and knows it only as hardware: registers over vfio-user, tables and queues in
//! memory of its own, interrupts as messages. The demo runs one in a process for each tenant, tests run it beside the host.
//!
//! What it will not do: look inside the host, run a guest's code, or trust that an operation succeeded; each copy is
//! read back and compared, and each wait has an end.

mod accelerator;
mod buffer;
mod copy;
mod error;
mod guest;
mod kernel;
mod link;
mod migration;
mod outstanding;
pub mod page_table;
mod pattern;
mod physical;
mod portal;
mod process;
mod space;
mod sweep;
mod tenant;
mod unit;
mod wait;
mod workload;

pub use accelerator::{Accelerator, OnFault};
pub use buffer::{Buffer, Layout};
pub use copy::{Completion, Copy, MissingPage};
pub use error::DriverError;
pub use guest::{Guest, MAX_MEMORY_BYTES};
pub use kernel::{Kernel, RequestCount};
pub use link::{Event, Link};
pub use outstanding::Outstanding;
pub use pattern::{Difference, Pattern};
pub use physical::{Frame, PhysicalAllocator};
pub use portal::{PortalWriter, Posted};
pub use process::{Content, Presence, Process};
pub use space::AddressSpace;
pub use sweep::{SweepMode, SweepOutcome, SweepPlan};
pub use tenant::{FunctionAddress, Tenant};
pub use unit::{AllocatorKind, FaultReport, Faults, Overflow, UnitDriver};
pub use wait::{LIMIT, Patience};
pub use workload::{WorkloadOutcome, WorkloadPlan};
