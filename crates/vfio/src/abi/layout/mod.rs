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

use zerocopy::little_endian::U32;

/// A field of a layout, to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Where it starts.
    pub at: usize,
    /// Its size.
    pub len_bytes: usize,
    /// Its name.
    pub name: &'static str,
    /// What stands there, in words.
    pub says: &'static str,
}

/// Makes a structure of bytes whose size and whose fields' places are checked when it is compiled, and whose
/// fields can be told of in documents.
#[macro_export]
macro_rules! layout {
    ($(#[$doc:meta])* $name:ident, $size:literal, { $($(#[doc = $says:literal])* $field:ident: $type:ty = $at:literal,)* }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, ::zerocopy::FromBytes, ::zerocopy::IntoBytes,
            ::zerocopy::Immutable, ::zerocopy::KnownLayout, ::zerocopy::Unaligned,
        )]
        #[repr(C)]
        pub struct $name {
            $($(#[doc = $says])* pub $field: $type,)*
        }

        const _: () = {
            assert!(size_of::<$name>() == $size);
            $(assert!(::core::mem::offset_of!($name, $field) == $at);)*
        };

        impl $name {
            /// The size in bytes.
            pub const BYTES: u32 = $size;
            /// Its fields.
            pub const FIELDS: &[$crate::abi::layout::Field] = &[$($crate::abi::layout::Field {
                at: $at,
                len_bytes: size_of::<$type>(),
                name: stringify!($field),
                says: concat!($($says),*),
            }),*];
        }
    };
}

layout! {
    /// What nearly every argument begins with.
    Head, 8, {
        /// The size of the argument in bytes, this field included.
        argsz: U32 = 0,
        /// What of the request is wanted.
        flags: U32 = 4,
    }
}
