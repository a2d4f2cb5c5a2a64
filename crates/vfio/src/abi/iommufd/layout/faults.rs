//! IOMMU_FAULT_QUEUE_ALLOC, and what goes through the file of a queue.

use palisade_units::layout;
use zerocopy::little_endian::{U32, U64};

layout! {
    /// IOMMU_FAULT_QUEUE_ALLOC. The file comes beside the answer.
    FaultQueueAlloc, 16, {
        /// The size.
        size: U32 = 0,
        /// Zero.
        flags: U32 = 4,
        /// Written back: the id of the queue.
        out_fault_id: U32 = 8,
        /// Written back: 0, the place of the file among the answer's descriptors.
        out_fault_fd: U32 = 12,
    }
}

/// A page request: `pasid` is valid.
pub const PGFAULT_PASID_VALID: u32 = 1;
/// A page request: it is the last of its group, which may be answered now.
pub const PGFAULT_LAST_PAGE: u32 = 2;

layout! {
    /// A page request, as it is read from the file of a queue.
    HwptPgfault, 40, {
        /// `PGFAULT_PASID_VALID` and the one after it.
        flags: U32 = 0,
        /// The id of the device.
        dev_id: U32 = 4,
        /// The PASID.
        pasid: U32 = 8,
        /// The group.
        grpid: U32 = 12,
        /// What is wanted: read 1, write 2, execute 4, privileged 8.
        perm: U32 = 16,
        /// Zero.
        reserved: U32 = 20,
        /// The address of the page.
        addr: U64 = 24,
        /// Zero: how much is wanted is not known.
        length: U32 = 32,
        /// What the answer names.
        cookie: U32 = 36,
    }
}

/// The code of a page response: the pages are there, try again.
pub const PAGE_RESPONSE_SUCCESS: u32 = 0;
/// The code of a page response: the pages will not come, give up.
pub const PAGE_RESPONSE_INVALID: u32 = 1;

layout! {
    /// An answer, as it is written to the file of a queue.
    HwptPageResponse, 8, {
        /// What the request had.
        cookie: U32 = 0,
        /// [`PAGE_RESPONSE_SUCCESS`] or the one after it.
        code: U32 = 4,
    }
}
