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

/// MAP_DMA: functions may read.
pub const MAP_READ: u32 = 1;
/// MAP_DMA: functions may write, too.
pub const MAP_WRITE: u32 = 2;

layout! {
    /// MAP_DMA. The file comes beside it.
    MapDma, 32, {
        /// The size.
        argsz: U32 = 0,
        /// [`MAP_READ`], or both.
        flags: U32 = 4,
        /// Where the memory starts in the file: a multiple of 4 KiB.
        vaddr: U64 = 8,
        /// The guest physical address where it starts: a multiple of 4 KiB.
        iova: U64 = 16,
        /// Its length in bytes: a multiple of 4 KiB.
        size: U64 = 24,
    }
}

/// UNMAP_DMA: all memory; address and length are zero.
pub const UNMAP_ALL: u32 = 2;

layout! {
    /// UNMAP_DMA.
    UnmapDma, 24, {
        /// The size.
        argsz: U32 = 0,
        /// [`UNMAP_ALL`] or nothing.
        flags: U32 = 4,
        /// Where the memory starts.
        iova: U64 = 8,
        /// Its length in bytes; written back: how much was unmapped.
        size: U64 = 16,
    }
}

/// FUNCTION_LIST: the function is attached.
pub const FUNCTION_ATTACHED: u32 = 1;
/// FUNCTION_LIST: the client attaches and detaches it.
pub const FUNCTION_OFFERED: u32 = 2;

layout! {
    /// FUNCTION_LIST. Room for entries comes behind it.
    FunctionList, 12, {
        /// The size, with the room for entries.
        argsz: U32 = 0,
        /// Zero.
        flags: U32 = 4,
        /// Written back: how many functions there are, of which as many follow as there is room for.
        count: U32 = 8,
    }
}

layout! {
    /// An entry of a FUNCTION_LIST.
    FunctionEntry, 8, {
        /// The function's place in the guest: bus in bits 15:8, device in 7:3, function in 2:0.
        place: U32 = 0,
        /// [`FUNCTION_ATTACHED`] and the one after it.
        state: U32 = 4,
    }
}

layout! {
    /// FUNCTION_ATTACH and FUNCTION_DETACH.
    FunctionPlace, 12, {
        /// The size.
        argsz: U32 = 0,
        /// Zero.
        flags: U32 = 4,
        /// The function's place in the guest, as in a [`FunctionEntry`].
        place: U32 = 8,
    }
}

layout! {
    /// FAULT_RING. The eventfd to be woken by comes beside it, and the region goes back beside the answer.
    FaultRing, 16, {
        /// The size.
        argsz: U32 = 0,
        /// Zero.
        flags: U32 = 4,
        /// Written back: the length of the region in bytes.
        region_bytes: U64 = 8,
    }
}

layout! {
    /// What the region of a ring begins with.
    RingHead, 24, {
        /// How many entries were put in. The server writes it.
        head: U32 = 0,
        /// How many entries were taken out. The client writes it.
        tail: U32 = 4,
        /// How many entries there are room for.
        entries: U32 = 8,
        /// The size of an entry in bytes.
        entry_bytes: U32 = 12,
        /// How many faults found no room.
        lost: U64 = 16,
    }
}

/// Where the first entry stands in the region of a ring.
pub const RING_ENTRIES: u64 = 4096;
/// An entry that is a [`FaultEntry`].
pub const ENTRY_FAULT: u32 = 1;
/// An entry that is a [`PageRequestEntry`].
pub const ENTRY_PAGE_REQUEST: u32 = 2;
/// A fault: the PASID is valid.
pub const FAULT_HAS_PASID: u32 = 1;
/// A fault: the address is valid.
pub const FAULT_HAS_ADDRESS: u32 = 2;
/// A fault: the fetch address is valid.
pub const FAULT_HAS_FETCH_ADDRESS: u32 = 4;
/// Permissions: read.
pub const PERMISSION_READ: u32 = 1;
/// Permissions: write.
pub const PERMISSION_WRITE: u32 = 2;
/// Permissions: execute.
pub const PERMISSION_EXECUTE: u32 = 4;
/// Permissions: privileged.
pub const PERMISSION_PRIVILEGED: u32 = 8;

layout! {
    /// An entry of a ring: a request of a function was refused.
    FaultEntry, 64, {
        /// [`ENTRY_FAULT`].
        kind: U32 = 0,
        /// The function's place in the guest.
        place: U16 = 4,
        /// The reason as VT-d numbers it (VT-d §7.1.3).
        code: u8 = 6,
        /// 1 where the function asked for a translation.
        ats: u8 = 7,
        /// The reason: 0 unknown, 1 PASID fetch, 2 bad PASID entry, 3 PASID invalid, 4 walk abort, 5 page table entry fetch, 6 permission, 7 access, 8 out of range.
        reason: U32 = 8,
        /// `FAULT_HAS_PASID` and those after it.
        flags: U32 = 12,
        /// The guest's PASID.
        pasid: U32 = 16,
        /// What was wanted: `PERMISSION_READ` and those after it.
        permissions: U32 = 20,
        /// The address of the request.
        address: U64 = 24,
        /// The address of the table entry at fault; not given.
        fetch_address: U64 = 32,
        /// Zero.
        padding: [u8; 24] = 40,
    }
}

/// A page request: the PASID is valid.
pub const REQUEST_HAS_PASID: u32 = 1;
/// A page request: it is the last of its group, which may be answered now.
pub const REQUEST_IS_LAST: u32 = 2;
/// A page request: the private data is valid.
pub const REQUEST_HAS_PRIVATE: u32 = 4;
/// A page request: the answer names the PASID.
pub const RESPONSE_NEEDS_PASID: u32 = 8;

layout! {
    /// An entry of a ring: a function waits for a page.
    PageRequestEntry, 64, {
        /// [`ENTRY_PAGE_REQUEST`].
        kind: U32 = 0,
        /// The function's place in the guest.
        place: U16 = 4,
        /// Zero.
        padding: U16 = 6,
        /// `REQUEST_HAS_PASID` and those after it.
        flags: U32 = 8,
        /// The guest's PASID.
        pasid: U32 = 12,
        /// The group, below 512.
        group: U32 = 16,
        /// What is wanted: `PERMISSION_READ` and those after it.
        permissions: U32 = 20,
        /// The address of the page.
        address: U64 = 24,
        /// Not given.
        private: [U64; 2] = 32,
        /// Zero.
        padding_2: [u8; 16] = 48,
    }
}

/// The version of a page response.
pub const RESPONSE_VERSION: u32 = 1;
/// A page response: the PASID is valid.
pub const RESPONSE_HAS_PASID: u32 = 1;
/// A page response: the pages are there, try again.
pub const RESPONSE_SUCCESS: u32 = 0;
/// A page response: the pages will not come, give up.
pub const RESPONSE_INVALID: u32 = 1;
/// A page response: something failed, ask for no more.
pub const RESPONSE_FAILURE: u32 = 2;

layout! {
    /// PAGE_RESPONSE.
    PageResponse, 32, {
        /// The size.
        argsz: U32 = 0,
        /// Zero.
        flags: U32 = 4,
        /// The function's place in the guest.
        place: U32 = 8,
        /// [`RESPONSE_VERSION`].
        version: U32 = 12,
        /// [`RESPONSE_HAS_PASID`] or nothing.
        response_flags: U32 = 16,
        /// The guest's PASID.
        pasid: U32 = 20,
        /// The group.
        group: U32 = 24,
        /// [`RESPONSE_SUCCESS`] and those after it.
        code: U32 = 28,
    }
}
