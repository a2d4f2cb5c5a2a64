use core::fmt;

/// The width of a PASID on the bus (PCIe 6.20).
pub const PASID_BITS: u32 = 20;
/// How many PASIDs there are: 2^20.
pub const PASID_COUNT: u32 = 1 << PASID_BITS;

/// A number is too large for a PASID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:#x} is not a PASID: it must be below 2^20")]
pub struct PasidOutOfRange(pub u32);

macro_rules! pasid {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u32);

        impl $name {
            /// The PASID with this number.
            ///
            /// # Errors
            /// [`PasidOutOfRange`] from 2^20 on.
            pub const fn new(raw: u32) -> Result<Self, PasidOutOfRange> {
                if raw < PASID_COUNT { Ok(Self(raw)) } else { Err(PasidOutOfRange(raw)) }
            }

            /// The number, below 2^20.
            #[must_use]
            pub const fn get(self) -> u32 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

pasid! {
    /// A PASID of the host's namespace, given out by its authority. 0 is never given out.
    HostPasid
}
pasid! {
    /// A PASID as a guest names it: its own number, or the host's where the guest's allocator asks
    /// the host. 0 is what Linux puts into RID_PASID, for requests without a PASID.
    GuestPasid
}
pasid! {
    /// A PASID as it stands in a request on the bus, the index of a function's PASID table.
    ///
    /// On a function that tenants share it is always a host PASID. On one with an exclusive owner it
    /// is whatever the owner programmed, and the function's own table says what that means.
    PasidTag
}

impl From<HostPasid> for PasidTag {
    fn from(pasid: HostPasid) -> Self {
        Self(pasid.0)
    }
}

impl PasidTag {
    /// The tag of a function whose exclusive owner programs its own numbers.
    #[must_use]
    pub const fn of_exclusive_owner(pasid: GuestPasid) -> Self {
        Self(pasid.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r2_a_pasid_has_twenty_bits() {
        assert!(HostPasid::new((1 << 20) - 1).is_ok());
        assert_eq!(HostPasid::new(1 << 20), Err(PasidOutOfRange(1 << 20)));
    }
}
