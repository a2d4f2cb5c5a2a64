//! The program as a library: configuration, wiring, launcher and report.
//!
//! This room brings the threads, sockets and clocks that the models below do without. It decides
//! nothing about PASIDs, tables or devices.

pub mod config;
pub mod control;
pub mod demo;
pub mod host;
pub mod state;
pub mod vm;
