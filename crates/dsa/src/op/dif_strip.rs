use super::dif::{Blocks, FIELD};
use super::{Means, SoFar, Stop, Yield, iova};
use crate::spec::Descriptor;

/// Checks the blocks of `size` bytes at the first address, as a check does, and copies them to the second without their
/// integrity fields. A block that does not agree with its field is not copied.
pub(super) fn run(
    means: &mut Means<'_>,
    descriptor: &Descriptor,
    so_far: &mut SoFar,
) -> Result<Yield, Stop> {
    let mut blocks = Blocks::of(descriptor, so_far);
    let len = blocks.block_len();
    while let Some((from, to)) = blocks.next(means)? {
        let whole = &mut means.scratch.one[..len + FIELD];
        means
            .port
            .read(means.by, iova(descriptor.first + from), whole)?;
        let (block, field) = whole.split_at(len);
        let mismatch = blocks.check(block, field.first_chunk().copied().unwrap_or_default());
        if !mismatch.is_empty() {
            return Ok(blocks.mismatch(mismatch));
        }
        means
            .port
            .write(means.by, iova(descriptor.second + to), block)?;
        blocks.done(means);
    }
    Ok(Yield::default())
}
