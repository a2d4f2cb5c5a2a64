//! What the platform can do, and the choice of nesting.

use palisade_container::Capability;
use palisade_vfio::Nesting;
use palisade_vfio::abi::EXTENSIONS;
use safer_ffi::prelude::*;

use crate::client::{Client, with};
use crate::error::{Failure, call, needed};

/// `palisade_set_nesting`: PASIDs cannot be asked for.
#[ffi_export]
pub const PALISADE_NESTING_OFF: u32 = 0;
/// `palisade_set_nesting`: PASIDs may be asked for and bound.
#[ffi_export]
pub const PALISADE_NESTING_ON: u32 = 1;

/// What a platform tells of itself.
#[derive_ReprC(rename = "palisade_info")]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// The sizes of pages that memory may be mapped in, or'ed together.
    pub page_sizes: u64,
    /// Version 7: CAP_REG of the guest's IOMMU unit.
    pub cap: u64,
    /// Version 7: ECAP_REG.
    pub ecap: u64,
    /// Which capability of nesting there is: `PALISADE_ABI_V1`, `PALISADE_ABI_V7`, or 0 without nesting. What the other
    /// version alone tells is 0.
    pub capability: u32,
    /// Version 1: 1 where PASIDs may be asked for.
    pub nesting: u32,
    /// Version 1: first stages, bit 0 for VT-d's. Version 7: the one, 1 for VT-d's.
    pub formats: u32,
    /// Version 7: bit 0, PASIDs have to be asked for; bit 1, page tables may be bound; bit 2, caches may be invalidated.
    pub features: u32,
    /// Version 7: how many bits of an address a first stage translates.
    pub address_bits: u32,
    /// Version 7: how many bits a PASID has.
    pub pasid_bits: u32,
}

/// What VFIO_CHECK_EXTENSION says of an extension, by its number: 0 in `*value` where it is not there. EINVAL.
#[ffi_export]
pub fn palisade_check_extension(
    client: Option<&Client>,
    extension: u32,
    value: Option<Out<'_, i32>>,
) -> i32 {
    call(|| {
        let value = needed(value, "where the value goes")?;
        let known = EXTENSIONS.iter().find(|(number, ..)| *number == extension);
        let told = with(client, |client| match known {
            Some((_, extension, _)) => client.check_extension(*extension),
            None => Ok(0),
        });
        value.write(told?);
        Ok(0)
    })
}

/// Chooses nesting, `PALISADE_NESTING_ON`, or not, once for a connection. EINVAL the second time.
#[ffi_export]
pub fn palisade_set_nesting(client: Option<&Client>, nesting: u32) -> i32 {
    call(|| {
        let nesting = match nesting {
            PALISADE_NESTING_OFF => Nesting::Off,
            PALISADE_NESTING_ON => Nesting::On,
            other => return Err(Failure::invalid(format!("there is no nesting {other}"))),
        };
        with(client, |client| client.set_nesting(nesting))?;
        Ok(0)
    })
}

/// Tells what the platform can do. EINVAL.
#[ffi_export]
pub fn palisade_get_info(client: Option<&Client>, info: Option<Out<'_, Info>>) -> i32 {
    call(|| {
        let info = needed(info, "where the information goes")?;
        let told = with(client, |client| client.info())?;
        let capability = match told.capability {
            None => Info::default(),
            Some(Capability::V1 { nesting, formats }) => Info {
                capability: 1,
                nesting,
                formats,
                ..Info::default()
            },
            Some(Capability::V7 {
                format,
                features,
                address_bits,
                pasid_bits,
                cap,
                ecap,
            }) => Info {
                capability: 7,
                formats: format,
                features,
                address_bits: address_bits.into(),
                pasid_bits: pasid_bits.into(),
                cap,
                ecap,
                ..Info::default()
            },
        };
        info.write(Info {
            page_sizes: told.page_sizes,
            ..capability
        });
        Ok(0)
    })
}
