use std::sync::atomic::{Ordering, fence};

use super::{Means, SoFar, Stop, Yield, iova, to_page_end};
use crate::spec::Descriptor;

/// Flushes `size` bytes at the second address from the caches. What this device writes is in memory that the host keeps
/// coherent, so what remains of a flush is that its pages are there, and that what was written before is seen by all.
pub(super) fn run(
    means: &mut Means<'_>,
    descriptor: &Descriptor,
    so_far: &mut SoFar,
) -> Result<Yield, Stop> {
    while so_far.done_bytes < descriptor.size {
        let at = descriptor.second + u64::from(so_far.done_bytes);
        let len = means.piece(descriptor.size - so_far.done_bytes, to_page_end(at))?;
        means.port.read(means.by, iova(at), &mut [0])?;
        means.account(&mut so_far.done_bytes, len);
    }
    fence(Ordering::SeqCst);
    Ok(Yield::default())
}
