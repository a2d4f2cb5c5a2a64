//! The VT-d unit that a guest sees.
//!
//! [`spec`] is the specification as data; a driver uses it too. [`dmar`] is how firmware tells a
//! guest where the unit stands.

pub mod dmar;
pub mod spec;
