use std::fmt;

use palisade_units::PASID_COUNT;

/// The quota of a tenant for whom nothing else was configured.
pub const DEFAULT_QUOTA: u32 = 1000;

/// A range of PASIDs, both ends included. Numbers from 2^20 on name nothing and are passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PasidRange {
    /// The lowest number.
    pub min: u32,
    /// The highest number.
    pub max: u32,
}

impl PasidRange {
    /// Every PASID that can be given out: 1 to 2^20 - 1.
    pub const ALL: Self = Self {
        min: 1,
        max: PASID_COUNT - 1,
    };

    /// The range that holds one number.
    #[must_use]
    pub const fn only(pasid: u32) -> Self {
        Self {
            min: pasid,
            max: pasid,
        }
    }

    pub(crate) fn is_inverted(self) -> bool {
        self.min > self.max
    }

    /// The last PASID in the range. The first one is `min`.
    pub(crate) fn last_pasid(self) -> u32 {
        self.max.min(PASID_COUNT - 1)
    }
}

impl fmt::Display for PasidRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..={:#x}", self.min, self.max)
    }
}

/// How many PASIDs a set may have out at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// This many.
    Exactly(u32),
    /// Whatever no other set has reserved at the moment.
    AllThatIsLeft,
}

impl Default for Quota {
    fn default() -> Self {
        Self::Exactly(DEFAULT_QUOTA)
    }
}
