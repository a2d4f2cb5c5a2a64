use super::dif::{Blocks, FIELD, guard, written_application};
use super::{Means, SoFar, Stop, Yield, iova};
use crate::spec::{Descriptor, Dif, DifDestination};

/// Checks the blocks of `size` bytes at the first address, as a check does, and copies them to the second with new integrity
/// fields, of which parts may be passed on. A block that does not agree with its field is not copied.
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
        let (block, field) = whole.split_at_mut(len);
        let old = field.first_chunk().copied().unwrap_or_default();
        let mismatch = blocks.check(block, old);
        if !mismatch.is_empty() {
            return Ok(blocks.mismatch(mismatch));
        }
        field.copy_from_slice(&updated(&blocks, block, Dif::from_bytes(old)).to_bytes());
        means
            .port
            .write(means.by, iova(descriptor.second + to), whole)?;
        blocks.done(means);
    }
    Ok(Yield::default())
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
