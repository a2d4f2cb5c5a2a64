//! What stands in a guest's page tables.

use arbitrary::Unstructured;
use palisade_iommu::{FirstStage, Levels, Requester, SecondStage, Space};
use palisade_mdev::SliceType;
use palisade_units::{Gpa, GuestPasid, Iova, PasidTag};
use palisade_vfio::{SpaceKey, Terms};

use crate::unit::value;
use crate::world::{MEMORY_BYTES, WHOLE_SLOT, World};

/// Tables are in the first pages, so that random entries lead to tables.
const TABLE_PAGES: u64 = 16;

/// A process with page tables of any content on a whole function, and accesses by them.
pub(crate) fn tables(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let world = World::plain(SliceType::DedicatedQueue);
    // The input may end anywhere.
    let _ = run(&world, &mut input);
    world.check();
}

fn run(world: &World, input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let levels = [Levels::Three, Levels::Four, Levels::Five];
    let (first, second) = (*input.choose(&levels[1..])?, *input.choose(&levels)?);
    let root = |input: &mut Unstructured<'_>| {
        let page = input.int_in_range(0..=TABLE_PAGES)?;
        arbitrary::Result::Ok(Gpa::new(page << 12))
    };
    let first = FirstStage::new(root(input)?, first);
    let second = SecondStage::new(root(input)?, second);
    let spaces = [
        Space::FirstStage(first),
        Space::SecondStage(second),
        Space::Nested(first, second),
        Space::PassThrough,
    ];
    let key = SpaceKey::Pasid(GuestPasid::new(1).expect("a PASID"));
    let terms = Terms::new(*input.choose(&spaces)?);
    // What the container refuses leaves a function without the PASID.
    let _ = world.container.bind(WHOLE_SLOT, key, terms);
    while !input.is_empty() {
        if input.ratio(2, 3)? {
            let at = input.int_in_range(0..=TABLE_PAGES * 512 - 1)? * 8;
            world.shared.store_u64(at, value(input)?).expect("inside");
        } else {
            access(world, input)?;
        }
    }
    Ok(())
}

/// One access of the whole function.
pub(crate) fn access(world: &World, input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let mut port = world.port();
    let raw = input.int_in_range(0..=3_u32)?;
    let tag = GuestPasid::new(raw).ok().filter(|pasid| pasid.get() != 0);
    let by = Requester::new(tag.map(PasidTag::of_exclusive_owner));
    let at = Iova::new(match input.int_in_range(0..=2)? {
        0 => input.arbitrary()?,
        1 => input.int_in_range(0..=2 * MEMORY_BYTES)?,
        _ => input.int_in_range(0..=0xffff_u64)? << 12,
    });
    let mut bytes = vec![0; input.int_in_range(0..=5000)?];
    // Faults are answers.
    let _ = if input.arbitrary()? {
        port.write(by, at, &bytes)
    } else {
        port.read(by, at, &mut bytes)
    };
    Ok(())
}
