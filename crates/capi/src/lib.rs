//! libpalisade: the calls of [`palisade_container::Client`] and [`palisade_container::IommufdClient`] for VMMs that are written in C, or in anything that calls C.
//!
//! `include/palisade.h` is made from this crate by its tests, and every function, structure and constant is described
//! there; `docs/clients.md` shows a VMM's day. `make -C crates/capi install PREFIX=…` installs the header, both forms of
//! the library and a file for pkg-config.
//!
//! The rules that hold for all of it, of errors, ownership and threads, stand at the top of the header. No panic leaves
//! the library, and what C can pass that is not valid, but for pointers that are neither null nor of anything, is
//! refused.
//!
//! There is no unsafe code here: what crosses the boundary is converted by `safer-ffi`, by types that say what a pointer
//! may be, and a caller's descriptor is not taken for granted, but duplicated by the kernel.
//!
//! What this room will not do: it has no calls that the Rust client does not have, and serves nothing.

pub mod client;
pub mod error;
pub mod faults;
mod fd;
pub mod functions;
pub mod ioasid;
pub mod iommufd;
pub mod pasids;
pub mod platform;

#[cfg(test)]
mod header;
