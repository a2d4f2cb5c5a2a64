//! What the device shows in configuration space.

use palisade_pci::capability::{
    BarOffset, MsixLayout, PasidPermissions, ats, msix, pasid, pri, root_complex_endpoint,
};
use palisade_pci::{Bar, BarSpec, ConfigError, ConfigSpace, Identity};

use crate::registers::{BAR_BYTES, PENDING, VECTOR};

/// A vendor that does not exist.
pub const VENDOR_ID: u16 = 0x1234;
/// One of its devices.
pub const DEVICE_ID: u16 = 0xed01;

pub(crate) fn config_space() -> Result<ConfigSpace, ConfigError> {
    let in_bar = |offset_bytes| BarOffset {
        bar: Bar::Bar0,
        offset_bytes,
    };
    ConfigSpace::builder(Identity {
        vendor: VENDOR_ID,
        device: DEVICE_ID,
        revision: 0,
        class: 0xff_00_00,
        subsystem_vendor: VENDOR_ID,
        subsystem: 0,
    })
    .bar(Bar::Bar0, BarSpec::memory32(BAR_BYTES))
    .capability(root_complex_endpoint())
    .capability(msix(MsixLayout {
        vectors: 1,
        table: in_bar(VECTOR),
        pending: in_bar(PENDING),
    }))
    .extended_capability(pasid(PasidPermissions::empty()))
    .extended_capability(ats())
    .extended_capability(pri(1))
    .build()
}
