//! One entry of a first-stage table (VT-d §9.8 to §9.11; the format is the processor's).

use crate::physical::Frame;
use palisade_units::{Gpa, PageSize};

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// What a process may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Read it.
    ReadOnly,
    /// Read and write it.
    ReadWrite,
    /// Nothing: reads and writes are its kernel's alone, which no descriptor of a process reaches.
    Kernel,
}

/// An entry by its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(u64);

impl Entry {
    /// An entry that maps nothing.
    pub const EMPTY: Self = Self(0);

    /// The entry with these bits.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// Its bits.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// An entry that leads to a table; the leaf alone decides the rights.
    #[must_use]
    pub const fn to_table(table: Gpa) -> Self {
        Self(table.get() & ADDRESS | PRESENT | WRITE | USER)
    }

    /// An entry that maps a page.
    #[must_use]
    pub const fn leaf(frame: Frame, rights: Rights) -> Self {
        let large = match frame.size {
            PageSize::Size4K => 0,
            PageSize::Size2M | PageSize::Size1G => LARGE,
        };
        Self(frame.at.get() & ADDRESS | PRESENT | large).with_rights(rights)
    }

    /// The same page with other rights.
    #[must_use]
    pub const fn with_rights(self, rights: Rights) -> Self {
        let bits = match rights {
            Rights::ReadOnly => USER,
            Rights::ReadWrite => USER | WRITE,
            Rights::Kernel => WRITE,
        };
        Self(self.0 & !(USER | WRITE) | bits)
    }

    /// The rights of a leaf.
    #[must_use]
    pub const fn rights(self) -> Rights {
        match (self.0 & USER != 0, self.0 & WRITE != 0) {
            (false, _) => Rights::Kernel,
            (true, false) => Rights::ReadOnly,
            (true, true) => Rights::ReadWrite,
        }
    }

    /// Whether it maps a page or leads to a table.
    #[must_use]
    pub const fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }

    /// Whether it maps a page, in a table of `level`.
    #[must_use]
    pub const fn is_leaf(self, level: u8) -> bool {
        self.frame(level).is_some()
    }

    /// The frame that it maps, in a table of `level`.
    #[must_use]
    pub const fn frame(self, level: u8) -> Option<Frame> {
        if !self.is_present() || (level > 1 && self.0 & LARGE == 0) {
            return None;
        }
        match PageSize::of_level(level) {
            Some(size) => Some(Frame {
                at: Gpa::new(self.0 & ADDRESS & !(size.bytes() - 1)),
                size,
            }),
            None => None,
        }
    }

    /// The table that it leads to.
    #[must_use]
    pub const fn table(self) -> Gpa {
        Gpa::new(self.0 & ADDRESS)
    }

    /// The `index`-th of the 512 smaller pages that a large page of `level` consists of, with the same rights and
    /// marks.
    #[must_use]
    pub const fn part(self, level: u8, index: u64) -> Self {
        match (
            PageSize::of_level(level),
            PageSize::of_level(level.saturating_sub(1)),
        ) {
            (Some(size), Some(part)) => {
                let base = self.0 & ADDRESS & !(size.bytes() - 1);
                let keep_large = match part {
                    PageSize::Size4K => !LARGE,
                    PageSize::Size2M | PageSize::Size1G => u64::MAX,
                };
                Self((self.0 & !ADDRESS & keep_large) | (base + index * part.bytes()) & ADDRESS)
            }
            _ => Self::EMPTY,
        }
    }
}
