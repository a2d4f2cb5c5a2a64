//! BIND, and the operations of NESTING_OP.

use palisade_units::layout;
use zerocopy::little_endian::{U32, U64};

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
