use palisade_units::{Access, GuestPasid, Iova, PAGE_BYTES, layout};
use rustix::io::Errno;
use zerocopy::{
    FromBytes, IntoBytes,
    native_endian::{U32, U64},
};

use super::{Tag, tag::pasid_from_raw};

/// How many pages one group may ask for.
pub const MAX_GROUP_PAGES: usize = 64;
/// How many groups there are: an index has nine bits (PCIe 10.4.1).
pub const MAX_PAGE_GROUPS: u16 = 512;

layout! {
    /// PASID_PAGE_REQUEST, before the pages: a whole group, its last page marked by its being the last.
    PageGroup, 16, {
        /// The PASID, or 0 where the group has none.
        pasid: U32 = 0,
        /// Bit 31 says that there is a PASID; the others are zero.
        flags: U32 = 4,
        /// The index of the group, below 512, of which no other waits for its answer.
        group: U32 = 8,
        /// How many pages follow: 1 to `MAX_GROUP_PAGES`.
        count: U32 = 12,
    }
}

layout! {
    /// A page that is asked for.
    PageEntry, 16, {
        /// Its address, a multiple of 4 KiB.
        address: U64 = 0,
        /// What it is wanted for, in bits 3:0 as a `Tag` has it.
        access: U32 = 8,
        /// Zero.
        reserved: U32 = 12,
    }
}

layout! {
    /// The answer to PASID_PAGE_REQUEST.
    PageGroupAnswer, 8, {
        /// The index of the group.
        group: U32 = 0,
        /// What came of it, as PCIe numbers it: 0 success, 1 invalid request, 15 response failure.
        code: U32 = 4,
    }
}

/// What came of a page request group (PCIe 10.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum PageResponse {
    /// The pages are there as far as they can be: try again.
    Success = 0,
    /// A page cannot be had, or not for this: give up.
    InvalidRequest = 1,
    /// Something failed: ask for no more pages until the device is reset.
    ResponseFailure = 15,
}

impl PageResponse {
    /// The response with this number.
    #[must_use]
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            0 => Some(Self::Success),
            1 => Some(Self::InvalidRequest),
            15 => Some(Self::ResponseFailure),
            _ => None,
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self as u32
    }
}

/// A page that a device asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedPage {
    /// Its address.
    pub at: Iova,
    /// What it is wanted for.
    pub access: Access,
}

/// A group of pages that a device asks for together, to be answered once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// The PASID in whose space they lie; `None` for pages of requests without one.
    pub pasid: Option<GuestPasid>,
    /// The index of the group.
    pub group: u16,
    /// The pages.
    pub pages: Vec<WantedPage>,
}

impl PageRequest {
    /// What the message says.
    ///
    /// # Errors
    /// EINVAL where it makes no sense.
    pub fn parse(payload: &[u8], width: u8) -> Result<Self, Errno> {
        let (head, rest) = PageGroup::read_from_prefix(payload).map_err(|_| Errno::INVAL)?;
        let entries = <[PageEntry]>::ref_from_bytes(rest).map_err(|_| Errno::INVAL)?;
        let (raw, flags) = (head.pasid.get(), head.flags.get());
        let said = match flags {
            0 => None,
            Tag::HAS_PASID => Some(raw),
            _ => return Err(Errno::INVAL),
        };
        if u64::from(head.count.get()) != entries.len() as u64 {
            return Err(Errno::INVAL);
        }
        let pages: Option<Vec<_>> = entries.iter().map(page).collect();
        let request = Self {
            pasid: pasid_from_raw(said, raw, width)?,
            group: u16::try_from(head.group.get()).map_err(|_| Errno::INVAL)?,
            pages: pages.ok_or(Errno::INVAL)?,
        };
        if request.makes_sense() {
            Ok(request)
        } else {
            Err(Errno::INVAL)
        }
    }

    /// Whether the group may be sent.
    #[must_use]
    pub fn makes_sense(&self) -> bool {
        let modes = Access::PRIVILEGED | Access::EXECUTE;
        let page_makes_sense = |page: &WantedPage| {
            page.at.page_offset() == 0 && (self.pasid.is_some() || !page.access.intersects(modes))
        };
        self.group < MAX_PAGE_GROUPS
            && (1..=MAX_GROUP_PAGES).contains(&self.pages.len())
            && self.pages.iter().all(page_makes_sense)
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        let head = PageGroup {
            pasid: self.pasid.map_or(0, GuestPasid::get).into(),
            flags: self.pasid.map_or(0, |_| Tag::HAS_PASID).into(),
            group: u32::from(self.group).into(),
            count: u32::try_from(self.pages.len()).unwrap_or(u32::MAX).into(),
        };
        let mut out = head.as_bytes().to_vec();
        for page in &self.pages {
            let entry = PageEntry {
                address: page.at.get().into(),
                access: u32::from(page.access.bits()).into(),
                reserved: 0.into(),
            };
            out.extend_from_slice(entry.as_bytes());
        }
        out
    }

    /// The answer to it.
    #[must_use]
    pub fn answer(group: u16, response: PageResponse) -> PageGroupAnswer {
        PageGroupAnswer {
            group: u32::from(group).into(),
            code: response.raw().into(),
        }
    }
}

fn page(raw: &PageEntry) -> Option<WantedPage> {
    let access = u8::try_from(raw.access.get()).ok()?;
    let is_clean = raw.reserved.get() == 0 && raw.address.get().is_multiple_of(PAGE_BYTES);
    is_clean.then_some(WantedPage {
        at: Iova::new(raw.address.get()),
        access: Access::from_bits(access)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(group: u16, pages: usize) -> PageRequest {
        let page = |n| WantedPage {
            at: Iova::new(n as u64 * PAGE_BYTES),
            access: Access::READ | Access::PRIVILEGED,
        };
        PageRequest {
            pasid: GuestPasid::new(9).ok(),
            group,
            pages: (0..pages).map(page).collect(),
        }
    }

    #[test]
    fn a_group_survives_the_wire() {
        for request in [request(0, 1), request(511, MAX_GROUP_PAGES)] {
            assert_eq!(PageRequest::parse(&request.message(), 20), Ok(request));
        }
    }

    #[test]
    fn codes_are_those_of_the_bus() {
        let known: Vec<_> = (0..32).filter_map(PageResponse::from_raw).collect();
        assert_eq!(
            known.iter().map(|it| it.raw()).collect::<Vec<_>>(),
            [0, 1, 15]
        );
    }

    #[test]
    fn r78_groups_that_make_no_sense_are_invalid() {
        let mut odd = request(1, 1);
        odd.pages[0].at = Iova::new(0x800);
        let mut privileged_without_pasid = request(1, 1);
        privileged_without_pasid.pasid = None;
        for bad in [
            request(512, 1),
            request(0, 0),
            request(0, MAX_GROUP_PAGES + 1),
            odd,
            privileged_without_pasid,
        ] {
            assert_eq!(PageRequest::parse(&bad.message(), 20), Err(Errno::INVAL));
        }
        let good = request(3, 2).message();
        assert_eq!(PageRequest::parse(&good, 3), Err(Errno::INVAL));
        assert_eq!(
            PageRequest::parse(&good[..good.len() - 1], 20),
            Err(Errno::INVAL)
        );
        assert_eq!(PageRequest::parse(&good[..32], 20), Err(Errno::INVAL));
    }
}
