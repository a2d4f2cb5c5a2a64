//! What a guest does to its accelerator: configuration, registers, portals, descriptors.

use arbitrary::Unstructured;
use palisade_dsa::spec::{Descriptor, Portal, portal_offset};
use palisade_iommu::{FirstStage, Levels, Space};
use palisade_mdev::{Assigned, SliceType};
use palisade_pci::Bar;
use palisade_units::Gpa;
use zerocopy::{FromBytes, IntoBytes};

use crate::driver::Driver;
use crate::unit::value;
use crate::world::{MEMORY_BYTES, World};

/// How many steps one input makes.
const STEPS: usize = 256;

/// A guest that uses a slice and a whole function, well or not.
pub(crate) fn accelerator(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let (world, kind) = World::of_any_kind(&mut input);
    // A process with a page table of one page that maps the memory to itself, by pages of 2 MiB.
    let (top, next, last) = (0xf_d000, 0xf_e000, 0xf_f000);
    for (at, entry) in [(top, next | 7), (next, last | 7), (last, 0x87)] {
        world.shared.store_u64(at, entry).expect("inside");
    }
    let space = Space::FirstStage(FirstStage::new(Gpa::new(top), Levels::Four));
    world.bind_both(space);
    if input.arbitrary().unwrap_or(false) {
        Driver::new(&world.slice).bring_up(kind);
        Driver::new(&world.whole).bring_up(SliceType::DedicatedQueue);
    }
    for _ in 0..STEPS {
        if step(&world, &mut input).is_err() {
            break;
        }
    }
    world.work();
    world.check();
    for function in [&world.slice, &world.whole] {
        function.function().reset();
    }
    world.work();
    world.check();
}

fn step(world: &World, input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    if input.is_empty() {
        return Err(arbitrary::Error::NotEnoughData);
    }
    let assigned: &Assigned = *input.choose(&[&world.slice, &world.whole])?;
    let function = assigned.function();
    match input.int_in_range(0..=6)? {
        0 => {
            let at = input.int_in_range(0..=1023_u16)? * 4;
            let bytes: [u8; 4] = input.arbitrary()?;
            function.config_write(at, &bytes);
        }
        1 | 2 => {
            let at = u64::from(input.int_in_range(0..=0x7ff_u16)?) * 4;
            let word = input.arbitrary::<u32>()?;
            // Refusals are answers, here and below.
            let _ = function.bar_write(Bar::Bar0, at, &word.to_le_bytes());
        }
        3 => {
            let mut bytes = vec![0; *input.choose(&[1, 4, 8, 64])?];
            let at = input.arbitrary::<u16>()?.into();
            let _ = function.bar_read(Bar::Bar0, at, &mut bytes);
        }
        4 | 5 => {
            let bytes = descriptor(input)?;
            let portal = *input.choose(&[Portal::Limited, Portal::Unlimited])?;
            let at = portal_offset(input.int_in_range(0..=1)?, portal);
            // A batch is a place in memory, where the same bytes may stand.
            let place = input.int_in_range(0..=63_u64)? * 64;
            world.shared.write(place, &bytes).expect("inside");
            let _ = function.bar_write(Bar::Bar2, at, &bytes);
        }
        _ => world.work(),
    }
    Ok(())
}

/// A descriptor whose addresses are mostly in the memory.
fn descriptor(input: &mut Unstructured<'_>) -> arbitrary::Result<Vec<u8>> {
    let raw: [u8; 64] = input.arbitrary()?;
    let Ok(mut descriptor) = Descriptor::read_from_bytes(&raw) else {
        return Err(arbitrary::Error::IncorrectFormat);
    };
    if input.ratio(7, 8)? {
        let bytes = descriptor.as_mut_bytes();
        // PASID 1, or another; completion record, source, destination; a length that is short.
        let pasid = input.int_in_range(0..=2_u32)?;
        bytes[..4].copy_from_slice(&pasid.to_le_bytes());
        for field in [8, 16, 24] {
            let at = (value(input)? % MEMORY_BYTES) & !0x1f;
            bytes[field..field + 8].copy_from_slice(&at.to_le_bytes());
        }
        let len = u32::from(input.arbitrary::<u16>()?);
        bytes[32..36].copy_from_slice(&len.to_le_bytes());
    }
    Ok(descriptor.as_bytes().to_vec())
}
