//! `palisade serve` as its tenants and its operator meet it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod container;
mod ctl;
mod faults;
mod host;
mod limits;
mod mdev;
mod mdev_kept;
mod mdev_machines;
mod mdev_sharing;
mod migration;
mod owner;
mod python;
mod serve;
mod state;
