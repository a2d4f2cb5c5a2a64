//! The root table, of scalable and of legacy mode (VT-d §9.1, §9.2).

use bitfield_struct::bitfield;
use palisade_units::{Bdf, Gpa};

use super::{page_address, page_number, words_to_bytes};

/// One half of a root entry in scalable mode, or the lower half in legacy mode: the pointer to a
/// context table (VT-d §9.1, §9.2).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ContextTablePointer {
    /// P, LP, UP.
    pub present: bool,
    #[bits(11, access = RO)]
    reserved_low: u16,
    #[bits(40)]
    page: u64,
    #[bits(12, access = RO)]
    reserved_high: u16,
}

impl ContextTablePointer {
    /// A present pointer.
    #[must_use]
    pub const fn to(table: Gpa) -> Self {
        Self::new().with_present(true).with_page(page_number(table))
    }

    /// The address of the context table.
    #[must_use]
    pub const fn table(self) -> Gpa {
        page_address(self.page())
    }

    /// Whether every reserved bit is zero.
    #[must_use]
    pub const fn reserved_is_zero(self) -> bool {
        self.reserved_low() == 0 && self.reserved_high() == 0
    }
}

/// An entry of the scalable-mode root table, of one bus (VT-d §9.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RootEntry {
    /// The context table of devices 0 to 15.
    pub lower: ContextTablePointer,
    /// The context table of devices 16 to 31.
    pub upper: ContextTablePointer,
}

impl RootEntry {
    /// The size in bytes. The table has 256, one for each bus.
    pub const BYTES: u64 = 16;

    /// A root entry with two context tables, or one, or none.
    #[must_use]
    pub const fn new(lower: Option<Gpa>, upper: Option<Gpa>) -> Self {
        Self {
            lower: Self::half(lower),
            upper: Self::half(upper),
        }
    }

    const fn half(table: Option<Gpa>) -> ContextTablePointer {
        match table {
            Some(table) => ContextTablePointer::to(table),
            None => ContextTablePointer::new(),
        }
    }

    /// Where the half that rules a function stands, from the start of the root table, in bytes.
    #[must_use]
    pub fn offset_of(function: Bdf) -> u64 {
        let half = if function.devfn() < 0x80 { 0 } else { 8 };
        u64::from(function.bus()) * Self::BYTES + half
    }

    /// The two words as they stand in memory.
    #[must_use]
    pub const fn to_words(self) -> [u64; 2] {
        [self.lower.into_bits(), self.upper.into_bits()]
    }

    /// The bytes as they stand in memory.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        words_to_bytes!(self.to_words(), 2)
    }
}

const _: () = assert!(size_of::<RootEntry>() as u64 == RootEntry::BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTION: Bdf = Bdf::new(3, 0x11, 2);

    #[test]
    fn the_upper_half_of_a_root_entry_is_for_devices_from_16_on() {
        assert_eq!(RootEntry::offset_of(FUNCTION), 3 * 16 + 8);
        assert_eq!(RootEntry::offset_of(Bdf::new(3, 0xf, 7)), 3 * 16);
        let entry = RootEntry::new(None, Some(Gpa::new(0x5000)));
        assert_eq!(entry.to_words(), [0, 0x5001]);
        assert_eq!(entry.to_bytes()[8..10], [0x01, 0x50]);
    }
}
