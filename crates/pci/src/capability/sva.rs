//! The three extended capabilities that shared virtual addressing needs.

use crate::{
    Field,
    capability::{ExtendedCapability, extended_id},
};

/// The width of the PASIDs that [`pasid`] offers: all that the bus has.
pub const PASID_WIDTH: u16 = 20;

/// The control register of PASID and ATS, from the capability's start.
pub(crate) const CONTROL: u16 = 0x06;
/// The status register of PRI, from the capability's start.
pub(crate) const PRI_STATUS: u16 = 0x06;

bitflags::bitflags! {
    /// What requests with a PASID may ask for beyond reading and writing (PCIe 7.8.8.2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PasidPermissions: u16 {
        /// Execute permission.
        const EXECUTE = 1 << 1;
        /// Privileged mode.
        const PRIVILEGED = 1 << 2;
    }
}

/// PASID, 20 bits wide (PCIe 7.8.8). Its enable bits can be set for what is supported, and no more.
#[must_use]
pub fn pasid(permissions: PasidPermissions) -> ExtendedCapability {
    const ENABLE: u32 = 1;
    ExtendedCapability::new(
        extended_id::PASID,
        1,
        8,
        vec![
            Field::word(0x04, permissions.bits() | (PASID_WIDTH << 8)),
            Field::word(CONTROL, 0).writable(ENABLE | u32::from(permissions.bits())),
        ],
    )
}

/// ATS with page-aligned requests and an invalidation queue of the greatest depth (PCIe 7.8.9, 10.5.1).
#[must_use]
pub fn ats() -> ExtendedCapability {
    const PAGE_ALIGNED_REQUEST: u16 = 1 << 5;
    const SMALLEST_UNIT: u32 = 0x1f;
    const ENABLE: u32 = 1 << 15;
    ExtendedCapability::new(
        extended_id::ATS,
        1,
        8,
        vec![
            Field::word(0x04, PAGE_ALIGNED_REQUEST),
            Field::word(CONTROL, 0).writable(ENABLE | SMALLEST_UNIT),
        ],
    )
}

/// PRI whose responses carry a PASID, for at most `capacity` outstanding requests (PCIe 10.5.2).
#[must_use]
pub fn pri(capacity: u32) -> ExtendedCapability {
    const ENABLE: u32 = 1;
    const PROBLEMS: u32 = 0b11;
    const STOPPED: u16 = 1 << 8;
    const RESPONSE_NEEDS_PASID: u16 = 1 << 15;
    ExtendedCapability::new(
        extended_id::PRI,
        1,
        16,
        vec![
            // Bit 1, reset, is an action and reads as zero.
            Field::word(0x04, 0).writable(ENABLE),
            Field::word(PRI_STATUS, STOPPED | RESPONSE_NEEDS_PASID).write_one_clears(PROBLEMS),
            Field::dword(0x08, capacity),
            Field::dword(0x0c, 0).writable(u32::MAX),
        ],
    )
}
