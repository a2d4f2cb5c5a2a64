use super::{Means, Stop, Yield, iova, piece_len, to_page_end};
use crate::spec::{Descriptor, Opcode};

/// Compares `size` bytes at the first address with those at the second, or with the pattern that stands there. Result 0 equal;
/// 1 different, and the bytes completed are those before the first difference.
pub(super) fn run(
    means: &mut Means<'_>,
    descriptor: &Descriptor,
    done_bytes: &mut u32,
) -> Result<Yield, Stop> {
    let with_pattern = descriptor.opcode() == Opcode::COMPARE_PATTERN;
    let pattern = descriptor.second.to_le_bytes();
    while *done_bytes < descriptor.size {
        let done = u64::from(*done_bytes);
        let at = descriptor.first + done;
        let other_at = descriptor.second.wrapping_add(done);
        let most = if with_pattern {
            to_page_end(at)
        } else {
            to_page_end(at).min(to_page_end(other_at))
        };
        let len = means.piece(descriptor.size - *done_bytes, most)?;
        let scratch = &mut *means.scratch;
        let one = &mut scratch.one[..piece_len(len)];
        let other = &mut scratch.other[..piece_len(len)];
        means.port.read(means.by, iova(at), one)?;
        if with_pattern {
            for (i, byte) in other.iter_mut().enumerate() {
                *byte = pattern[(*done_bytes as usize + i) % pattern.len()];
            }
        } else {
            means.port.read(means.by, iova(other_at), other)?;
        }
        // Most pieces are equal, which is soon seen; where they differ is looked for byte by byte.
        let same = if *one == *other {
            len
        } else {
            one.iter().zip(&*other).take_while(|(a, b)| a == b).count() as u64
        };
        means.account(done_bytes, same);
        if same < len {
            return Ok(Yield {
                result: 1,
                bytes_completed: *done_bytes,
                ..Yield::default()
            });
        }
    }
    Ok(Yield::default())
}
