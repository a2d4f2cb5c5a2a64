//! Calls of a VMM, made from an input: mostly plausible, so that they lead somewhere.

use std::os::fd::OwnedFd;

use arbitrary::{Result, Unstructured};
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

/// A call of one of the proposals.
pub(crate) fn of_proposals(world: &World, input: &mut Unstructured<'_>) -> Result<Call> {
    let request = *input.choose(Request::ALL)?;
    let argument = match request {
        // The choice of nesting, without which nothing is had.
        Request::SetIommu if input.ratio(3, 4)? => 6_u32.to_le_bytes().to_vec(),
        Request::FunctionAttach | Request::FunctionDetach if input.ratio(3, 4)? => {
            words([12, 0, OFFERED_SLOT.requester_id().into()])
        }
        Request::MapDma if input.ratio(3, 4)? => {
            let mut argument = words([32, input.int_in_range(1..=3)?]);
            argument.extend(quads([0, page(input)?, MEMORY_BYTES / 2]));
            argument
        }
        Request::FaultRing if input.ratio(3, 4)? => words([16, 0, 0, 0]),
        Request::Bind | Request::NestingOp if input.ratio(3, 4)? => {
            let mut argument = words([80, u32::from(request == Request::Bind), 1, 1]);
            let pasid = pasid(input)?.into();
            let named = input.int_in_range(0..=1_u64)?;
            argument.extend(quads([named, page(input)?, pasid, pasid ^ 1, 48, 0, 0, 0]));
            argument
        }
        _ => anything(input)?,
    };
    Ok(Call {
        on: On::Iommufd,
        number: number(request.number(), input)?,
        argument: changed(argument, input)?,
        descriptors: descriptors(world, request.descriptors(), input)?,
    })
}

/// A call to an iommufd or a device of it.
pub(crate) fn of_iommufd(world: &World, input: &mut Unstructured<'_>) -> Result<Call> {
    let request = *input.choose(IommufdRequest::ALL)?;
    let argument = if input.ratio(3, 4)? {
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

fn plausible(request: IommufdRequest, input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    use IommufdRequest as R;
    const VTD: u32 = 0x8000_0001;
    let place = u32::from(OFFERED_SLOT.requester_id());
    Ok(match request {
        R::Destroy => words([8, id(input)?]),
        R::IoasAlloc => words([12, 0, 0]),
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
