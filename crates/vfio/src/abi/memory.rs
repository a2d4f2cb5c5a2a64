//! MAP_DMA and UNMAP_DMA: the memory that a client's own functions reach.

use std::os::fd::OwnedFd;

use palisade_memory::{Backing, Protection};
use palisade_units::Gpa;

use super::argument::Argument;
use super::layout::{MAP_READ, MAP_WRITE, MapDma, UNMAP_ALL, UnmapDma};
use super::{AbiError, Answer, Session};

/// Writing without reading is what pages cannot do.
const MAP_READ_WRITE: u32 = MAP_READ | MAP_WRITE;

pub(super) fn map(
    session: &Session,
    argument: Argument<'_>,
    file: OwnedFd,
) -> Result<Answer, AbiError> {
    let request: MapDma = argument.read()?;
    let protection = match request.flags.get() {
        MAP_READ => Protection::ReadOnly,
        MAP_READ_WRITE => Protection::ReadWrite,
        MAP_WRITE => return Err(AbiError::NotOffered("memory that may only be written")),
        flags => return Err(AbiError::Flags(flags.into())),
    };
    let backing = Backing::new(file, request.vaddr.get());
    let (at, len_bytes) = (Gpa::new(request.iova.get()), request.size.get());
    session
        .vmm()
        .memory
        .map(at, len_bytes, backing, protection)?;
    Ok(Answer::default())
}

/// When this returns, no access of a function reaches the memory, by whatever translation (R44).
pub(super) fn unmap(session: &Session, argument: Argument<'_>) -> Result<Answer, AbiError> {
    let mut request: UnmapDma = argument.read()?;
    let (at, len_bytes) = (request.iova.get(), request.size.get());
    let memory = &session.vmm().memory;
    match request.flags.get() {
        0 => memory.unmap(Gpa::new(at), len_bytes)?,
        UNMAP_ALL if (at, len_bytes) == (0, 0) => {
            request.size = memory.snapshot().len_bytes().into();
            memory.unmap_all();
        }
        UNMAP_ALL => return Err(AbiError::Value("all memory has neither start nor length")),
        flags => return Err(AbiError::Flags(flags.into())),
    }
    session.vmm().forget();
    Ok(Answer::written(&request))
}
