//! The descriptors of the page request queue (VT-d §7.4.1.1).

use bitfield_struct::bitfield;
pub use palisade_iommu::{GroupIndex, PlaceInGroup};
use palisade_units::{Access, Bdf, GuestPasid, Iova};

use super::words_to_bytes;

#[bitfield(u64)]
#[derive(PartialEq, Eq)]
struct Low {
    kind: u8,
    pasid_present: bool,
    private_data_present: bool,
    #[bits(6)]
    __: u8,
    requester: u16,
    #[bits(20)]
    pasid: u32,
    execute: bool,
    privileged: bool,
    #[bits(10)]
    __: u16,
}

#[bitfield(u64)]
#[derive(PartialEq, Eq)]
struct High {
    read: bool,
    write: bool,
    last_in_group: bool,
    #[bits(9)]
    group: u16,
    #[bits(52)]
    page: u64,
}

const PAGE_REQUEST: u8 = 1;

/// page_req_dsc: a device asks for a page (VT-d §7.4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequestDescriptor {
    /// RID: the function, which the answer names.
    pub requester: Bdf,
    /// PASID, where PP says that there is one; the answer names it.
    pub pasid: Option<GuestPasid>,
    /// ADDR: the start of the page.
    pub at: Iova,
    /// RDR, WRR, EXR, PMR: what the device wants to do there.
    pub access: Access,
    /// PRGI: the group, which the answer names.
    pub group: GroupIndex,
    /// LPIG.
    pub place: PlaceInGroup,
}

impl PageRequestDescriptor {
    /// The size in bytes.
    pub const BYTES: u64 = 32;

    /// From the words as they stand in memory; `None` if they are of another type.
    #[must_use]
    pub fn from_words(words: [u64; 4]) -> Option<Self> {
        let low = Low::from_bits(words[0]);
        let high = High::from_bits(words[1]);
        if low.kind() != PAGE_REQUEST {
            return None;
        }
        let mut access = Access::empty();
        access.set(Access::READ, high.read());
        access.set(Access::WRITE, high.write());
        access.set(Access::EXECUTE, low.execute());
        access.set(Access::PRIVILEGED, low.privileged());
        let pasid = GuestPasid::new(low.pasid()).ok();
        Some(Self {
            requester: Bdf::from_requester_id(low.requester()),
            pasid: pasid.filter(|_| low.pasid_present()),
            at: Iova::new(high.page() << palisade_units::PAGE_SHIFT),
            access,
            group: GroupIndex::new(high.group()),
            place: if high.last_in_group() {
                PlaceInGroup::Last
            } else {
                PlaceInGroup::MoreFollow
            },
        })
    }

    /// The words as they stand in memory.
    #[must_use]
    pub const fn to_words(self) -> [u64; 4] {
        let mut low = Low::new()
            .with_kind(PAGE_REQUEST)
            .with_requester(self.requester.requester_id());
        if let Some(pasid) = self.pasid {
            low = low
                .with_pasid_present(true)
                .with_pasid(pasid.get())
                .with_execute(self.access.contains(Access::EXECUTE))
                .with_privileged(self.access.contains(Access::PRIVILEGED));
        }
        let high = High::new()
            .with_read(self.access.contains(Access::READ))
            .with_write(self.access.contains(Access::WRITE))
            .with_last_in_group(matches!(self.place, PlaceInGroup::Last))
            .with_group(self.group.get())
            .with_page(self.at.get() >> palisade_units::PAGE_SHIFT);
        [low.into_bits(), high.into_bits(), 0, 0]
    }

    /// The bytes as they stand in memory.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        words_to_bytes!(self.to_words(), 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> PageRequestDescriptor {
        PageRequestDescriptor {
            requester: Bdf::new(0, 0x10, 0),
            pasid: Some(GuestPasid::new(0xabcde).unwrap()),
            at: Iova::new(0x7f00_0000_3000),
            access: Access::READ | Access::WRITE,
            group: GroupIndex::new(0x1ff),
            place: PlaceInGroup::Last,
        }
    }

    #[test]
    fn r62_a_request_is_its_bits() {
        let words = request().to_words();
        assert_eq!(words[0], 0xabcde << 32 | 0x80 << 16 | 1 << 8 | 1);
        assert_eq!(words[1], 0x7f00_0000_3000 | 0x1ff << 3 | 0b111);
        assert_eq!(PageRequestDescriptor::from_words(words), Some(request()));
    }

    #[test]
    fn without_a_pasid_the_field_says_nothing() {
        let request = PageRequestDescriptor {
            pasid: None,
            ..request()
        };
        let mut words = request.to_words();
        assert_eq!(words[0] >> 8 & 1, 0);
        words[0] |= 0x77 << 32;
        assert_eq!(
            PageRequestDescriptor::from_words(words).and_then(|r| r.pasid),
            None
        );
    }

    #[test]
    fn another_type_is_no_request() {
        assert_eq!(PageRequestDescriptor::from_words([2, 0, 0, 0]), None);
    }
}
