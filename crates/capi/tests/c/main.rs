//! The library as C sees it: installed, linked both ways, and run against a real server.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod calls;
#[path = "../../../container/tests/common/mod.rs"]
mod common;
mod example;
mod host;
mod installed;
mod page;
