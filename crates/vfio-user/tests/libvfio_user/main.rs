//! The cases by which libvfio-user is tested, asked of this server.
//!
//! libvfio-user's own tests (github.com/nutanix/libvfio-user, `test/py`, at commit efd091bc) are the best list in the
//! field of what a server of the protocol must take and what it must refuse. Each file here has a table of the cases
//! of one or more of theirs, told in our own words, with what this server does, and the tests that show it. The tables together are
//! `docs/vfio-user.md`: `UPDATE_DOCS=1 cargo test -p palisade-vfio-user --test libvfio_user` writes the page anew.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of tests fail like tests"
)]

#[path = "../common/mod.rs"]
mod common;

mod case;
mod config;
mod dirty;
mod dma;
mod elsewhere;
mod errors;
mod info;
mod interrupts;
mod memory;
mod migration;
mod negotiate;
mod page;
mod peer;
mod quiet;
mod regions;
