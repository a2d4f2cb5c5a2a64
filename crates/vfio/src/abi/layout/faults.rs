//! FAULT_RING with what stands in the region of a ring, and PAGE_RESPONSE.

use palisade_units::layout;
use zerocopy::little_endian::{U16, U32, U64};

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
