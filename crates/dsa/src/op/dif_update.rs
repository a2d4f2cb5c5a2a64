use super::dif::{Blocks, guard, written_application};
use super::{Means, SoFar, Stop, Yield};
use crate::spec::{Descriptor, Dif, DifDestination};

/// Checks the blocks of `size` bytes at the first address, as a check does, and copies them to the second with new integrity
/// fields, of which parts may be passed on. A block that does not agree with its field is not copied.
pub(super) fn run(
    means: &mut Means<'_>,
    descriptor: &Descriptor,
    so_far: &mut SoFar,
) -> Result<Yield, Stop> {
    Blocks::of(descriptor, so_far).each(means, descriptor, |blocks, whole| {
        let (block, field) = whole.split_at_mut(blocks.block_len());
        let old = Dif::from_bytes(field.first_chunk().copied().unwrap_or_default());
        field.copy_from_slice(&updated(blocks, block, old).to_bytes());
        whole
    })
}

fn updated(blocks: &Blocks<'_>, block: &[u8], old: Dif) -> Dif {
    let rules = blocks.fields.destination_rules();
    let tags = blocks.tags.destination.unwrap_or_default();
    let passes = |what| rules.contains(what);
    Dif {
        guard: if passes(DifDestination::PASS_GUARD) {
            old.guard
        } else {
            guard(blocks.fields.guards(), block)
        },
        application: if passes(DifDestination::PASS_APPLICATION) {
            old.application
        } else {
            written_application(tags)
        },
        reference: if passes(DifDestination::PASS_REFERENCE) {
            old.reference
        } else {
            tags.reference
        },
    }
}
