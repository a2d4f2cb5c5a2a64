use core::fmt;

/// A base address register of a type 0 header (PCIe 7.5.1.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bar {
    /// The register at 0x10.
    Bar0,
    /// The register at 0x14.
    Bar1,
    /// The register at 0x18.
    Bar2,
    /// The register at 0x1c.
    Bar3,
    /// The register at 0x20.
    Bar4,
    /// The register at 0x24.
    Bar5,
}

impl Bar {
    /// All six, in order.
    pub const ALL: [Self; 6] = [
        Self::Bar0,
        Self::Bar1,
        Self::Bar2,
        Self::Bar3,
        Self::Bar4,
        Self::Bar5,
    ];

    /// The number of the register, 0 to 5.
    #[must_use]
    pub const fn index(self) -> u8 {
        match self {
            Self::Bar0 => 0,
            Self::Bar1 => 1,
            Self::Bar2 => 2,
            Self::Bar3 => 3,
            Self::Bar4 => 4,
            Self::Bar5 => 5,
        }
    }

    /// The register with this number; `None` from 6 on.
    #[must_use]
    pub const fn from_index(index: u8) -> Option<Self> {
        match index {
            0 => Some(Self::Bar0),
            1 => Some(Self::Bar1),
            2 => Some(Self::Bar2),
            3 => Some(Self::Bar3),
            4 => Some(Self::Bar4),
            5 => Some(Self::Bar5),
            _ => None,
        }
    }

    /// The offset of the register in configuration space, in bytes.
    #[must_use]
    pub const fn config_offset(self) -> u16 {
        0x10 + 4 * self.index() as u16
    }

    /// The register after this one, which holds the upper half of a 64-bit address.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        Self::from_index(self.index() + 1)
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BAR {}", self.index())
    }
}

/// How wide the address in a memory BAR is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// 32 bits, one register.
    Memory32,
    /// 64 bits, this register and the next.
    Memory64,
}

/// Whether reads of the BAR have no side effects, so that bridges may prefetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefetch {
    /// Reads have no side effects.
    Prefetchable,
    /// Reads may have side effects, or nobody promises the contrary.
    NotPrefetchable,
}

/// The shape of one BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarSpec {
    /// 32-bit or 64-bit.
    pub kind: BarKind,
    /// Whether bridges may prefetch.
    pub prefetch: Prefetch,
    /// The size in bytes: a power of two, at least 16; at most 2 GiB for a 32-bit BAR.
    pub len_bytes: u64,
}

impl BarSpec {
    /// A 32-bit BAR without prefetch, as register files are.
    #[must_use]
    pub const fn memory32(len_bytes: u64) -> Self {
        Self {
            kind: BarKind::Memory32,
            prefetch: Prefetch::NotPrefetchable,
            len_bytes,
        }
    }

    /// A prefetchable 64-bit BAR.
    #[must_use]
    pub const fn memory64(len_bytes: u64) -> Self {
        Self {
            kind: BarKind::Memory64,
            prefetch: Prefetch::Prefetchable,
            len_bytes,
        }
    }

    pub(crate) const fn is_well_formed(self) -> bool {
        let max = match self.kind {
            BarKind::Memory32 => 1 << 31,
            BarKind::Memory64 => 1 << 63,
        };
        self.len_bytes.is_power_of_two() && self.len_bytes >= 16 && self.len_bytes <= max
    }

    /// The read-only bits 3:0 of the register.
    pub(crate) const fn type_bits(self) -> u64 {
        let kind = match self.kind {
            BarKind::Memory32 => 0,
            BarKind::Memory64 => 0b100,
        };
        match self.prefetch {
            Prefetch::Prefetchable => kind | 0b1000,
            Prefetch::NotPrefetchable => kind,
        }
    }
}
