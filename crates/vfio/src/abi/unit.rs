//! What the IOMMU units can do that a client's functions are behind, and what all of them can.

use super::layout::FORMAT_VTD;

/// Whose format a unit's page tables have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageFormat {
    /// VT-d's.
    VtD,
    /// Another's, by its number in the proposals.
    Other(u32),
}

/// What one unit can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The format of its first stages.
    pub format: StageFormat,
    /// How many bits of an address a first stage translates.
    pub address_bits: u16,
    /// How many bits a PASID has; 0 where there are none.
    pub pasid_bits: u16,
    /// CAP_REG (VT-d §11.4.2).
    pub cap: u64,
    /// ECAP_REG (VT-d §11.4.3).
    pub ecap: u64,
}

/// What all units of a client can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nested {
    /// VT-d's format where all have that; else nothing can be bound.
    pub format: u32,
    /// The narrowest.
    pub address_bits: u16,
    /// The fewest.
    pub pasid_bits: u16,
    /// What all have in CAP_REG.
    pub cap: u64,
    /// What all have in ECAP_REG.
    pub ecap: u64,
}

/// The fields of CAP_REG that are numbers, each by its lowest bit and its width: ND, MGAW, FRO, NFR, MAMV.
const CAP_NUMBERS: [(u32, u32); 5] = [(0, 3), (16, 6), (24, 10), (40, 8), (48, 6)];
/// Those of ECAP_REG: IRO, MHMV, PSS.
const ECAP_NUMBERS: [(u32, u32); 3] = [(8, 10), (20, 4), (35, 5)];

impl Nested {
    /// What all of these can do. Units of different formats, or of another than VT-d's, or none, have no
    /// format in common.
    #[must_use]
    pub fn of(units: &[Unit]) -> Self {
        let Some((first, others)) = units.split_first() else {
            return Self::default();
        };
        if units.iter().any(|unit| unit.format != StageFormat::VtD) {
            return Self::default();
        }
        let first = Self {
            format: FORMAT_VTD,
            address_bits: first.address_bits,
            pasid_bits: first.pasid_bits,
            cap: first.cap,
            ecap: first.ecap,
        };
        others.iter().fold(first, |all, unit| Self {
            format: all.format,
            address_bits: all.address_bits.min(unit.address_bits),
            pasid_bits: all.pasid_bits.min(unit.pasid_bits),
            cap: common(all.cap, unit.cap, &CAP_NUMBERS),
            ecap: common(all.ecap, unit.ecap, &ECAP_NUMBERS),
        })
    }

    /// Whether first stages can be bound.
    #[must_use]
    pub const fn has_format(&self) -> bool {
        self.format != 0
    }

    /// Whether a first stage may allow privileged requests (ECAP_REG.SRS, VT-d §11.4.3).
    #[must_use]
    pub const fn has_supervisor_requests(&self) -> bool {
        self.ecap & 1 << 31 != 0
    }

    /// Whether it may have the extended accessed flag set (ECAP_REG.EAFS, VT-d §11.4.3).
    #[must_use]
    pub const fn has_extended_accessed(&self) -> bool {
        self.ecap & 1 << 34 != 0
    }

    /// Whether PASIDs can be had.
    #[must_use]
    pub const fn has_pasids(&self) -> bool {
        self.has_format() && self.pasid_bits != 0
    }
}

/// The bits that both have, and of each number the lower one.
fn common(one: u64, other: u64, numbers: &[(u32, u32)]) -> u64 {
    numbers.iter().fold(one & other, |all, (low, width)| {
        let mask = ((1 << width) - 1) << low;
        all & !mask | (one & mask).min(other & mask)
    })
}
