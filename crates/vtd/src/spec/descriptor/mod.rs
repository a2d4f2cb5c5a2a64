//! Invalidation descriptors: what software asks of the caches, and how it answers page requests
//! (VT-d §6.5.2, §7.6.1).

mod encoding;
mod range;

use palisade_units::{Bdf, Gpa, GuestPasid, Iova};

use super::{DomainId, page_request::GroupIndex};

pub use encoding::InvDescriptor;
pub(in crate::spec) use range::address_mask;
pub use range::{FunctionMask, LeafHint, PageRange};

/// What of the context cache is invalidated (VT-d §6.5.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextScope {
    /// Everything.
    Global,
    /// Entries of a domain; everything in scalable mode.
    Domain(DomainId),
    /// Entries of one function, or of a few.
    Device {
        /// The function.
        source: Bdf,
        /// Which bits of its number do not count.
        mask: FunctionMask,
        /// Its domain; ignored in scalable mode.
        domain: DomainId,
    },
}

/// What of the PASID cache is invalidated (VT-d §6.5.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasidCacheScope {
    /// Everything.
    Global,
    /// Entries of a domain.
    Domain(DomainId),
    /// Entries of a PASID in a domain.
    Pasid(DomainId, GuestPasid),
}

/// What of the IOTLB is invalidated (VT-d §6.5.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IotlbScope {
    /// Everything.
    Global,
    /// What a domain has.
    Domain(DomainId),
    /// Pages of a domain's second stage, and all that its first stages have. A range beyond
    /// [`MAX_ADDRESS_MASK`](super::capability::MAX_ADDRESS_MASK) is a reserved value.
    Pages(DomainId, PageRange, LeafHint),
}

/// What of a PASID's translations is invalidated (VT-d §6.5.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasidIotlbScope {
    /// All of them.
    All,
    /// Pages of its first stage. CAP.MAMV does not bound the range: Linux invalidates what a process gave
    /// back in one descriptor, whatever its size.
    Pages(PageRange, LeafHint),
}

bitflags::bitflags! {
    /// What a wait descriptor does besides waiting (VT-d §6.5.2.9).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct WaitFlags: u8 {
        /// IF: raise the invalidation completion event.
        const INTERRUPT = 1 << 4;
        /// SW: write the status.
        const STATUS_WRITE = 1 << 5;
        /// FN: what follows waits for it too.
        const FENCE = 1 << 6;
        /// PD: page requests that were received are in their queue by then.
        const PAGE_REQUEST_DRAIN = 1 << 7;
    }
}

/// inv_wait_dsc (VT-d §6.5.2.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// What it does.
    pub flags: WaitFlags,
    /// Where the status goes with [`WaitFlags::STATUS_WRITE`]; 4-byte aligned.
    pub status_address: Gpa,
    /// What is written there.
    pub status_data: u32,
}

/// RC: how software answers a page group (VT-d §7.6.1, Table 32).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseCode {
    /// 0: the pages are there.
    Success,
    /// 1: they will not come.
    InvalidRequest,
    /// Fh: something failed.
    Failure,
    /// A reserved code, which a device takes for a failure (PCIe 10.4.2.1).
    Reserved(u8),
}

impl ResponseCode {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Success,
            1 => Self::InvalidRequest,
            0xf => Self::Failure,
            other => Self::Reserved(other),
        }
    }

    const fn into_bits(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::InvalidRequest => 1,
            Self::Failure => 0xf,
            Self::Reserved(other) => other & 0xf,
        }
    }
}

/// page_grp_resp_dsc (VT-d §7.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageGroupResponse {
    /// RID: the function that asked.
    pub requester: Bdf,
    /// PASID, if the request had one.
    pub pasid: Option<GuestPasid>,
    /// PRGI.
    pub group: GroupIndex,
    /// RC.
    pub code: ResponseCode,
}

/// page_strm_resp_dsc: how software answers one request of a stream. Revisions before 3.0 have it, and later
/// ones leave its type unused. The private data that it repeats is zero, as this unit sends none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageStreamResponse {
    /// BUS and DEVFN: the function that asked.
    pub requester: Bdf,
    /// The PASID, which every such request has.
    pub pasid: GuestPasid,
    /// PRG index.
    pub group: GroupIndex,
    /// The page that was asked for.
    pub at: Iova,
    /// RC.
    pub code: ResponseCode,
}

/// A descriptor, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// Type 1 (VT-d §6.5.2.1).
    ContextCache(ContextScope),
    /// Type 2 (VT-d §6.5.2.3).
    Iotlb(IotlbScope),
    /// Type 3: translations of requests without a PASID in a device's TLB (VT-d §6.5.2.5).
    DeviceTlb(Bdf, PageRange),
    /// Type 4: interrupt remapping entries, of which this unit has none (VT-d §6.5.2.8).
    InterruptEntryCache,
    /// Type 5 (VT-d §6.5.2.9).
    Wait(Wait),
    /// Type 6 (VT-d §6.5.2.4).
    PasidIotlb(DomainId, GuestPasid, PasidIotlbScope),
    /// Type 7 (VT-d §6.5.2.2).
    PasidCache(PasidCacheScope),
    /// Type 8: translations of one PASID, or with `None` of all, in a device's TLB (VT-d §6.5.2.6).
    PasidDeviceTlb(Bdf, Option<GuestPasid>, PageRange),
    /// Type 9 (VT-d §7.6.1).
    PageGroupResponse(PageGroupResponse),
    /// Type 10, of older revisions.
    PageStreamResponse(PageStreamResponse),
}

impl Invalidation {
    /// Whether the type is one that legacy mode has too (VT-d §6.5.2.11, Table 26).
    #[must_use]
    pub const fn is_of_legacy_mode(self) -> bool {
        matches!(
            self,
            Self::ContextCache(_)
                | Self::Iotlb(_)
                | Self::DeviceTlb(..)
                | Self::InterruptEntryCache
                | Self::Wait(_)
        )
    }
}

#[cfg(test)]
mod tests;
