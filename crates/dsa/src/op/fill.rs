use super::{Means, PIECE_BYTES, SoFar, Stop, Yield, iova, piece_len};
use crate::lane::TURN_BYTES;
use crate::spec::{Descriptor, Flags};

/// Fills `size` bytes at the second address with the bytes of the pattern, lowest first, again and again: the eight of the
/// first address, or 16 of which those are the lower half.
pub(super) fn run(
    means: &mut Means<'_>,
    descriptor: &Descriptor,
    so_far: &mut SoFar,
) -> Result<Yield, Stop> {
    let (low, high) = (descriptor.first, descriptor.pattern_high());
    let is_wide = descriptor.flags().contains(Flags::WIDE_PATTERN);
    if is_wide && low != high {
        return wide(means, descriptor, so_far);
    }
    let done_bytes = &mut so_far.done_bytes;
    while *done_bytes < descriptor.size {
        let at = descriptor.second + u64::from(*done_bytes);
        let len = means.piece(descriptor.size - *done_bytes, TURN_BYTES)?;
        // A piece may start inside the pattern.
        let pattern = low.rotate_right(*done_bytes % 8 * 8);
        match means.port.fill(means.by, iova(at), len, pattern) {
            Ok(()) => means.account(done_bytes, len),
            Err(error) => {
                means.account(done_bytes, error.at().get().saturating_sub(at).min(len));
                return Err(error.into());
            }
        }
    }
    Ok(Yield::default())
}

/// Memory repeats eight bytes by itself, not 16: those are laid out in a buffer first.
fn wide(means: &mut Means<'_>, descriptor: &Descriptor, so_far: &mut SoFar) -> Result<Yield, Stop> {
    let done_bytes = &mut so_far.done_bytes;
    let (low, high) = (descriptor.first, descriptor.pattern_high());
    let pattern = (u128::from(high) << 64) | u128::from(low);
    while *done_bytes < descriptor.size {
        let at = descriptor.second + u64::from(*done_bytes);
        let len = means.piece(descriptor.size - *done_bytes, PIECE_BYTES as u64)?;
        let turned = pattern.rotate_right(*done_bytes % 16 * 8).to_le_bytes();
        let piece = &mut means.scratch.one[..piece_len(len)];
        for place in piece.chunks_mut(turned.len()) {
            place.copy_from_slice(&turned[..place.len()]);
        }
        match means.port.write(means.by, iova(at), piece) {
            Ok(()) => means.account(done_bytes, len),
            Err(error) => {
                means.account(done_bytes, error.at().get().saturating_sub(at).min(len));
                return Err(error.into());
            }
        }
    }
    Ok(Yield::default())
}
