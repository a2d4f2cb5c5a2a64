/// A field of a message, to be told of in documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Where it starts.
    pub at: usize,
    /// Its size in bytes.
    pub len_bytes: usize,
    /// Its name.
    pub name: &'static str,
    /// What stands there, in words.
    pub says: &'static str,
}

/// Makes a structure of bytes whose size and whose fields' places are checked when it is compiled, and whose fields
/// can be told of in documents.
macro_rules! layout {
    ($(#[$doc:meta])* $name:ident, $size:literal, { $($(#[doc = $says:literal])* $field:ident: $type:ty = $at:literal,)* }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, ::zerocopy::FromBytes, ::zerocopy::IntoBytes,
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
            /// The size on the wire.
            pub const BYTES: usize = $size;
            /// Its fields.
            pub const FIELDS: &[$crate::wire::pasid::Field] = &[$($crate::wire::pasid::Field {
                at: $at,
                len_bytes: size_of::<$type>(),
                name: stringify!($field),
                says: concat!($($says),*),
            }),*];
        }
    };
}
pub(super) use layout;
