//! The ACPI table that tells a guest of its unit: DMA remapping reporting (VT-d §8).

use palisade_units::{Bdf, Gpa, PAGE_BYTES};

use crate::spec::{HOST_ADDRESS_WIDTH, register::BAR_LEN_BYTES};

/// The size of the ACPI header that precedes what [`DmarTable::body`] returns.
pub const ACPI_HEADER_BYTES: usize = 36;
const SIGNATURE: &[u8; 4] = b"DMAR";
const OEM_ID: &[u8; 6] = b"PALISA";
const OEM_TABLE_ID: &[u8; 8] = b"PALISADE";
const CREATOR_ID: &[u8; 4] = b"PALI";
const REVISION: u8 = 1;
const CHECKSUM_OFFSET: usize = 9;

const UNIT_BYTES: u16 = 16;
const SCOPE_BYTES: u8 = 8;
const MOST_SCOPES: usize = (u16::MAX - UNIT_BYTES) as usize / SCOPE_BYTES as usize;

/// Why there is no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DmarError {
    /// The registers do not stand at a page.
    #[error("registers at {0}: give the address where the firmware placed the BAR, page-aligned")]
    Base(Gpa),
    /// The registers' size cannot be told.
    #[error("registers of {0:#x} bytes: the size is a power of two from 4096 to 128 MiB")]
    Length(u64),
    /// The unit would be for nothing.
    #[error("no functions: name at least one that the unit translates for")]
    NoScopes,
    /// More functions than a unit's length field counts.
    #[error("{0} functions are too many for one unit: at most {MOST_SCOPES}")]
    TooManyScopes(usize),
}

/// What follows the ACPI header in the table of a unit whose registers the firmware placed at `base`
/// (a guest-physical address), for functions on a root bus.
///
/// # Errors
/// As [`DmarTable::new`].
pub fn body(base: u64, scopes: &[Bdf]) -> Result<Vec<u8>, DmarError> {
    DmarTable::new(Gpa::new(base), BAR_LEN_BYTES, scopes).map(|table| table.body())
}

/// The same table with its ACPI header and checksum.
///
/// # Errors
/// As [`DmarTable::new`].
pub fn table(base: u64, scopes: &[Bdf]) -> Result<Vec<u8>, DmarError> {
    DmarTable::new(Gpa::new(base), BAR_LEN_BYTES, scopes).map(|table| table.table())
}

/// A DMAR table of one unit, with the functions that it translates for named one by one.
///
/// A guest translates for those alone. With the flag for "all others" it would translate for the VMM's own
/// devices too, whose accesses never come through this unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DmarTable {
    base: Gpa,
    /// The size of the registers: 2^order pages.
    order: u8,
    scopes: Vec<Bdf>,
}

impl DmarTable {
    /// The table of a unit whose registers are `register_bytes` at `base`, for functions on a root bus.
    ///
    /// # Errors
    /// [`DmarError`] for an address, a size or a number of functions that no table can tell.
    pub fn new(base: Gpa, register_bytes: u64, scopes: &[Bdf]) -> Result<Self, DmarError> {
        if base.get() == 0 || base.page_offset() != 0 {
            return Err(DmarError::Base(base));
        }
        let pages = register_bytes / PAGE_BYTES;
        let order = pages
            .is_power_of_two()
            .then(|| pages.trailing_zeros())
            .filter(|_| register_bytes.is_power_of_two())
            .and_then(|order| u8::try_from(order).ok())
            .filter(|order| *order < 16)
            .ok_or(DmarError::Length(register_bytes))?;
        if scopes.is_empty() {
            return Err(DmarError::NoScopes);
        }
        if scopes.len() > MOST_SCOPES {
            return Err(DmarError::TooManyScopes(scopes.len()));
        }
        Ok(Self {
            base,
            order,
            scopes: scopes.to_vec(),
        })
    }

    /// What follows the ACPI header, for a VMM that makes the header itself.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut body = Vec::new();
        // Host address width, less one; no interrupt remapping; ten reserved bytes.
        body.push((HOST_ADDRESS_WIDTH - 1).to_le_bytes()[0]);
        body.extend([0; 11]);
        self.push_unit(&mut body);
        body
    }

    /// DRHD: the unit, with a device scope for each function (VT-d §8.3).
    fn push_unit(&self, body: &mut Vec<u8>) {
        const UNIT: u16 = 0;
        const ENDPOINT: u8 = 1;
        let scope_bytes = self.scopes.len() * usize::from(SCOPE_BYTES);
        let len_bytes = u16::try_from(scope_bytes).map_or(u16::MAX, |len| len + UNIT_BYTES);
        body.extend(UNIT.to_le_bytes());
        body.extend(len_bytes.to_le_bytes());
        // Flags: not for all others. Size of the register set. Segment 0.
        body.extend([0, self.order, 0, 0]);
        body.extend(self.base.get().to_le_bytes());
        for function in &self.scopes {
            body.extend([ENDPOINT, SCOPE_BYTES, 0, 0, 0, function.bus()]);
            body.extend([function.device(), function.function()]);
        }
    }

    /// The whole table, header and checksum included.
    #[must_use]
    pub fn table(&self) -> Vec<u8> {
        let body = self.body();
        let len_bytes = u32::try_from(ACPI_HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
        let mut table = Vec::with_capacity(ACPI_HEADER_BYTES + body.len());
        table.extend(SIGNATURE);
        table.extend(len_bytes.to_le_bytes());
        table.extend([REVISION, 0]);
        table.extend(OEM_ID);
        table.extend(OEM_TABLE_ID);
        table.extend(1_u32.to_le_bytes());
        table.extend(CREATOR_ID);
        table.extend(1_u32.to_le_bytes());
        table.extend(body);
        let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        table[CHECKSUM_OFFSET] = sum.wrapping_neg();
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Gpa = Gpa::new(0xfebf_1000);
    const FUNCTIONS: [Bdf; 2] = [Bdf::new(0, 0x11, 0), Bdf::new(0, 0x12, 3)];

    #[test]
    fn the_body_is_what_the_guest_parses() {
        let body = DmarTable::new(BASE, 16 * 1024, &FUNCTIONS).unwrap().body();
        assert_eq!(body[..12], [51, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(body[12..16], [0, 0, 32, 0], "a unit of 32 bytes");
        assert_eq!(body[16..20], [0, 2, 0, 0], "four pages of segment 0");
        assert_eq!(body[20..28], 0xfebf_1000_u64.to_le_bytes());
        assert_eq!(body[28..36], [1, 8, 0, 0, 0, 0, 0x11, 0]);
        assert_eq!(body[36..], [1, 8, 0, 0, 0, 0, 0x12, 3]);
    }

    #[test]
    fn the_table_has_its_length_and_sums_to_zero() {
        let table = DmarTable::new(BASE, 4096, &FUNCTIONS).unwrap().table();
        assert_eq!(table[..4], *b"DMAR");
        assert_eq!(table[4..8], 80_u32.to_le_bytes());
        assert_eq!(table.len(), 80);
        let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!(sum, 0);
    }

    #[test]
    fn what_no_table_can_tell_is_refused() {
        let table = |base, len, scopes: &[Bdf]| DmarTable::new(Gpa::new(base), len, scopes);
        assert_eq!(
            table(0, 4096, &FUNCTIONS),
            Err(DmarError::Base(Gpa::new(0)))
        );
        assert_eq!(
            table(0x123, 4096, &FUNCTIONS),
            Err(DmarError::Base(Gpa::new(0x123)))
        );
        for len in [0, 1, 4095, 4097, 12288, 1 << 40] {
            assert_eq!(
                table(0x1000, len, &FUNCTIONS),
                Err(DmarError::Length(len)),
                "{len}"
            );
        }
        assert_eq!(table(0x1000, 4096, &[]), Err(DmarError::NoScopes));
        let many = vec![FUNCTIONS[0]; MOST_SCOPES + 1];
        assert_eq!(
            table(0x1000, 4096, &many),
            Err(DmarError::TooManyScopes(many.len()))
        );
        assert!(table(0x1000, 4096, &many[1..]).is_ok());
    }
}
