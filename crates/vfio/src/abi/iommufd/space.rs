//! IOMMU_IOAS_ALLOC, IOMMU_IOAS_MAP_FILE and IOMMU_IOAS_UNMAP.

use std::os::fd::OwnedFd;

use palisade_memory::{Backing, GuestMemory, Protection};
use palisade_units::Gpa;

use super::argument::{Message, known_flags};
use super::layout::{
    IOAS_MAP_FIXED_IOVA, IOAS_MAP_READABLE, IOAS_MAP_WRITEABLE, IoasAlloc, IoasMapFile, IoasUnmap,
};
use super::objects::Object;
use super::{Iommufd, IommufdError, ObjectId};
use crate::abi::Answer;

pub(super) fn alloc(session: &Iommufd, message: Message<'_>) -> Result<Answer, IommufdError> {
    let mut request: IoasAlloc = message.read()?;
    known_flags(request.flags.get(), 0)?;
    let memory = GuestMemory::with_limits(session.vmm().limits);
    let id = session.objects().add(Object::Space(memory))?;
    request.out_ioas_id = id.get().into();
    Ok(message.written(&request))
}

pub(super) fn map(
    session: &Iommufd,
    message: Message<'_>,
    descriptors: Vec<OwnedFd>,
) -> Result<Answer, IommufdError> {
    let request: IoasMapFile = message.read()?;
    let flags = request.flags.get();
    let access = IOAS_MAP_READABLE | IOAS_MAP_WRITEABLE;
    known_flags(flags, IOAS_MAP_FIXED_IOVA | access)?;
    if flags & IOAS_MAP_FIXED_IOVA == 0 {
        return Err(IommufdError::NotOffered("choosing an address"));
    }
    let protection = match flags & access {
        IOAS_MAP_READABLE => Protection::ReadOnly,
        IOAS_MAP_WRITEABLE => {
            return Err(IommufdError::NotOffered("memory that may only be written"));
        }
        0 => return Err(IommufdError::Value("memory is readable at least")),
        _ => Protection::ReadWrite,
    };
    let [file] = <[OwnedFd; 1]>::try_from(descriptors).map_err(|_| IommufdError::NoFile)?;
    if request.fd.get() != 0 {
        return Err(IommufdError::NoFile);
    }
    let (at, len_bytes) = (request.iova.get(), request.length.get());
    at.checked_add(len_bytes).ok_or(IommufdError::Overflow)?;
    let objects = session.objects();
    let memory = objects.space(ObjectId::new(request.ioas_id.get()))?;
    let backing = Backing::new(file, request.start.get());
    memory.map(Gpa::new(at), len_bytes, backing, protection)?;
    Ok(Answer::default())
}

/// When this returns, no access of a device reaches the memory, by whatever table (R44).
pub(super) fn unmap(session: &Iommufd, message: Message<'_>) -> Result<Answer, IommufdError> {
    let mut request: IoasUnmap = message.read()?;
    let (at, len_bytes) = (request.iova.get(), request.length.get());
    let objects = session.objects();
    let memory = objects.space(ObjectId::new(request.ioas_id.get()))?;
    if (at, len_bytes) == (0, u64::MAX) {
        request.length = memory.snapshot().len_bytes().into();
        memory.unmap_all();
    } else {
        at.checked_add(len_bytes).ok_or(IommufdError::Overflow)?;
        memory.unmap(Gpa::new(at), len_bytes)?;
    }
    for (_, device) in objects.devices() {
        device.attachment.forget();
    }
    Ok(message.written(&request))
}
