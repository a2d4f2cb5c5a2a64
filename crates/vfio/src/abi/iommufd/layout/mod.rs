//! What the arguments look like, field by field. Sizes and offsets are those of `linux/iommufd.h` and
//! `linux/vfio.h` as they stand in Linux 6.15, checked here at compile time.
//!
//! A field that is an address there is an offset here: where in the message, counted from the start of the argument,
//! the data stands that the argument speaks of.

mod devices;
mod faults;
mod hardware;
mod invalidating;
mod spaces;
mod tables;
mod virtual_units;

pub use devices::*;
pub use faults::*;
pub use hardware::*;
pub use invalidating::*;
pub use spaces::*;
pub use tables::*;
pub use virtual_units::*;
