use super::dif::{Blocks, guard, written_application};
use super::{Means, SoFar, Stop, Yield};
use crate::spec::{Descriptor, Dif};

/// Copies the blocks of `size` bytes at the first address to the second, with an integrity field behind each.
pub(super) fn run(
    means: &mut Means<'_>,
    descriptor: &Descriptor,
    so_far: &mut SoFar,
) -> Result<Yield, Stop> {
    Blocks::of(descriptor, so_far).each(means, descriptor, |blocks, whole| {
        let tags = blocks.tags.destination.unwrap_or_default();
        let (block, field) = whole.split_at_mut(blocks.block_len());
        let dif = Dif {
            guard: guard(blocks.fields.guards(), block),
            application: written_application(tags),
            reference: tags.reference,
        };
        field.copy_from_slice(&dif.to_bytes());
        whole
    })
}
