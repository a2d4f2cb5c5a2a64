//! One entry of a fault ring.
//!
//! | bytes | fault | page request |
//! |---|---|---|
//! | 0 | u32 kind: 1 | u32 kind: 2 |
//! | 4 | u16 the function's place in the guest, u8 the architectural code (VT-d §7.1.3), u8 1 if the function asked for a translation | u16 place |
//! | 8 | u32 reason, u32 flags, u32 PASID, u32 permissions | u32 flags, u32 PASID, u32 group, u32 permissions |
//! | 24 | u64 address, u64 fetch address (not given) | u64 address |
//!
//! From byte 8 on this is the data that was proposed for a fault report; what is not named is zero.

use palisade_iommu::{Ats, Fault, FaultReason, GroupIndex, PageRequest, PlaceInGroup};
use palisade_units::{Access, Bdf, GuestPasid, Iova};

use crate::abi::layout::{
    ENTRY_FAULT, ENTRY_PAGE_REQUEST, FAULT_HAS_ADDRESS, FAULT_HAS_PASID, REQUEST_HAS_PASID,
    REQUEST_IS_LAST, RESPONSE_NEEDS_PASID,
};

/// How many 64-bit words an entry has.
pub(crate) const WORDS: usize = 8;

/// What a fault ring tells a VMM, in its guest's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultRecord {
    /// A request was refused.
    Fault(Fault),
    /// A device waits for a page; answered by [`Container::respond`](crate::Container::respond).
    PageRequest(PageRequest),
}

impl FaultRecord {
    pub(crate) fn to_words(self) -> [u64; WORDS] {
        match self {
            Self::Fault(fault) => {
                let has_pasid = fault.pasid.map_or(0, |_| FAULT_HAS_PASID);
                let place = u32::from(fault.bdf.requester_id());
                let code = u32::from(fault.reason.code());
                let ats = u32::from(fault.ats == Ats::On);
                [
                    pair(ENTRY_FAULT, place | code << 16 | ats << 24),
                    pair(class(fault.reason), has_pasid | FAULT_HAS_ADDRESS),
                    pair(number(fault.pasid), permissions(fault.access)),
                    fault.at.get(),
                    0,
                    0,
                    0,
                    0,
                ]
            }
            Self::PageRequest(request) => {
                let has_pasid = REQUEST_HAS_PASID | RESPONSE_NEEDS_PASID;
                let has_pasid = request.pasid.map_or(0, |_| has_pasid);
                let is_last = match request.last_in_group {
                    PlaceInGroup::Last => REQUEST_IS_LAST,
                    PlaceInGroup::MoreFollow => 0,
                };
                let group = u32::from(request.group.get());
                [
                    pair(ENTRY_PAGE_REQUEST, request.bdf.requester_id().into()),
                    pair(has_pasid | is_last, number(request.pasid)),
                    pair(group, permissions(request.access)),
                    request.at.get(),
                    0,
                    0,
                    0,
                    0,
                ]
            }
        }
    }

    /// Reads an entry of a ring; `None` for what no ring wrote.
    #[must_use]
    pub fn from_bytes(entry: &[u8; WORDS * 8]) -> Option<Self> {
        let (words, _) = entry.as_chunks();
        let mut read = [0; WORDS];
        for (word, bytes) in read.iter_mut().zip(words) {
            *word = u64::from_le_bytes(*bytes);
        }
        Self::from_words(read)
    }

    /// `None` for what no ring wrote.
    pub(crate) fn from_words(words: [u64; WORDS]) -> Option<Self> {
        let [first, second, third, at, ..] = words;
        let (kind, place) = halves(first);
        let [low, high, code, ats] = place.to_le_bytes();
        let bdf = Bdf::from_requester_id(u16::from_le_bytes([low, high]));
        let at = Iova::new(at);
        match kind {
            ENTRY_FAULT => {
                let ((_, flags), (pasid, permissions)) = (halves(second), halves(third));
                Some(Self::Fault(Fault {
                    bdf,
                    pasid: name(flags & FAULT_HAS_PASID, pasid)?,
                    at,
                    access: access(permissions)?,
                    reason: FaultReason::from_code(code)?,
                    ats: match ats {
                        0 => Ats::Off,
                        1 => Ats::On,
                        _ => return None,
                    },
                }))
            }
            ENTRY_PAGE_REQUEST => {
                let ((flags, pasid), (group, permissions)) = (halves(second), halves(third));
                let is_last = flags & REQUEST_IS_LAST != 0;
                Some(Self::PageRequest(PageRequest {
                    bdf,
                    pasid: name(flags & REQUEST_HAS_PASID, pasid)?,
                    at,
                    access: access(permissions)?,
                    group: GroupIndex::new(u16::try_from(group).ok()?),
                    last_in_group: if is_last {
                        PlaceInGroup::Last
                    } else {
                        PlaceInGroup::MoreFollow
                    },
                }))
            }
            _ => None,
        }
    }
}

/// The reason as the proposal sorts them; the architectural code says more.
fn class(reason: FaultReason) -> u32 {
    const UNKNOWN: u32 = 0;
    const PASID_FETCH: u32 = 1;
    const BAD_PASID_ENTRY: u32 = 2;
    const PASID_INVALID: u32 = 3;
    const WALK_ABORT: u32 = 4;
    const PTE_FETCH: u32 = 5;
    const PERMISSION: u32 = 6;
    const OUT_OF_RANGE: u32 = 8;
    use FaultReason as R;
    match reason {
        R::PasidDirectoryAccess | R::PasidEntryAccess => PASID_FETCH,
        R::PasidDirectoryNotPresent
        | R::PasidDirectoryReserved
        | R::PasidEntryNotPresent
        | R::PasidEntryReserved
        | R::PasidEntryInvalid => BAD_PASID_ENTRY,
        R::PasidDisabled | R::PasidTooLarge | R::RidPasidInvalid => PASID_INVALID,
        R::FirstStageAccess
        | R::FirstStageRootAccess
        | R::SecondStageAccess
        | R::SecondStageRootAccess
        | R::FirstStageMarkFailed
        | R::SecondStageMarkFailed => WALK_ABORT,
        R::FirstStageNotPresent
        | R::SecondStageNotPresent
        | R::FirstStageBeyondWidth
        | R::FirstStageRootUnreadable
        | R::FirstStageUnreadable
        | R::FirstStageUnwritable => PTE_FETCH,
        R::ExecuteRequestDisabled
        | R::SupervisorRequestDisabled
        | R::SupervisorPage
        | R::NotExecutable
        | R::NotWritable
        | R::NotReadable => PERMISSION,
        R::NotCanonical | R::BeyondHostWidth | R::BeyondSecondStageWidth | R::InterruptRange => {
            OUT_OF_RANGE
        }
        _ => UNKNOWN,
    }
}

/// Read 1, write 2, execute 4, privileged 8, as the proposal has them.
fn permissions(access: Access) -> u32 {
    access.bits().into()
}

fn access(permissions: u32) -> Option<Access> {
    Access::from_bits(u8::try_from(permissions).ok()?)
}

fn number(pasid: Option<GuestPasid>) -> u32 {
    pasid.map_or(0, GuestPasid::get)
}

fn name(has_pasid: u32, number: u32) -> Option<Option<GuestPasid>> {
    if has_pasid == 0 {
        return Some(None);
    }
    GuestPasid::new(number).ok().map(Some)
}

/// Two 32-bit fields, the first at the lower address.
fn pair(first: u32, second: u32) -> u64 {
    u64::from(first) | u64::from(second) << 32
}

fn halves(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
    (
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    )
}
