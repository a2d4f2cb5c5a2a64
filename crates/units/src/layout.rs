/// A field of a structure of bytes, to be told of in documents.
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

/// Makes a structure of bytes as somebody else's interface has it: its size and its fields' places are checked
/// when it is compiled, and its fields can be told of in documents ([`Field`]).
///
/// The room that uses it depends on `zerocopy`, of whose types of unaligned numbers the fields are.
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
            pub const BYTES: usize = $size;
            /// The size as `argsz` says it.
            pub const ARGSZ: u32 = $size;
            /// Its fields.
            pub const FIELDS: &[$crate::Field] = &[$($crate::Field {
                at: $at,
                len_bytes: size_of::<$type>(),
                name: stringify!($field),
                says: concat!($($says),*),
            }),*];
        }
    };
}
