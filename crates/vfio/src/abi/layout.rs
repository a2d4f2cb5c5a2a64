//! What the arguments look like, field by field. Sizes and offsets are those of the proposals and of
//! `linux/iommu.h` as it stood in Linux 5.8, checked here at compile time.

use zerocopy::little_endian::{U16, U32, U64};

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

/// PASID_REQUEST: take one.
pub const PASID_ALLOCATE: u32 = 1;
/// PASID_REQUEST: free.
pub const PASID_FREE: u32 = 2;

layout! {
    /// PASID_REQUEST of version 1, to take one.
    PasidAllocateV1, 20, {
        /// The size.
        argsz: U32 = 0,
        /// [`PASID_ALLOCATE`].
        flags: U32 = 4,
        /// The lowest number that is wanted.
        min: U32 = 8,
        /// The highest.
        max: U32 = 12,
        /// Written back: the number.
        result: U32 = 16,
    }
}

layout! {
    /// PASID_REQUEST of version 1, to free one.
    PasidFreeV1, 12, {
        /// The size.
        argsz: U32 = 0,
        /// [`PASID_FREE`].
        flags: U32 = 4,
        /// The number.
        free_pasid: U32 = 8,
    }
}

layout! {
    /// PASID_REQUEST of version 7. What is taken is the value of the call; what is freed is the range.
    PasidRequestV7, 16, {
        /// The size.
        argsz: U32 = 0,
        /// [`PASID_ALLOCATE`] or [`PASID_FREE`].
        flags: U32 = 4,
        /// The lowest number.
        min: U32 = 8,
        /// The highest.
        max: U32 = 12,
    }
}

/// BIND of version 1: bind.
pub const BIND: u32 = 1;
/// BIND of version 1: unbind.
pub const UNBIND: u32 = 2;

/// NESTING_OP of version 7, in the low 16 bits of the flags: bind.
pub const OP_BIND: u32 = 0;
/// NESTING_OP: unbind.
pub const OP_UNBIND: u32 = 1;
/// NESTING_OP: invalidate.
pub const OP_INVALIDATE: u32 = 2;

/// The version of the bind data.
pub const BIND_VERSION: u32 = 1;
/// VT-d, as a format of page tables.
pub const FORMAT_VTD: u32 = 1;
/// Bind data: `gpasid` is valid.
pub const GUEST_PASID_VALID: u64 = 1;

/// The VT-d part of the bind data: privileged requests are allowed (SRE).
pub const VTD_SRE: u64 = 1 << 0;
/// The extended accessed flag is set (EAFE).
pub const VTD_EAFE: u64 = 1 << 1;
/// Caching of the page table is disabled (PCD).
pub const VTD_PCD: u64 = 1 << 2;
/// Writes to the page table go through (PWT).
pub const VTD_PWT: u64 = 1 << 3;
/// Memory types are extended (EMTE).
pub const VTD_EMTE: u64 = 1 << 4;
/// Caches are disabled (CD).
pub const VTD_CD: u64 = 1 << 5;

layout! {
    /// What is bound, after the head of BIND or NESTING_OP.
    BindData, 72, {
        /// [`BIND_VERSION`].
        version: U32 = 0,
        /// [`FORMAT_VTD`].
        format: U32 = 4,
        /// [`GUEST_PASID_VALID`] or nothing.
        flags: U64 = 8,
        /// The guest physical address of the top table.
        gpgd: U64 = 16,
        /// The PASID that PASID_REQUEST gave.
        hpasid: U64 = 24,
        /// What the guest calls it.
        gpasid: U64 = 32,
        /// How many bits of an address are translated: 48 or 57.
        addr_width: U32 = 40,
        /// Zero.
        padding: [u8; 12] = 44,
        /// `VTD_SRE` and those after it.
        vtd_flags: U64 = 56,
        /// Memory types, where EMTE is set.
        vtd_pat: U32 = 64,
        /// A memory type, where EMTE is set.
        vtd_emt: U32 = 68,
    }
}

/// The version of the invalidation data, in version 1.
pub const INVALIDATE_VERSION: u32 = 1;
/// Invalidates translations.
pub const CACHE_IOTLB: u8 = 1;
/// Invalidates translations that devices keep.
pub const CACHE_DEVICE_IOTLB: u8 = 2;
/// Invalidates entries of PASIDs.
pub const CACHE_PASID: u8 = 4;
/// All of a container.
pub const GRANULARITY_DOMAIN: u8 = 0;
/// One PASID.
pub const GRANULARITY_PASID: u8 = 1;
/// A range of addresses.
pub const GRANULARITY_ADDRESS: u8 = 2;

layout! {
    /// What is to be forgotten, after the head of CACHE_INVALIDATE or NESTING_OP; then comes the form that
    /// the granularity says.
    InvalidateData, 8, {
        /// Version 1: [`INVALIDATE_VERSION`]. Version 7: the size of this and what follows, in bytes.
        version_or_argsz: U32 = 0,
        /// `CACHE_IOTLB` and those after it.
        cache: u8 = 4,
        /// `GRANULARITY_DOMAIN` and those after it.
        granularity: u8 = 5,
        /// Zero.
        padding: [u8; 2] = 6,
    }
}

/// Both forms: `pasid` is valid.
pub const INVALIDATE_HAS_PASID: u32 = 1;
/// Both forms: `archid` is valid.
pub const INVALIDATE_HAS_ARCHID: u32 = 2;
/// The address form: nothing but leaves has changed.
pub const INVALIDATE_LEAF: u32 = 4;

layout! {
    /// The form of one PASID.
    InvalidatePasid, 16, {
        /// `INVALIDATE_HAS_PASID` and the one after it.
        flags: U32 = 0,
        /// The id of a domain.
        archid: U32 = 4,
        /// The PASID.
        pasid: U64 = 8,
    }
}

layout! {
    /// The form of a range of addresses.
    InvalidateAddress, 40, {
        /// `INVALIDATE_HAS_PASID` and those after it.
        flags: U32 = 0,
        /// The id of a domain.
        archid: U32 = 4,
        /// The PASID; without one, requests without a PASID are meant.
        pasid: U64 = 8,
        /// Where the range starts: a multiple of `granule_size`.
        addr: U64 = 16,
        /// A power of two, 4 KiB at least.
        granule_size: U64 = 24,
        /// How many of them, one at least.
        nb_granules: U64 = 32,
    }
}

/// GET_INFO: `iova_pgsizes` is valid.
pub const INFO_PAGE_SIZES: u32 = 1;
/// GET_INFO: there are capabilities.
pub const INFO_CAPABILITIES: u32 = 2;

layout! {
    /// GET_INFO.
    Info, 24, {
        /// The size; written back: the size with all capabilities.
        argsz: U32 = 0,
        /// Written back: `INFO_PAGE_SIZES` and the one after it.
        flags: U32 = 4,
        /// Written back: the sizes of pages that memory may be mapped in, or'ed together.
        iova_pgsizes: U64 = 8,
        /// Written back: where the first capability stands, or 0 where the argument has no room for them.
        cap_offset: U32 = 16,
        /// Zero.
        padding: U32 = 20,
    }
}

/// The capability of version 1.
pub const CAPABILITY_V1: u16 = 2;
/// The capability of version 7.
pub const CAPABILITY_V7: u16 = 3;
/// The version of either.
pub const CAPABILITY_VERSION: u16 = 1;
/// Version 1, nesting capabilities: PASIDs may be asked for.
pub const V1_PASID_REQUESTS: u32 = 1;
/// Version 1, formats of first stages: VT-d.
pub const V1_STAGE1_VTD: u32 = 1;

layout! {
    /// The capability of version 1.
    NestingCapabilityV1, 16, {
        /// [`CAPABILITY_V1`].
        id: U16 = 0,
        /// [`CAPABILITY_VERSION`].
        version: U16 = 2,
        /// Where the next one stands; 0 after the last.
        next: U32 = 4,
        /// [`V1_PASID_REQUESTS`] or nothing.
        nesting_capabilities: U32 = 8,
        /// [`V1_STAGE1_VTD`] or nothing.
        stage1_formats: U32 = 12,
    }
}

/// Version 7, features: PASIDs are of the whole system and have to be asked for.
pub const FEATURE_SYSTEM_WIDE_PASID: u32 = 1;
/// Version 7, features: page tables may be bound.
pub const FEATURE_BIND: u32 = 2;
/// Version 7, features: caches may be invalidated.
pub const FEATURE_INVALIDATE: u32 = 4;

layout! {
    /// The capability of version 7.
    NestingCapabilityV7, 56, {
        /// [`CAPABILITY_V7`].
        id: U16 = 0,
        /// [`CAPABILITY_VERSION`].
        version: U16 = 2,
        /// Where the next one stands; 0 after the last.
        next: U32 = 4,
        /// The size from this field on: 48.
        size: U32 = 8,
        /// [`FORMAT_VTD`]; 0 where the units differ.
        format: U32 = 12,
        /// `FEATURE_SYSTEM_WIDE_PASID` and those after it.
        features: U32 = 16,
        /// Zero.
        flags: U32 = 20,
        /// How many bits of an address a first stage translates.
        addr_width: U16 = 24,
        /// How many bits a PASID has.
        pasid_bits: U16 = 26,
        /// Zero.
        padding: U32 = 28,
        /// Zero.
        vtd_flags: U32 = 32,
        /// Zero.
        vtd_padding: U32 = 36,
        /// CAP_REG (VT-d §11.4.2).
        vtd_cap: U64 = 40,
        /// ECAP_REG (VT-d §11.4.3).
        vtd_ecap: U64 = 48,
    }
}
