//! An Intel-DSA-compatible accelerator.

pub mod spec;
