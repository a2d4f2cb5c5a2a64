use super::{Means, Stop, Yield, iova};
use crate::lane::TURN_BYTES;
use crate::spec::Descriptor;

/// Fills `size` bytes at the second address with the eight bytes of the first, lowest first, again and
/// again.
pub(super) fn run(
    means: &mut Means<'_>,
    descriptor: &Descriptor,
    done_bytes: &mut u32,
) -> Result<Yield, Stop> {
    while *done_bytes < descriptor.size {
        let at = descriptor.second + u64::from(*done_bytes);
        let len = means.piece(descriptor.size - *done_bytes, TURN_BYTES)?;
        // A piece may start inside the pattern.
        let pattern = descriptor.first.rotate_right(*done_bytes % 8 * 8);
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
