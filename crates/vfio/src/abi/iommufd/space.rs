//! IOMMU_IOAS_ALLOC, IOMMU_IOAS_IOVA_RANGES, IOMMU_IOAS_MAP_FILE and IOMMU_IOAS_UNMAP.

use std::os::fd::OwnedFd;

use palisade_memory::{Backing, GuestMemory, Protection};
use palisade_units::{Gpa, PAGE_BYTES};
use zerocopy::IntoBytes;

use super::argument::{Message, known_flags, reserved};
use super::layout::{
    IOAS_MAP_FIXED_IOVA, IOAS_MAP_READABLE, IOAS_MAP_WRITEABLE, IoasAlloc, IoasIovaRanges,
    IoasMapFile, IoasUnmap, IovaRange,
};
use super::objects::Object;
use super::{Iommufd, IommufdError, ObjectId};
use crate::abi::Answer;

pub(super) fn alloc(session: &Iommufd, message: Message<'_>) -> Result<Answer, IommufdError> {
    let mut request: IoasAlloc = message.read()?;
    known_flags(request.flags.get(), 0)?;
    let vmm = session.vmm();
    let memory = GuestMemory::within(vmm.limits, &vmm.spaces);
    let id = session.objects().add(Object::Space(memory))?;
    request.out_ioas_id = id.get().into();
    Ok(message.written(&request))
}

/// Where memory may be mapped: below 2^52, but for the addresses of interrupts (VT-d §3.14).
const RANGES: [(u64, u64); 2] = [(0, 0xfedf_ffff), (0xfef0_0000, (1 << 52) - 1)];

/// How many ranges there are is told also where there is no room for them.
pub(super) fn ranges(
    session: &Iommufd,
    message: Message<'_>,
    written: &mut Vec<u8>,
) -> Result<Answer, IommufdError> {
    let mut request: IoasIovaRanges = message.read()?;
    reserved(request.reserved.get())?;
    let objects = session.objects();
    objects.space(ObjectId::new(request.ioas_id.get()))?;
    let range = |(start, last): (u64, u64)| IovaRange {
        start: start.into(),
        last: last.into(),
    };
    let told = RANGES.map(range);
    let (at, room) = (request.allowed_iovas.get(), request.num_iovas.get());
    let needed = u32::try_from(told.len()).unwrap_or(u32::MAX);
    request.num_iovas = needed.into();
    request.out_iova_alignment = PAGE_BYTES.into();
    if room < needed {
        written.clone_from(&message.written(&request).written);
        return Err(IommufdError::NoRoom);
    }
    let len_bytes = u64::from(needed) * u64::from(IovaRange::ARGSZ);
    message.written_with(&request, (at, len_bytes), told.as_bytes())
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
    let end = at.checked_add(len_bytes).ok_or(IommufdError::Overflow)?;
    let is_within = |(start, last): &(u64, u64)| *start <= at && end <= last + 1;
    if !RANGES.iter().any(is_within) {
        return Err(IommufdError::Value("no memory may be mapped there"));
    }
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
        let before_last = len_bytes.checked_sub(1);
        let before_last = before_last.ok_or(IommufdError::Value("the range is empty"))?;
        at.checked_add(before_last).ok_or(IommufdError::Overflow)?;
        request.length = memory.unmap_all_in(Gpa::new(at), len_bytes)?.into();
    }
    for (_, device) in objects.devices() {
        device.right.forget();
    }
    Ok(message.written(&request))
}
