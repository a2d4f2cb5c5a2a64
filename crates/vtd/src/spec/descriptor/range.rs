use palisade_units::{Bdf, Iova, PAGE_SHIFT};

/// AM: the low bits of the page number that do not count.
pub(in crate::spec) const fn address_mask(word: u64) -> u8 {
    word.to_le_bytes()[0] & 0x3f
}

/// IH: what software changed in the tables of a range (VT-d §6.5.2.3, §11.4.6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafHint {
    /// Any entries on the way to the pages.
    AnyLevel,
    /// Only entries that map pages: what is cached of those above them may stay.
    LeavesOnly,
}

impl LeafHint {
    const BIT: u64 = 1 << 6;

    pub(in crate::spec) const fn to_bit(self) -> u64 {
        match self {
            Self::AnyLevel => 0,
            Self::LeavesOnly => Self::BIT,
        }
    }

    pub(in crate::spec) const fn from_word(word: u64) -> Self {
        if word & Self::BIT == 0 {
            Self::AnyLevel
        } else {
            Self::LeavesOnly
        }
    }
}

/// A size-aligned range of 2^order pages of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRange {
    at: Iova,
    order: u8,
}

impl PageRange {
    /// The whole address space.
    pub const ALL: Self = Self {
        at: Iova::new(0),
        order: Self::ALL_ORDER,
    };
    const ALL_ORDER: u8 = 52;

    /// The range of 2^order pages that holds `at`; from order 52 on, everything.
    #[must_use]
    pub const fn holding(at: Iova, order: u8) -> Self {
        if order >= Self::ALL_ORDER {
            return Self::ALL;
        }
        let mask = !((1 << (order as u32 + PAGE_SHIFT)) - 1);
        Self {
            at: Iova::new(at.get() & mask),
            order,
        }
    }

    /// The one page that holds `at`.
    #[must_use]
    pub const fn page(at: Iova) -> Self {
        Self::holding(at, 0)
    }

    /// Where the range starts.
    #[must_use]
    pub const fn at(self) -> Iova {
        self.at
    }

    /// The length in bytes; `None` for the whole space, which no 64-bit number counts.
    #[must_use]
    pub const fn len_bytes(self) -> Option<u64> {
        if self.order >= Self::ALL_ORDER {
            None
        } else {
            Some(1 << (self.order as u32 + PAGE_SHIFT))
        }
    }

    /// As an address with a mask: the number of low bits of the page number that do not count
    /// (VT-d §6.5.2.3, Table 22).
    pub(in crate::spec) const fn to_masked_word(self) -> u64 {
        self.at.get() | self.order as u64
    }

    pub(in crate::spec) fn from_masked_word(word: u64) -> Self {
        Self::holding(Iova::new(word), address_mask(word))
    }

    /// As a device TLB is told: with the size flag, the lowest clear bit of the page number says how
    /// many pages (PCIe 10.3.1).
    pub(super) const fn to_sized_word(self, size_flag: u64) -> u64 {
        if self.order == 0 {
            return self.at.get();
        }
        let below_the_clear_bit = (1 << (self.order as u32 + PAGE_SHIFT - 1)) - 1;
        let ones = below_the_clear_bit & !((1 << PAGE_SHIFT) - 1);
        self.at.get() | ones | size_flag
    }

    pub(super) fn from_sized_word(word: u64, size_flag: u64) -> Self {
        if word & size_flag == 0 {
            return Self::page(Iova::new(word));
        }
        let ones = (word >> PAGE_SHIFT).trailing_ones();
        let order = u8::try_from(ones + 1).unwrap_or(Self::ALL_ORDER);
        Self::holding(Iova::new(word), order)
    }
}

/// FM: how many bits of the function number, from the highest on, an invalidation leaves out
/// (VT-d §6.5.2.1, Table 21).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionMask(u8);

impl FunctionMask {
    /// One function.
    pub const NONE: Self = Self(0);

    /// The mask with this value of two bits; higher bits are dropped.
    #[must_use]
    pub const fn new(raw: u8) -> Self {
        Self(raw & 3)
    }

    /// The value of the field.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Whether a function is meant by `source` under this mask.
    #[must_use]
    pub const fn matches(self, source: Bdf, function: Bdf) -> bool {
        let ignored = match self.0 {
            0 => 0b000,
            1 => 0b100,
            2 => 0b110,
            _ => 0b111,
        };
        (source.requester_id() ^ function.requester_id()) & !ignored == 0
    }
}
