use super::crc::Crc;
use super::so_far::Carry;
use super::{Means, SoFar, Stop, Yield, iova, piece_len, to_page_end};
use crate::spec::Descriptor;

/// Copies `size` bytes from the first address to the second and computes their CRC. The source is read once: the CRC is that of
/// the bytes that were written, whatever the driver does to the source meanwhile.
pub(super) fn run(
    means: &mut Means<'_>,
    descriptor: &Descriptor,
    so_far: &mut SoFar,
) -> Result<Yield, Stop> {
    let mut crc = Crc::resume(means, descriptor, so_far)?;
    while so_far.done_bytes < descriptor.size {
        let done = u64::from(so_far.done_bytes);
        let (from, to) = (descriptor.first + done, descriptor.second + done);
        let most = to_page_end(from).min(to_page_end(to));
        let len = means.piece(descriptor.size - so_far.done_bytes, most)?;
        let piece = &mut means.scratch.one[..piece_len(len)];
        means.port.read(means.by, iova(from), piece)?;
        means.port.write(means.by, iova(to), piece)?;
        crc.take(piece);
        so_far.carry = Carry::Crc(crc.value());
        means.account(&mut so_far.done_bytes, len);
    }
    Ok(Yield::default())
}
