//! Real guests under an unmodified QEMU: what they need, how they are started, what is asked of them.
//!
//! - [`setup`] brings QEMU, firmware, busybox and stock kernels from the distribution under `target/guest`, without
//!   root and without changing the machine, and builds what runs in the guest.
//! - [`image`] packs an initramfs.
//! - [`vm`] starts a virtual machine, reads its report, and ends it.
//! - [`scenario`] holds the tests, each by its name.
//!
//! Guests run by software emulation alone. Nothing here is skipped: what cannot be had or done is a failure
//! that says why. The crate knows palisade by its command line only.

mod apt;
mod command;
mod host;
pub mod image;
mod layout;
pub mod scenario;
pub mod setup;
pub mod vm;

pub use layout::Layout;
