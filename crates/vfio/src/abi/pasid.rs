//! PASID_REQUEST in both its forms.

use palisade_ioasid::PasidRange;
use palisade_units::HostPasid;

use super::argument::Argument;
use super::layout::{PASID_ALLOCATE, PASID_FREE, PasidAllocateV1, PasidFreeV1, PasidRequestV7};
use super::{AbiError, Answer, Session};

/// A PASID that can be given out, from a field of any width.
pub(super) fn pasid(raw: u64) -> Result<HostPasid, AbiError> {
    let in_range = u32::try_from(raw).ok().filter(|raw| *raw != 0);
    let pasid = in_range.and_then(|raw| HostPasid::new(raw).ok());
    pasid.ok_or(AbiError::Value("PASIDs go from 1 to 2^20 - 1"))
}

/// The number is written back, and the call returns 0.
pub(super) fn request_v1(session: &Session, argument: Argument<'_>) -> Result<Answer, AbiError> {
    match argument.flags()? {
        PASID_ALLOCATE => {
            let mut request: PasidAllocateV1 = argument.read()?;
            let range = PasidRange {
                min: request.min.get(),
                max: request.max.get(),
            };
            let taken = session.pasid_requests().alloc(range)?;
            request.result = taken.get().into();
            Ok(Answer::written(&request))
        }
        PASID_FREE => {
            let request: PasidFreeV1 = argument.read()?;
            let freed = pasid(request.free_pasid.get().into())?;
            session.pasid_requests().free_one(freed)?;
            Ok(Answer::default())
        }
        flags => Err(AbiError::Flags(flags.into())),
    }
}

/// The number is what the call returns.
pub(super) fn request_v7(session: &Session, argument: Argument<'_>) -> Result<Answer, AbiError> {
    let request: PasidRequestV7 = argument.read()?;
    let range = PasidRange {
        min: request.min.get(),
        max: request.max.get(),
    };
    match request.flags.get() {
        PASID_ALLOCATE => {
            let taken = session.pasid_requests().alloc(range)?;
            // PASIDs have 20 bits.
            Ok(Answer::value(taken.get().cast_signed()))
        }
        PASID_FREE => {
            session.pasid_requests().free(range)?;
            Ok(Answer::default())
        }
        flags => Err(AbiError::Flags(flags.into())),
    }
}
