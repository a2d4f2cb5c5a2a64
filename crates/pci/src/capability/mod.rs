//! Capabilities, ready-made and of one's own.
//!
//! A capability is its id, its length and its fields, with offsets counted from the capability's own start.
//! [`crate::ConfigSpaceBuilder`] places them and links the lists.

mod express;
mod msix;
mod sva;

pub use express::root_complex_endpoint;
pub use msix::{BarOffset, MsixLayout, msix};
pub use sva::{PASID_WIDTH, PasidPermissions, ats, pasid, pri};

pub(crate) use express::{DEVICE_CONTROL, INITIATE_RESET};
pub(crate) use sva::{CONTROL, PRI_STATUS};

use crate::Field;

/// Ids of capabilities (PCI Code and ID Assignment, 2).
pub mod id {
    /// PCI Express.
    pub const EXPRESS: u8 = 0x10;
    /// MSI-X.
    pub const MSIX: u8 = 0x11;
}

/// Ids of extended capabilities (PCI Code and ID Assignment, 3).
pub mod extended_id {
    /// Address Translation Services.
    pub const ATS: u16 = 0x0f;
    /// Page Request Interface.
    pub const PRI: u16 = 0x13;
    /// Process Address Space ID.
    pub const PASID: u16 = 0x1b;
}

/// A capability of the list that starts in the header (PCIe 7.5.1.1.11).
#[derive(Clone, Debug)]
pub struct Capability {
    pub(crate) id: u8,
    pub(crate) len_bytes: u16,
    pub(crate) fields: Vec<Field>,
}

impl Capability {
    /// A capability of `len_bytes` bytes, its two header bytes included; the fields start at offset 2.
    #[must_use]
    pub fn new(id: u8, len_bytes: u16, fields: Vec<Field>) -> Self {
        Self {
            id,
            len_bytes,
            fields,
        }
    }
}

/// A capability of the list that starts at 0x100 (PCIe 7.6.3).
#[derive(Clone, Debug)]
pub struct ExtendedCapability {
    pub(crate) id: u16,
    pub(crate) version: u8,
    pub(crate) len_bytes: u16,
    pub(crate) fields: Vec<Field>,
}

impl ExtendedCapability {
    /// A capability of `len_bytes` bytes, its four header bytes included; the fields start at offset 4.
    /// `version` has four bits.
    #[must_use]
    pub fn new(id: u16, version: u8, len_bytes: u16, fields: Vec<Field>) -> Self {
        Self {
            id,
            version: version & 0xf,
            len_bytes,
            fields,
        }
    }
}
