use super::dif::{Blocks, FIELD, guard, written_application};
use super::{Means, SoFar, Stop, Yield, iova};
use crate::spec::{Descriptor, Dif};

/// Copies the blocks of `size` bytes at the first address to the second, with an integrity field behind each.
pub(super) fn run(
    means: &mut Means<'_>,
    descriptor: &Descriptor,
    so_far: &mut SoFar,
) -> Result<Yield, Stop> {
    let mut blocks = Blocks::of(descriptor, so_far);
    let len = blocks.block_len();
    while let Some((from, to)) = blocks.next(means)? {
        let tags = blocks.tags.destination.unwrap_or_default();
        let whole = &mut means.scratch.one[..len + FIELD];
        let (block, field) = whole.split_at_mut(len);
        means
            .port
            .read(means.by, iova(descriptor.first + from), block)?;
        let dif = Dif {
            guard: guard(blocks.fields.guards(), block),
            application: written_application(tags),
            reference: tags.reference,
        };
        field.copy_from_slice(&dif.to_bytes());
        means
            .port
            .write(means.by, iova(descriptor.second + to), whole)?;
        blocks.done(means);
    }
    Ok(Yield::default())
}
