//! The requests of the proposed `/dev/ioasid`: PASIDs for who does not ask through VFIO, or before it does.
//!
//! They are charged and named as all of the VMM's, so that they can be bound. Neither nesting nor a function is
//! needed, as they grant nothing by themselves (R4).

use palisade_ioasid::PasidRange;
use palisade_units::PASID_BITS;

use super::argument::Argument;
use super::layout::{IoasidAllocate, IoasidInfo};
use super::pasid::pasid;
use super::{AbiError, Answer, Session, info};

pub(super) fn get_info(argument: Argument<'_>) -> Result<Answer, AbiError> {
    let mut told: IoasidInfo = argument.read()?;
    told.flags = 0.into();
    told.ioasid_bits = PASID_BITS.into();
    Ok(Answer::written(&told))
}

pub(super) fn allocate(session: &Session, argument: Argument<'_>) -> Result<Answer, AbiError> {
    let request: IoasidAllocate = argument.read()?;
    if request.flags.get() != 0 {
        return Err(AbiError::Flags(request.flags.get().into()));
    }
    let range = PasidRange {
        min: request.min.get(),
        max: request.max.get(),
    };
    let taken = session.container().alloc_pasid(range)?;
    // PASIDs have 20 bits.
    Ok(Answer::value(taken.get().cast_signed()))
}

/// The argument is the number alone.
pub(super) fn free(session: &Session, argument: &[u8]) -> Result<Answer, AbiError> {
    let freed = pasid(info::number(argument)?.into())?;
    session.container().free_pasid(freed)?;
    Ok(Answer::default())
}
