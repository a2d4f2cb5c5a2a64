//! GET_INFO with its chain of capabilities, and CHECK_EXTENSION.

use palisade_units::PAGE_BYTES;
use zerocopy::{FromBytes, IntoBytes};

use super::argument::Argument;
use super::layout::{
    CAPABILITY_V1, CAPABILITY_V7, CAPABILITY_VERSION, FEATURE_BIND, FEATURE_INVALIDATE,
    FEATURE_SYSTEM_WIDE_PASID, INFO_CAPABILITIES, INFO_PAGE_SIZES, Info, NestingCapabilityV1,
    NestingCapabilityV7, V1_PASID_REQUESTS, V1_STAGE1_VTD,
};
use super::{AbiError, Answer, Nested, Session};
use crate::{Abi, Nesting};

/// GET_INFO goes back at least to here; what stands behind is written where there is room.
const SHORTEST: usize = 16;
/// Up to the offset of the capabilities.
const WITH_OFFSET: usize = 20;
/// All of it but the capabilities.
const WITH_PADDING: usize = size_of::<Info>();

/// The argument of SET_IOMMU and CHECK_EXTENSION: a number, which is all of it.
pub(super) fn number(argument: &[u8]) -> Result<u32, AbiError> {
    let number = zerocopy::little_endian::U32::read_from_prefix(argument);
    number.map_or(Err(AbiError::Missing), |(number, _)| Ok(number.get()))
}

/// What CHECK_EXTENSION knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Memory is mapped by address, as of version 1 of type 1.
    Type1,
    /// The same, with unmapping by whole ranges.
    Type1V2,
    /// Translation of a guest's first stages.
    Nesting,
    /// The bind data is there, in this version of it. Version 7 knows it by its capability instead.
    NestingUapi,
}

/// The extensions, by their numbers, each with what CHECK_EXTENSION returns for it.
pub const EXTENSIONS: &[(u32, Extension, i32)] = &[
    (1, Extension::Type1, 1),
    (3, Extension::Type1V2, 1),
    (6, Extension::Nesting, 1),
    (9, Extension::NestingUapi, 1),
];

pub(super) fn check_extension(session: &Session, argument: &[u8]) -> Result<Answer, AbiError> {
    let wanted = number(argument)?;
    let known = EXTENSIONS.iter().find(|(number, ..)| *number == wanted);
    let value = known.map_or(0, |(_, extension, value)| match extension {
        Extension::NestingUapi if session.abi() == Abi::V7 => 0,
        _ => *value,
    });
    Ok(Answer::value(value))
}

/// Chooses nesting or not, once: VFIO does not change a container's type under its functions.
pub(super) fn set_iommu(session: &Session, argument: &[u8]) -> Result<Answer, AbiError> {
    let wanted = number(argument)?;
    let known = EXTENSIONS.iter().find(|(number, ..)| *number == wanted);
    let nesting = match known {
        Some((_, Extension::Type1 | Extension::Type1V2, _)) => Nesting::Off,
        Some((_, Extension::Nesting, _)) => Nesting::On,
        _ => {
            return Err(AbiError::Value(
                "no way to translate memory has this number",
            ));
        }
    };
    session.choose(nesting)?;
    Ok(Answer::default())
}

pub(super) fn get_info(session: &Session, argument: Argument<'_>) -> Result<Answer, AbiError> {
    argument.read::<[u8; SHORTEST]>()?;
    let argsz = argument.argsz() as usize;
    let chain = match session.nesting() {
        Nesting::Off => Vec::new(),
        Nesting::On => capability(session.abi(), &session.nested()),
    };
    let whole = size_of::<Info>() + chain.len();
    let mut info = Info {
        argsz: argument.argsz().into(),
        flags: INFO_PAGE_SIZES.into(),
        iova_pgsizes: (!(PAGE_BYTES - 1)).into(),
        ..Info::default()
    };
    let has_room = argsz >= whole;
    if !chain.is_empty() {
        info.flags = (INFO_PAGE_SIZES | INFO_CAPABILITIES).into();
        if has_room {
            info.cap_offset = Info::ARGSZ.into();
        } else {
            // As everywhere in VFIO: the client asks again with this much room.
            info.argsz = u32::try_from(whole).unwrap_or(u32::MAX).into();
        }
    }
    let mut written = info.as_bytes().to_vec();
    if has_room {
        written.extend_from_slice(&chain);
    } else {
        let ends = [WITH_PADDING, WITH_OFFSET].into_iter();
        let fits = ends.filter(|end| *end <= argsz).max();
        written.truncate(fits.unwrap_or(SHORTEST));
    }
    Ok(Answer {
        written,
        ..Answer::default()
    })
}

/// The one capability, alone in its chain.
fn capability(abi: Abi, nested: &Nested) -> Vec<u8> {
    let when = |condition, bits| if condition { bits } else { 0 };
    match abi {
        Abi::V1 => NestingCapabilityV1 {
            id: CAPABILITY_V1.into(),
            version: CAPABILITY_VERSION.into(),
            next: 0.into(),
            nesting_capabilities: when(nested.has_pasids(), V1_PASID_REQUESTS).into(),
            stage1_formats: when(nested.has_format(), V1_STAGE1_VTD).into(),
        }
        .as_bytes()
        .to_vec(),
        Abi::V7 => {
            let of_pasids = FEATURE_SYSTEM_WIDE_PASID | FEATURE_BIND;
            let features = when(nested.has_pasids(), of_pasids)
                | when(nested.has_format(), FEATURE_INVALIDATE);
            let size = NestingCapabilityV7::ARGSZ - CAPABILITY_HEADER_BYTES;
            NestingCapabilityV7 {
                id: CAPABILITY_V7.into(),
                version: CAPABILITY_VERSION.into(),
                size: size.into(),
                format: nested.format.into(),
                features: features.into(),
                addr_width: nested.address_bits.into(),
                pasid_bits: nested.pasid_bits.into(),
                vtd_cap: nested.cap.into(),
                vtd_ecap: nested.ecap.into(),
                ..NestingCapabilityV7::default()
            }
            .as_bytes()
            .to_vec()
        }
    }
}

/// What stands before the nesting information: id, version, next.
const CAPABILITY_HEADER_BYTES: u32 = 8;
