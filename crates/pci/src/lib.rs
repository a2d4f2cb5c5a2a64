//! A PCI Express function as data: configuration space, capabilities, and the trait that anything
//! served to a VMM implements.
//!
//! [`ConfigSpace`] is built from fields, each with its value, the bits that software may write and the
//! bits that a written one clears. It calls nobody: a function that wants to know whether its driver
//! has turned something on asks after the write ([`ConfigSpace::pasid_enabled`] and the like); only
//! what is an action and no state, a function-level reset, is the result of the write itself.
//!
//! What this room will not do: route interrupts, place BARs, emulate bridges or type 1 headers, or
//! decode I/O space. It knows neither VT-d nor the accelerator.
//!
//! Revision of the specification: PCI Express Base 5.0, cited as PCIe.

mod bar;
mod builder;
pub mod capability;
mod config;
mod field;
mod function;
mod migration;
pub mod saved;

pub use bar::{Bar, BarKind, BarSpec, Prefetch};
pub use builder::{ConfigError, ConfigSpaceBuilder, Identity};
pub use config::{
    CONFIG_SPACE_BYTES, ConfigEffect, ConfigSpace, NotOfThisSpace, PageRequestProblem,
};
pub use field::Field;
pub use function::{AccessError, Function, Interrupt};
pub use migration::{Migration, MigrationError};
