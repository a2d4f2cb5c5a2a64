//! What a guest does to its unit: registers, tables, queues, and accesses of its devices beside them.

use arbitrary::Unstructured;
use palisade_mdev::SliceType;
use palisade_pci::{Bar, Function};
use palisade_vtd::spec::register::REGISTERS;
use palisade_vtd::{CachingMode, UnitConfig, VcmdLayout};

use crate::world::{MEMORY_BYTES, World};

/// How many steps one input makes.
const STEPS: usize = 256;

/// A guest that writes anything anywhere.
pub(crate) fn unit(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let layouts = [VcmdLayout::Off, VcmdLayout::Current, VcmdLayout::Older];
    let modes = [CachingMode::On, CachingMode::Off];
    let config = UnitConfig {
        vcmd: input.choose(&layouts).copied().unwrap_or(VcmdLayout::Off),
        caching_mode: input.choose(&modes).copied().unwrap_or(CachingMode::On),
    };
    let world = World::new(config, SliceType::SharedQueue);
    for _ in 0..STEPS {
        if step(&world, &mut input).is_err() {
            break;
        }
    }
    world.check();
    // Whatever it did, the next guest finds its unit as new.
    world.unit.reset();
    world.check();
    let mut capability = [0; 8];
    let read = world.unit.bar_read(Bar::Bar0, 8, &mut capability);
    assert!(read.is_ok() && capability != [0; 8]);
}

fn step(world: &World, input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    if input.is_empty() {
        return Err(arbitrary::Error::NotEnoughData);
    }
    match input.int_in_range(0..=5)? {
        0 | 1 => {
            let at = input.choose(REGISTERS)?.offset;
            let value = value(input)?;
            let wide = input.arbitrary()?;
            let bytes = value.to_le_bytes();
            let bytes = if wide { &bytes[..] } else { &bytes[..4] };
            // What no register takes is refused, which is an answer.
            let _ = world.unit.bar_write(Bar::Bar0, at, bytes);
        }
        2 => {
            let at = input.arbitrary::<u16>()?.into();
            let mut bytes = vec![0; input.int_in_range(0..=64)?];
            let _ = world.unit.bar_read(Bar::Bar0, at, &mut bytes);
        }
        3 => {
            let at = input.int_in_range(0..=MEMORY_BYTES / 8 - 1)? * 8;
            world.shared.store_u64(at, value(input)?).expect("inside");
        }
        4 => {
            // A descriptor with a plausible type, somewhere in the first pages.
            let at = input.int_in_range(0..=0x1ff_u64)? * 16;
            let kind = input.int_in_range(0..=0xb_u64)?;
            let low = value(input)? & !0xe0f | kind;
            let high = value(input)?;
            for (at, word) in [(at, low), (at + 8, high)] {
                world.shared.store_u64(at, word).expect("inside");
            }
        }
        _ => crate::tables::access(world, input)?,
    }
    Ok(())
}

/// Words of any kind, mostly such that say something.
pub(crate) fn value(input: &mut Unstructured<'_>) -> arbitrary::Result<u64> {
    Ok(match input.int_in_range(0..=3)? {
        0 => input.arbitrary()?,
        // An entry or an address: a page of the memory, and low bits.
        1 => {
            let page = input.int_in_range(0..=MEMORY_BYTES / 4096)?;
            page << 12 | u64::from(input.arbitrary::<u16>()? & 0xfff)
        }
        2 => 1 << input.int_in_range(0..=63_u32)?,
        _ => input.int_in_range(0..=0x400_u64)? << 4,
    })
}
