//! What the arguments look like, field by field. Sizes and offsets are those of the proposals and of
//! `linux/iommu.h` as it stood in Linux 5.8, checked here at compile time.

mod binding;
mod faults;
mod functions;
mod info;
mod invalidating;
mod ioasid;
mod memory;
mod pasids;

pub use binding::*;
pub use faults::*;
pub use functions::*;
pub use info::*;
pub use invalidating::*;
pub use ioasid::*;
pub use memory::*;
pub use pasids::*;

use palisade_units::layout;
use zerocopy::little_endian::U32;

layout! {
    /// What nearly every argument begins with.
    Head, 8, {
        /// The size of the argument in bytes, this field included.
        argsz: U32 = 0,
        /// What of the request is wanted.
        flags: U32 = 4,
    }
}
