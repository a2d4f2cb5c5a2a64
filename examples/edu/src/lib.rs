//! A small device for people who write devices: it computes factorials and copies memory, for a process by its
//! PASID or for the whole machine. docs/device.md builds it step by step.

mod config;
mod device;
mod engine;
pub mod registers;

pub use config::{DEVICE_ID, VENDOR_ID};
pub use device::Edu;
