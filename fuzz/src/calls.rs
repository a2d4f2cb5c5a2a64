//! Calls of a VMM, made from an input: mostly plausible, so that they lead somewhere.

use std::os::fd::OwnedFd;

use arbitrary::{Result, Unstructured};
use palisade_vfio::Abi;
use palisade_vfio::abi::iommufd::{Family, IommufdRequest, On};
use palisade_vfio::abi::{Number, Request};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::world::{MEMORY_BYTES, OFFERED_SLOT, SLOT, World};

/// No message of the container socket carries more.
const MOST_BYTES: usize = 4080;

/// A call, with the file that it is made on.
pub(crate) struct Call {
    pub(crate) on: On,
    pub(crate) number: Number,
    pub(crate) argument: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// How many steps there are to begin with.
const OPENING: usize = 7;

/// How many of these steps a client makes in their order, before it does what it likes.
pub(crate) fn opening(input: &mut Unstructured<'_>) -> Result<usize> {
    if input.ratio(7, 8)? {
        Ok(OPENING)
    } else {
        input.int_in_range(0..=OPENING)
    }
}

/// A call of one of the proposals.
pub(crate) fn of_proposals(world: &World, abi: Abi, input: &mut Unstructured<'_>) -> Result<Call> {
    let request = *input.choose(Request::ALL)?;
    let other = request.only_in().is_some_and(|only| only != abi);
    let request = if rarely(request) || other {
        *input.choose(Request::ALL)?
    } else {
        request
    };
    let argument = if input.ratio(7, 8)? {
        plausible_of_proposals(request, input)?
    } else {
        anything(input)?
    };
    Ok(Call {
        on: On::Iommufd,
        number: number(request.number(), input)?,
        argument: changed(argument, input)?,
        descriptors: descriptors(world, request.descriptors(), input)?,
    })
}

/// What only tells, or undoes much.
fn rarely(request: Request) -> bool {
    use Request as R;
    matches!(
        request,
        R::GetApiVersion
            | R::CheckExtension
            | R::GetInfo
            | R::FunctionList
            | R::FunctionDetach
            | R::IoasidGetApiVersion
            | R::IoasidGetInfo
    )
}

fn plausible_of_proposals(request: Request, input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    use Request as R;
    let place = u32::from(OFFERED_SLOT.requester_id());
    Ok(match request {
        R::GetApiVersion | R::IoasidGetApiVersion => Vec::new(),
        // The choice of nesting, without which nothing is had.
        R::SetIommu => 6_u32.to_le_bytes().to_vec(),
        R::CheckExtension | R::IoasidFree => pasid(input)?.to_le_bytes().to_vec(),
        R::GetInfo | R::FunctionList => words([input.int_in_range(12..=200)?, 0, 0, 0, 0, 0]),
        R::IoasidGetInfo => words([12, 0, 0]),
        R::FunctionAttach | R::FunctionDetach => words([12, 0, place]),
        R::MapDma => {
            let head = words([32, input.int_in_range(1..=3)?]);
            [head, quads([0, page(input)?, MEMORY_BYTES / 2])].concat()
        }
        R::UnmapDma if input.arbitrary()? => [words([24, 2]), quads([0, 0])].concat(),
        R::UnmapDma => [words([24, 0]), quads([page(input)?, MEMORY_BYTES / 2])].concat(),
        R::FaultRing => words([16, 0, 0, 0]),
        R::PasidRequestV7 | R::PasidRequestV1 | R::IoasidAllocate => {
            let flags = match request {
                R::IoasidAllocate => 0,
                _ => input.int_in_range(1..=2)?,
            };
            let size = if request == R::PasidRequestV1 { 20 } else { 16 };
            let min = pasid(input)?;
            words([size, flags, min, input.int_in_range(min..=40)?, 0])
        }
        R::CacheInvalidate => {
            let mut argument = words([56, 0]);
            argument.extend(invalidation(1, input)?);
            argument
        }
        R::NestingOp if input.ratio(1, 3)? => {
            let mut argument = words([56, 2]);
            argument.extend(invalidation(48, input)?);
            argument
        }
        R::Bind | R::NestingOp => {
            let bind = u32::from(request == R::Bind);
            let operation = bind + input.int_in_range(0..=1)?;
            let pasid = pasid(input)?.into();
            let named = input.int_in_range(0..=1_u64)?;
            let table = [named, page(input)?, pasid, pasid ^ 1, 48, 0, 0, 0];
            [words([80, operation, 1, 1]), quads(table)].concat()
        }
        R::PageResponse => {
            let key = input.int_in_range(0..=1)?;
            let group = input.int_in_range(0..=4)?;
            let code = input.int_in_range(0..=2)?;
            words([32, 0, place, 1, key, pasid(input)?, group, code])
        }
    })
}

/// The data of an invalidation, whose first word is its version or its size.
fn invalidation(first: u32, input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let granularity = input.int_in_range(0..=2)?;
    let head = [input.int_in_range(0..=7)?, granularity, 0, 0];
    let pasid = pasid(input)?.into();
    let flags = *input.choose(&[1, 5])?;
    let flags = if granularity == 1 { 1 } else { flags };
    let form = quads([flags, pasid, page(input)?, 4096, input.int_in_range(0..=9)?]);
    Ok([words([first]), head.to_vec(), form].concat())
}

/// A call that a VMM begins with; `None` after the last.
pub(crate) fn first_of_proposals(world: &World, abi: Abi, step: usize) -> Option<Call> {
    let place = u32::from(OFFERED_SLOT.requester_id());
    let ram = || world.shared.backing().fd.try_clone().expect("descriptors");
    let take = match abi {
        Abi::V1 => (Request::PasidRequestV1, words([20, 1, 1, 40, 0])),
        Abi::V7 => (Request::PasidRequestV7, words([16, 1, 1, 40])),
    };
    let (request, argument) = match step {
        0 => (Request::SetIommu, 6_u32.to_le_bytes().to_vec()),
        1 => {
            let range = quads([0, 0, MEMORY_BYTES / 2]);
            (Request::MapDma, [words([32, 3]), range].concat())
        }
        2 => (Request::FunctionAttach, words([12, 0, place])),
        3..OPENING => take,
        _ => return None,
    };
    let descriptors = match request {
        Request::MapDma => vec![ram()],
        _ => Vec::new(),
    };
    Some(Call {
        on: On::Iommufd,
        number: request.number(),
        argument,
        descriptors,
    })
}

/// A call to an iommufd or a device of it.
pub(crate) fn of_iommufd(world: &World, input: &mut Unstructured<'_>) -> Result<Call> {
    use IommufdRequest as R;
    let mut request = *input.choose(R::ALL)?;
    if matches!(request, R::Destroy | R::DeviceClose | R::FunctionList) {
        request = *input.choose(R::ALL)?;
    }
    let argument = if input.ratio(7, 8)? {
        plausible(request, input)?
    } else {
        anything(input)?
    };
    let on = match (request.family(), input.int_in_range(0..=15)?) {
        (_, 0) => On::Device(SLOT),
        (Family::Device, _) | (_, 1) => On::Device(OFFERED_SLOT),
        _ => On::Iommufd,
    };
    Ok(Call {
        on,
        number: number(request.number(), input)?,
        argument: changed(argument, input)?,
        descriptors: descriptors(world, request.descriptors(), input)?,
    })
}

/// A call that a VMM begins with: its device is 1, its space 2, a parent 3, a queue 4, a nested table 5. `None` after
/// the last.
pub(crate) fn first_of_iommufd(world: &World, step: usize) -> Option<Call> {
    use IommufdRequest as R;
    let (request, argument) = match step {
        0 => (R::DeviceBind, words([16, 0, 0, 0])),
        1 => (R::IoasAlloc, words([12, 0, 0])),
        2 => {
            let range = quads([0, MEMORY_BYTES / 2, 0]);
            (R::IoasMapFile, [words([40, 7, 2, 0]), range].concat())
        }
        3 => (R::HwptAlloc, words([24, 9, 1, 2, 0, 0])),
        4 => (R::FaultQueueAlloc, words([16, 0, 0, 0])),
        5 => {
            let head = words([48, 12, 1, 3, 0, 0, 1, 24, 48, 0, 4, 0]);
            (R::HwptAlloc, [head, quads([0, 0, 48])].concat())
        }
        6 => (R::DeviceAttach, words([16, 1, 5, 1])),
        _ => return None,
    };
    let ram = || world.shared.backing().fd.try_clone().expect("descriptors");
    Some(Call {
        on: match request.family() {
            Family::Iommufd => On::Iommufd,
            Family::Device => On::Device(OFFERED_SLOT),
        },
        number: request.number(),
        argument,
        descriptors: (0..request.descriptors()).map(|_| ram()).collect(),
    })
}

fn plausible(request: IommufdRequest, input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    use IommufdRequest as R;
    const VTD: u32 = 0x8000_0001;
    let place = u32::from(OFFERED_SLOT.requester_id());
    Ok(match request {
        R::Destroy => words([8, id(input)?]),
        R::IoasAlloc => words([12, 0, 0]),
        R::IoasIovaRanges => words([32, id(input)?, input.int_in_range(0..=3)?, 0, 32, 0, 0, 0]),
        R::IoasUnmap => {
            let range = if input.arbitrary()? {
                [0, u64::MAX]
            } else {
                [page(input)?, MEMORY_BYTES / 2]
            };
            [words([24, id(input)?]), quads(range)].concat()
        }
        R::IoasMapFile => {
            let flags = *input.choose(&[5, 7])?;
            let head = words([40, flags, id(input)?, 0]);
            [head, quads([0, MEMORY_BYTES / 2, page(input)?])].concat()
        }
        R::HwptAlloc if input.arbitrary()? => {
            let flags = input.int_in_range(0..=15)?;
            let head = words([48, flags, id(input)?, id(input)?, 0, 0, 0, 0]);
            [head, quads([0, id(input)?.into()])].concat()
        }
        R::HwptAlloc => {
            let flags = input.int_in_range(0..=3_u32)? << 2;
            let head = words([48, flags, id(input)?, id(input)?, 0, 0, 1, 24]);
            let tail = quads([48, id(input)?.into()]);
            let stage = [input.int_in_range(0..=7)?, page(input)?, 48];
            [head, tail, quads(stage)].concat()
        }
        R::GetHwInfo => {
            let room = input.int_in_range(0..=64)?;
            words([40, 0, id(input)?, room, 40, 0, 0, 0, 0, 0])
        }
        R::HwptInvalidate => {
            let count = input.int_in_range(0..=4_u32)?;
            let mut argument = words([32, id(input)?, 32, 0, 0, 24, count, 0]);
            for _ in 0..count {
                let pages = input.int_in_range(0..=16)?;
                argument.extend(quads([page(input)?, pages, input.int_in_range(0..=1)?]));
            }
            argument
        }
        R::FaultQueueAlloc => words([16, 0, 0, 0]),
        R::ViommuAlloc => words([24, 0, VTD, id(input)?, id(input)?, 0]),
        R::VdeviceAlloc => words([24, id(input)?, id(input)?, 0, place, 0]),
        R::VeventqAlloc => words([32, 0, id(input)?, VTD, 8, 0, 0, 0]),
        R::FunctionList => words([200, 0, 0]),
        R::DeviceBind => words([16, 0, 0, 0]),
        R::DeviceAttach if input.arbitrary()? => words([12, 0, id(input)?]),
        R::DeviceAttach => words([16, 1, id(input)?, pasid(input)?]),
        R::DeviceDetach if input.arbitrary()? => words([8, 0]),
        R::DeviceDetach => words([12, 1, pasid(input)?]),
        R::DeviceClose => words([12, 0, place]),
    })
}

/// Its own size, and words that are mostly small.
fn anything(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let count = input.int_in_range(0..=24_u32)?;
    let mut argument = words([4 * count + 4]);
    for _ in 0..count {
        let word = match input.int_in_range(0..=3)? {
            0 => input.arbitrary()?,
            1 => u32::from(OFFERED_SLOT.requester_id()),
            _ => input.int_in_range(0..=8)?,
        };
        argument.extend(word.to_le_bytes());
    }
    Ok(argument)
}

/// Now and then a byte is another one, or the end is missing.
fn changed(mut argument: Vec<u8>, input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    match input.int_in_range(0..=15)? {
        0 => {
            let len = input.int_in_range(0..=argument.len())?;
            argument.truncate(len);
        }
        1 if !argument.is_empty() => {
            let at = input.choose_index(argument.len())?;
            argument[at] = input.arbitrary()?;
        }
        2 => {
            let len = input.int_in_range(0..=MOST_BYTES)?;
            argument.resize(len, 0);
        }
        _ => {}
    }
    Ok(argument)
}

fn number(number: Number, input: &mut Unstructured<'_>) -> Result<Number> {
    if input.ratio(1, 16)? {
        return Ok(Number::new(0x3b00 | u32::from(input.arbitrary::<u8>()?)));
    }
    Ok(number)
}

fn descriptors(world: &World, wanted: usize, input: &mut Unstructured<'_>) -> Result<Vec<OwnedFd>> {
    let count = match input.int_in_range(0..=15)? {
        0 => input.int_in_range(0..=4)?,
        _ => wanted,
    };
    let mut descriptors = Vec::new();
    for _ in 0..count {
        descriptors.push(match input.int_in_range(0..=3)? {
            0 => {
                let file = memfd_create("vmm", MemfdFlags::CLOEXEC).expect("memory");
                ftruncate(&file, input.int_in_range(0..=MEMORY_BYTES)?).expect("room");
                file
            }
            1 => eventfd(0, EventfdFlags::NONBLOCK).expect("descriptors"),
            _ => world.shared.backing().fd.try_clone().expect("descriptors"),
        });
    }
    Ok(descriptors)
}

/// Ids and the numbers of PASIDs are the lowest that are free.
fn id(input: &mut Unstructured<'_>) -> Result<u32> {
    input.int_in_range(0..=8)
}

pub(crate) fn pasid(input: &mut Unstructured<'_>) -> Result<u32> {
    input.int_in_range(0..=20)
}

fn page(input: &mut Unstructured<'_>) -> Result<u64> {
    Ok(input.int_in_range(0..=MEMORY_BYTES / 4096)? << 12)
}

pub(crate) fn words<const COUNT: usize>(words: [u32; COUNT]) -> Vec<u8> {
    words.map(u32::to_le_bytes).concat()
}

fn quads<const COUNT: usize>(quads: [u64; COUNT]) -> Vec<u8> {
    quads.map(u64::to_le_bytes).concat()
}
