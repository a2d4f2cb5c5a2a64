use palisade_units::{Access, Gpa, Iova, PAGE_BYTES, layout};
use rustix::io::Errno;
use zerocopy::{
    FromBytes, IntoBytes,
    native_endian::{U32, U64},
};

use super::Tag;

/// The most ranges that one answer may have.
pub const MAX_RANGES: u32 = 512;

layout! {
    /// PASID_TRANSLATE.
    TranslateRequest, 32, {
        /// The PASID, or 0 where the request has none.
        pasid: U32 = 0,
        /// What the translation is wanted for, as a `Tag` has it.
        access: U32 = 4,
        /// Where the range starts.
        address: U64 = 8,
        /// Its length in bytes, not 0.
        len_bytes: U64 = 16,
        /// How many ranges the answer may have: 1 to `MAX_RANGES`.
        max_ranges: U32 = 24,
        /// Zero.
        reserved: U32 = 28,
    }
}

layout! {
    /// The answer to PASID_TRANSLATE, before the ranges.
    RangesHead, 8, {
        /// How many ranges follow; none where there is no translation at the address.
        count: U32 = 0,
        /// Zero.
        reserved: U32 = 4,
    }
}

layout! {
    /// A range that was translated.
    Range, 32, {
        /// Where it starts, a multiple of 4 KiB.
        address: U64 = 0,
        /// Where that is in the client's memory, as DMA_MAP names it, a multiple of 4 KiB; 0 unless it may be kept.
        translated: U64 = 8,
        /// Its length, a multiple of 4 KiB and not 0.
        len_bytes: U64 = 16,
        /// What is permitted, in bits 3:0 as a `Tag` has it; bit 4 says that it may be kept.
        permissions: U32 = 24,
        /// Zero.
        reserved: U32 = 28,
    }
}

impl Range {
    /// In the permissions: the translation may be kept and used until it is invalidated.
    pub const MAY_KEEP: u32 = 1 << 4;
}

/// What a device asks to be translated (PCIe 10.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// In whose name, and for what.
    pub tag: Tag,
    /// Where the range starts.
    pub at: Iova,
    /// Its length in bytes.
    pub len_bytes: u64,
    /// How many ranges the answer may have.
    pub max_ranges: u32,
}

impl Wanted {
    /// What the message says.
    ///
    /// # Errors
    /// EINVAL where it makes no sense.
    pub fn parse(payload: &[u8], width: u8) -> Result<Self, Errno> {
        let raw = TranslateRequest::read_from_bytes(payload).map_err(|_| Errno::INVAL)?;
        let wanted = Self {
            tag: Tag::from_raw(raw.pasid, raw.access, width)?,
            at: Iova::new(raw.address.get()),
            len_bytes: raw.len_bytes.get(),
            max_ranges: raw.max_ranges.get(),
        };
        if raw.reserved.get() != 0 || !wanted.makes_sense() {
            return Err(Errno::INVAL);
        }
        Ok(wanted)
    }

    /// Whether the tag can be said, the range is one, and the number of ranges is within bounds.
    #[must_use]
    pub fn makes_sense(&self) -> bool {
        let last = self.len_bytes.checked_sub(1);
        let last = last.and_then(|more| self.at.checked_add(more));
        self.tag.makes_sense() && last.is_some() && (1..=MAX_RANGES).contains(&self.max_ranges)
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> TranslateRequest {
        let (pasid, access) = self.tag.raw();
        TranslateRequest {
            pasid,
            access,
            address: self.at.get().into(),
            len_bytes: self.len_bytes.into(),
            max_ranges: self.max_ranges.into(),
            reserved: 0.into(),
        }
    }
}

/// A range of addresses of which something is permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Where it starts.
    pub at: Iova,
    /// Its length in bytes.
    pub len_bytes: u64,
    /// What is permitted.
    pub permissions: Access,
    /// Where it is in the client's memory, for use until it is invalidated. `None` where it may not be kept: what is
    /// permitted may be done by tagged reads and writes and in no other way.
    pub translated: Option<Gpa>,
}

impl Translation {
    fn message(&self) -> Range {
        let may_keep = self.translated.map_or(0, |_| Range::MAY_KEEP);
        Range {
            address: self.at.get().into(),
            translated: self.translated.unwrap_or_default().get().into(),
            len_bytes: self.len_bytes.into(),
            permissions: (u32::from(self.permissions.bits()) | may_keep).into(),
            reserved: 0.into(),
        }
    }

    fn parse(raw: &Range) -> Option<Self> {
        let permissions = raw.permissions.get();
        let may_keep = permissions & Range::MAY_KEEP != 0;
        let permissions = u8::try_from(permissions & !Range::MAY_KEEP).ok()?;
        let (at, to) = (raw.address.get(), raw.translated.get());
        let len_bytes = raw.len_bytes.get();
        let more = len_bytes.checked_sub(1)?;
        at.checked_add(more)?;
        to.checked_add(more)?;
        let is_clean = (at | to | len_bytes).is_multiple_of(PAGE_BYTES)
            && raw.reserved.get() == 0
            && (may_keep || to == 0);
        is_clean.then_some(Self {
            at: Iova::new(at),
            len_bytes,
            permissions: Access::from_bits(permissions)?,
            translated: may_keep.then_some(Gpa::new(to)),
        })
    }

    fn last(&self) -> u64 {
        // Checked when it was parsed.
        self.at.get().wrapping_add(self.len_bytes).wrapping_sub(1)
    }
}

/// The ranges of an answer: one behind the other without a gap, the first with the address that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<Translation>);

impl Ranges {
    /// An answer to `wanted`.
    ///
    /// # Errors
    /// EINVAL where the ranges are no answer to it.
    pub fn new(ranges: Vec<Translation>, wanted: &Wanted) -> Result<Self, Errno> {
        let raw: Vec<Range> = ranges.iter().map(Translation::message).collect();
        Self::check(&raw, wanted)
    }

    /// What the message says.
    ///
    /// # Errors
    /// EINVAL where it is no answer to `wanted`.
    pub fn parse(payload: &[u8], wanted: &Wanted) -> Result<Self, Errno> {
        let (head, rest) = RangesHead::read_from_prefix(payload).map_err(|_| Errno::INVAL)?;
        let ranges = <[Range]>::ref_from_bytes(rest).map_err(|_| Errno::INVAL)?;
        if head.reserved.get() != 0 || u64::from(head.count.get()) != ranges.len() as u64 {
            return Err(Errno::INVAL);
        }
        Self::check(ranges, wanted)
    }

    fn check(ranges: &[Range], wanted: &Wanted) -> Result<Self, Errno> {
        if ranges.len() as u64 > u64::from(wanted.max_ranges) {
            return Err(Errno::INVAL);
        }
        let ranges: Option<Vec<_>> = ranges.iter().map(Translation::parse).collect();
        let ranges = ranges.ok_or(Errno::INVAL)?;
        let starts_there = ranges
            .first()
            .is_none_or(|first| (first.at.get()..=first.last()).contains(&wanted.at.get()));
        let no_gap = ranges.windows(2).all(|pair| match pair {
            [one, next] => one.last().checked_add(1) == Some(next.at.get()),
            _ => true,
        });
        if starts_there && no_gap {
            Ok(Self(ranges))
        } else {
            Err(Errno::INVAL)
        }
    }

    /// Them.
    #[must_use]
    pub fn as_slice(&self) -> &[Translation] {
        &self.0
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        let head = RangesHead {
            count: u32::try_from(self.0.len()).unwrap_or(u32::MAX).into(),
            reserved: 0.into(),
        };
        let mut out = head.as_bytes().to_vec();
        for range in &self.0 {
            out.extend_from_slice(range.message().as_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use palisade_units::GuestPasid;

    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            tag: Tag::new(GuestPasid::new(5).unwrap(), Access::READ),
            at: Iova::new(0x7000_1234),
            len_bytes: 0x2000,
            max_ranges: 2,
        }
    }

    fn range(at: u64, len_bytes: u64, translated: Option<u64>) -> Translation {
        Translation {
            at: Iova::new(at),
            len_bytes,
            permissions: Access::READ,
            translated: translated.map(Gpa::new),
        }
    }

    #[test]
    fn what_is_asked_and_answered_survives_the_wire() {
        let wanted = wanted();
        assert_eq!(Wanted::parse(wanted.message().as_bytes(), 20), Ok(wanted));
        let ranges = vec![
            range(0x7000_1000, 0x1000, Some(0x5000)),
            range(0x7000_2000, 0x20_0000, None),
        ];
        let ranges = Ranges::new(ranges, &wanted).unwrap();
        assert_eq!(Ranges::parse(&ranges.message(), &wanted), Ok(ranges));
        let none = Ranges::default();
        assert_eq!(Ranges::parse(&none.message(), &wanted), Ok(none));
    }

    #[test]
    fn r78_questions_that_make_no_sense_are_invalid() {
        let bad = [
            Wanted {
                len_bytes: 0,
                ..wanted()
            },
            Wanted {
                len_bytes: u64::MAX,
                ..wanted()
            },
            Wanted {
                max_ranges: 0,
                ..wanted()
            },
            Wanted {
                max_ranges: MAX_RANGES + 1,
                ..wanted()
            },
        ];
        for bad in bad {
            assert_eq!(
                Wanted::parse(bad.message().as_bytes(), 20),
                Err(Errno::INVAL)
            );
        }
        let good = wanted().message();
        assert_eq!(Wanted::parse(&good.as_bytes()[..31], 20), Err(Errno::INVAL));
    }

    #[test]
    fn r78_answers_that_do_not_fit_are_invalid() {
        let page = 0x7000_1000;
        for bad in [
            vec![range(page + 0x1000, 0x1000, None)],
            vec![range(page, 0, None)],
            vec![range(page, 0x800, None)],
            vec![range(page, 0x1000, Some(0x10))],
            vec![range(page, 0x2000, Some(u64::MAX - 0xfff))],
            vec![
                range(page, 0x1000, None),
                range(page + 0x2000, 0x1000, None),
            ],
            vec![range(page, 0x1000, None), range(page, 0x1000, None)],
            (0..3)
                .map(|n| range(page + n * 0x1000, 0x1000, None))
                .collect(),
        ] {
            assert_eq!(
                Ranges::new(bad.clone(), &wanted()),
                Err(Errno::INVAL),
                "{bad:x?}"
            );
        }
        let good = Ranges::new(vec![range(page, 0x1000, None)], &wanted()).unwrap();
        let mut message = good.message();
        message.pop();
        assert_eq!(Ranges::parse(&message, &wanted()), Err(Errno::INVAL));
        let mut message = good.message();
        message[0] = 2;
        assert_eq!(Ranges::parse(&message, &wanted()), Err(Errno::INVAL));
    }
}
