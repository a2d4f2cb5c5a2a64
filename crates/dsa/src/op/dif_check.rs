use super::dif::Blocks;
use super::{Means, SoFar, Stop, Yield};
use crate::spec::Descriptor;

/// Checks the blocks of `size` bytes at the first address against the fields that follow each, up to the first that does not
/// agree.
pub(super) fn run(
    means: &mut Means<'_>,
    descriptor: &Descriptor,
    so_far: &mut SoFar,
) -> Result<Yield, Stop> {
    Blocks::of(descriptor, so_far).each(means, descriptor, |_, _| &[])
}
