//! What runs inside a guest.
//!
//! One static program, started by the image's init script, that brings the accelerator up through
//! the stock driver's sysfs files, does one scenario, and says on a serial port what it saw. The
//! host's side of the scenarios (crate `palisade-guests`) reads those lines by [`protocol`].
//!
//! It is a guest like any other: it knows the accelerator and the kernel's interfaces, and nothing of
//! palisade. It will not poke the host, and what it finds it reports; the host judges.

pub mod accel_config;
pub mod bring_up;
pub mod buffer;
pub mod dsa;
pub mod kernel_log;
pub mod modules;
pub mod parameters;
pub mod protocol;
pub mod report;
pub mod scenario;
pub mod vfio;
