use core::fmt;

/// The bits of an address inside a 4 KiB page.
pub const PAGE_SHIFT: u32 = 12;
/// The size of the smallest page in bytes.
pub const PAGE_BYTES: u64 = 1 << PAGE_SHIFT;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// The address with this number.
            #[must_use]
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The address `bytes` further on, or `None` past the end of the space.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(raw) => Some(Self(raw)),
                    None => None,
                }
            }

            /// The start of the 4 KiB page that holds this address.
            #[must_use]
            pub const fn page_base(self) -> Self {
                Self(self.0 & !(PAGE_BYTES - 1))
            }

            /// The distance in bytes from the start of the 4 KiB page.
            #[must_use]
            pub const fn page_offset(self) -> u64 {
                self.0 & (PAGE_BYTES - 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address! {
    /// An address that a device puts on the bus: I/O virtual, translated by the platform's IOMMU.
    Iova
}
address! {
    /// An address that a guest calls physical: an offset into the memory that its VMM shared.
    Gpa
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_a_base_and_an_offset() {
        let at = Iova::new(0x1234_5678);
        assert_eq!(at.page_base(), Iova::new(0x1234_5000));
        assert_eq!(at.page_offset(), 0x678);
    }

    #[test]
    fn addition_stops_at_the_end_of_the_space() {
        assert_eq!(Gpa::new(u64::MAX).checked_add(1), None);
    }
}
