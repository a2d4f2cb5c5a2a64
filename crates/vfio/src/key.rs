use core::fmt;

use palisade_units::{GuestPasid, Iova};

use crate::VfioError;

/// Which requests of a guest's function are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpaceKey {
    /// Those without a PASID; a guest's table names them by RID_PASID (VT-d §9.4).
    WithoutPasid,
    /// Those with this PASID, by the guest's number. 0 cannot be bound under this name.
    Pasid(GuestPasid),
}

impl SpaceKey {
    /// PASID 0 is not a name of requests without one.
    pub(crate) fn check(self) -> Result<(), VfioError> {
        match self {
            Self::Pasid(guest) if guest.get() == 0 => Err(VfioError::InvalidPasid { guest }),
            _ => Ok(()),
        }
    }

    pub(crate) fn guest_pasid(self) -> Option<GuestPasid> {
        match self {
            Self::WithoutPasid => None,
            Self::Pasid(guest) => Some(guest),
        }
    }
}

impl fmt::Display for SpaceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WithoutPasid => f.write_str("requests without a PASID"),
            Self::Pasid(guest) => write!(f, "guest PASID {guest}"),
        }
    }
}

/// How much of what is cached for a guest's function is to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestScope {
    /// Everything.
    All,
    /// One address space.
    Key(SpaceKey),
    /// A range of one address space.
    Pages {
        /// The address space.
        key: SpaceKey,
        /// Where the range starts.
        at: Iova,
        /// Its length in bytes.
        len_bytes: u64,
    },
}
