use super::{Means, SoFar, Stop, Yield, iova, piece_len, to_page_end};
use crate::spec::Descriptor;

/// Copies `size` bytes from the first address to the second and to a third. The source is read once: both copies are equal,
/// whatever the driver does to it meanwhile.
pub(super) fn run(
    means: &mut Means<'_>,
    descriptor: &Descriptor,
    so_far: &mut SoFar,
) -> Result<Yield, Stop> {
    let third = descriptor.second_destination();
    while so_far.done_bytes < descriptor.size {
        let done = u64::from(so_far.done_bytes);
        let (from, to) = (descriptor.first + done, descriptor.second + done);
        // The two destinations have the same place in their pages.
        let most = to_page_end(from).min(to_page_end(to));
        let len = means.piece(descriptor.size - so_far.done_bytes, most)?;
        let piece = &mut means.scratch.one[..piece_len(len)];
        means.port.read(means.by, iova(from), piece)?;
        means.port.write(means.by, iova(to), piece)?;
        means.port.write(means.by, iova(third + done), piece)?;
        means.account(&mut so_far.done_bytes, len);
    }
    Ok(Yield::default())
}
