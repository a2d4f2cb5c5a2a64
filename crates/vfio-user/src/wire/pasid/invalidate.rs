use palisade_units::{GuestPasid, Iova, PAGE_BYTES, layout};
use rustix::io::Errno;
use zerocopy::{
    FromBytes,
    native_endian::{U32, U64},
};

use super::tag::pasid_from_raw;

layout! {
    /// PASID_INVALIDATE. The answer has no payload: it says that it is done.
    Invalidate, 24, {
        /// The PASID, or 0 where none is named.
        pasid: U32 = 0,
        /// Bit 0: all PASIDs, and requests without one; bit 1: all addresses; bit 31: the PASID that is named. With
        /// neither bit 0 nor bit 31, requests without a PASID are meant.
        flags: U32 = 4,
        /// Where the range starts, a multiple of 4 KiB; 0 with bit 1.
        address: U64 = 8,
        /// Its length, a multiple of 4 KiB and not 0; 0 with bit 1.
        len_bytes: U64 = 16,
    }
}

bitflags::bitflags! {
    /// The flags of PASID_INVALIDATE.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct InvalidateFlags: u32 {
        /// All PASIDs, and requests without one.
        const ALL_PASIDS = 1;
        /// All addresses.
        const ALL_ADDRESSES = 2;
        /// The PASID that is named.
        const HAS_PASID = 1 << 31;
    }
}

/// Whose translations are to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasidScope {
    /// Those of one PASID.
    One(GuestPasid),
    /// Those of requests without a PASID.
    Untagged,
    /// All.
    All,
}

impl PasidScope {
    /// Whether translations in this name are meant.
    #[must_use]
    pub fn contains(self, pasid: Option<GuestPasid>) -> bool {
        match self {
            Self::One(one) => pasid == Some(one),
            Self::Untagged => pasid.is_none(),
            Self::All => true,
        }
    }
}

/// Which translations a device is to forget (PCIe 10.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalidation {
    /// Whose.
    pub pasids: PasidScope,
    /// Of which range, by its start and its length in bytes; `None` for all addresses.
    pub range: Option<(Iova, u64)>,
}

impl Invalidation {
    /// What the message says.
    ///
    /// # Errors
    /// EINVAL where it makes no sense.
    pub fn parse(payload: &[u8], width: u8) -> Result<Self, Errno> {
        let raw = Invalidate::read_from_bytes(payload).map_err(|_| Errno::INVAL)?;
        let flags = InvalidateFlags::from_bits(raw.flags.get()).ok_or(Errno::INVAL)?;
        let has_pasid = flags.contains(InvalidateFlags::HAS_PASID);
        let number = raw.pasid.get();
        let pasid = pasid_from_raw(has_pasid.then_some(number), number, width)?;
        let pasids = match (flags.contains(InvalidateFlags::ALL_PASIDS), pasid) {
            (true, None) => PasidScope::All,
            (false, Some(pasid)) => PasidScope::One(pasid),
            (false, None) => PasidScope::Untagged,
            (true, Some(_)) => return Err(Errno::INVAL),
        };
        let (at, len_bytes) = (raw.address.get(), raw.len_bytes.get());
        let range = if flags.contains(InvalidateFlags::ALL_ADDRESSES) {
            if at | len_bytes != 0 {
                return Err(Errno::INVAL);
            }
            None
        } else {
            Some((Iova::new(at), len_bytes))
        };
        let invalidation = Self { pasids, range };
        if invalidation.makes_sense() {
            Ok(invalidation)
        } else {
            Err(Errno::INVAL)
        }
    }

    /// Whether the range is one.
    #[must_use]
    pub fn makes_sense(&self) -> bool {
        self.range.is_none_or(|(at, len_bytes)| {
            let last = len_bytes.checked_sub(1);
            (at.get() | len_bytes).is_multiple_of(PAGE_BYTES)
                && last.and_then(|more| at.checked_add(more)).is_some()
        })
    }

    /// Whether an address in the space of a PASID is meant.
    #[must_use]
    pub fn contains(&self, pasid: Option<GuestPasid>, address: Iova) -> bool {
        let in_range = self.range.is_none_or(|(at, len_bytes)| {
            let into = address.get().checked_sub(at.get());
            into.is_some_and(|into| into < len_bytes)
        });
        in_range && self.pasids.contains(pasid)
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> Invalidate {
        let (pasid, whose) = match self.pasids {
            PasidScope::One(pasid) => (pasid.get(), InvalidateFlags::HAS_PASID),
            PasidScope::Untagged => (0, InvalidateFlags::empty()),
            PasidScope::All => (0, InvalidateFlags::ALL_PASIDS),
        };
        let where_ = match self.range {
            Some(_) => InvalidateFlags::empty(),
            None => InvalidateFlags::ALL_ADDRESSES,
        };
        let (at, len_bytes) = self.range.unwrap_or_default();
        Invalidate {
            pasid: pasid.into(),
            flags: (whose | where_).bits().into(),
            address: at.get().into(),
            len_bytes: len_bytes.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;

    #[test]
    fn an_invalidation_survives_the_wire() {
        let pasid = GuestPasid::new(77).unwrap();
        for pasids in [
            PasidScope::One(pasid),
            PasidScope::Untagged,
            PasidScope::All,
        ] {
            for range in [None, Some((Iova::new(0x1000), 0x2000))] {
                let it = Invalidation { pasids, range };
                assert_eq!(Invalidation::parse(it.message().as_bytes(), 20), Ok(it));
                assert_eq!(
                    it.contains(Some(pasid), Iova::new(0x2fff)),
                    pasids != PasidScope::Untagged
                );
                assert_eq!(
                    it.contains(Some(pasid), Iova::new(0x3000)),
                    pasids != PasidScope::Untagged && range.is_none()
                );
            }
        }
    }

    #[test]
    fn r78_invalidations_that_make_no_sense_are_invalid() {
        const HAS_PASID: u32 = 1 << 31;
        for (pasid, flags, at, len) in [
            (1, 2, 0, 0),
            (1, HAS_PASID | 3, 0, 0),
            (1 << 20, HAS_PASID | 2, 0, 0),
            (0, 4 | 2, 0, 0),
            (0, 2, 0x1000, 0),
            (0, 2, 0, 0x1000),
            (0, 0, 0, 0),
            (0, 0, 0x800, 0x1000),
            (0, 0, 0, 0x800),
            (0, 0, 0x2000, u64::MAX - 0xfff),
        ] {
            let raw = Invalidate {
                pasid: U32::new(pasid),
                flags: U32::new(flags),
                address: U64::new(at),
                len_bytes: U64::new(len),
            };
            let parsed = Invalidation::parse(raw.as_bytes(), 20);
            assert_eq!(parsed, Err(Errno::INVAL), "{raw:x?}");
        }
    }
}
