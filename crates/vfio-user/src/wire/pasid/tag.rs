use palisade_units::{Access, GuestPasid, Iova, layout};
use rustix::io::Errno;
use zerocopy::native_endian::{U32, U64};

layout! {
    /// PASID_DMA_READ and PASID_DMA_WRITE, and their replies, before the data.
    TaggedAccess, 24, {
        /// The PASID, or 0 where the access has none.
        pasid: U32 = 0,
        /// What is wanted, as a `Tag` has it.
        access: U32 = 4,
        /// Where in the space that the PASID names.
        address: U64 = 8,
        /// How many bytes.
        count: U64 = 16,
    }
}

/// In whose name a device asks, and for what: what a PASID TLP prefix and the kind of a request say together
/// (PCIe 6.20).
///
/// On the wire these are two numbers, the PASID and the access: bit 0 says that it reads, bit 1 that it writes, bit 2
/// that it fetches instructions, bit 3 that it is of privileged mode, and bit 31 that it has a PASID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The PASID as the guest programmed it; `None` for a request without one.
    pub pasid: Option<GuestPasid>,
    /// What is wanted.
    pub access: Access,
}

impl Tag {
    /// In the bits of an access: there is a PASID.
    pub const HAS_PASID: u32 = 1 << 31;

    /// A request of user mode in the name of a PASID.
    #[must_use]
    pub const fn new(pasid: GuestPasid, access: Access) -> Self {
        Self {
            pasid: Some(pasid),
            access,
        }
    }

    /// What the two numbers say.
    ///
    /// # Errors
    /// EINVAL for a PASID of more bits than `width`, one that is not said to be there, access bits that have no
    /// meaning, and an access without a PASID that is of privileged mode or fetches instructions, which no prefix
    /// could say.
    pub fn from_raw(pasid: U32, access: U32, width: u8) -> Result<Self, Errno> {
        let (pasid, access) = (pasid.get(), access.get());
        let has_pasid = access & Self::HAS_PASID != 0;
        let access = u8::try_from(access & !Self::HAS_PASID)
            .ok()
            .and_then(Access::from_bits)
            .ok_or(Errno::INVAL)?;
        let pasid = pasid_from_raw(has_pasid.then_some(pasid), pasid, width)?;
        let tag = Self { pasid, access };
        if tag.makes_sense() {
            Ok(tag)
        } else {
            Err(Errno::INVAL)
        }
    }

    /// Whether a prefix could say it: what is of privileged mode or fetches instructions has a PASID.
    #[must_use]
    pub const fn makes_sense(&self) -> bool {
        let modes = Access::PRIVILEGED.union(Access::EXECUTE);
        self.pasid.is_some() || !self.access.intersects(modes)
    }

    /// The two numbers: the PASID and the access.
    #[must_use]
    pub fn raw(self) -> (U32, U32) {
        let has_pasid = self.pasid.map_or(0, |_| Self::HAS_PASID);
        let pasid = self.pasid.map_or(0, GuestPasid::get);
        (
            pasid.into(),
            (u32::from(self.access.bits()) | has_pasid).into(),
        )
    }

    /// The fixed part of a tagged read or write.
    #[must_use]
    pub fn at(self, address: Iova, count: u64) -> TaggedAccess {
        let (pasid, access) = self.raw();
        TaggedAccess {
            pasid,
            access,
            address: address.get().into(),
            count: count.into(),
        }
    }
}

/// The PASID that is said to be there, which has `width` bits; a number that is not said to be there is 0.
pub(super) fn pasid_from_raw(
    said: Option<u32>,
    raw: u32,
    width: u8,
) -> Result<Option<GuestPasid>, Errno> {
    match said {
        None if raw == 0 => Ok(None),
        Some(raw) if u64::from(raw) < 1 << width.min(63) => {
            GuestPasid::new(raw).map(Some).map_err(|_| Errno::INVAL)
        }
        _ => Err(Errno::INVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_survives_the_wire() {
        let pasid = GuestPasid::new(0x1_2345).unwrap();
        for access in (0..16).filter_map(Access::from_bits) {
            let tag = Tag::new(pasid, access);
            let (raw_pasid, raw_access) = tag.raw();
            assert_eq!(Tag::from_raw(raw_pasid, raw_access, 20), Ok(tag));
        }
        let untagged = Tag {
            pasid: None,
            access: Access::WRITE,
        };
        let (pasid, access) = untagged.raw();
        assert_eq!((pasid.get(), access.get()), (0, 2));
        assert_eq!(Tag::from_raw(pasid, access, 20), Ok(untagged));
    }

    #[test]
    fn r78_tags_that_make_no_sense_are_invalid() {
        let has = Tag::HAS_PASID;
        for (pasid, access, width) in [
            (1 << 20, has | 1, 20),
            (1 << 8, has | 1, 8),
            (u32::MAX, has | 1, 20),
            (1, 1, 20),
            (1, has | 16, 20),
            (1, has | 1 << 30, 20),
            (0, 1 | 8, 20),
            (0, 1 | 4, 20),
        ] {
            let tag = Tag::from_raw(pasid.into(), access.into(), width);
            assert_eq!(tag, Err(Errno::INVAL), "{pasid:#x} {access:#x} {width}");
        }
    }
}
