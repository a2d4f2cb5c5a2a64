use super::dif::Blocks;
use super::{Means, SoFar, Stop, Yield};
use crate::spec::Descriptor;

/// Checks the blocks of `size` bytes at the first address, as a check does, and copies them to the second without their
/// integrity fields. A block that does not agree with its field is not copied.
pub(super) fn run(
    means: &mut Means<'_>,
    descriptor: &Descriptor,
    so_far: &mut SoFar,
) -> Result<Yield, Stop> {
    Blocks::of(descriptor, so_far).each(means, descriptor, |blocks, whole| {
        &whole[..blocks.block_len()]
    })
}
