use super::{Means, Stop, Yield, from_page_start, iova, piece_len};
use crate::lane::TURN_BYTES;
use crate::spec::Descriptor;

/// Whether the destination begins inside of the source, so that the copy must go from the end.
#[inline]
pub(crate) fn is_backward(descriptor: &Descriptor) -> bool {
    let Descriptor {
        first,
        second,
        size,
        ..
    } = *descriptor;
    second > first && second - first < u64::from(size)
}

/// Copies `size` bytes from the first address to the second; overlapping buffers come out as if the
/// source had been read whole before.
pub(super) fn run(
    means: &mut Means<'_>,
    descriptor: &Descriptor,
    done_bytes: &mut u32,
) -> Result<Yield, Stop> {
    if is_backward(descriptor) {
        return backward(means, descriptor, done_bytes);
    }
    while *done_bytes < descriptor.size {
        let len = means.piece(descriptor.size - *done_bytes, TURN_BYTES)?;
        let from = iova(descriptor.first + u64::from(*done_bytes));
        let to = iova(descriptor.second + u64::from(*done_bytes));
        match means.port.copy(means.by, from, means.by, to, len) {
            Ok(()) => means.account(done_bytes, len),
            Err(partial) => {
                means.account(done_bytes, partial.done_bytes);
                return Err(partial.error.into());
            }
        }
    }
    Ok(Yield::default())
}

/// Does all of it, where that is one copy within cached pages; says whether it did.
#[inline]
pub(crate) fn run_at_once(means: &mut Means<'_>, descriptor: &Descriptor) -> bool {
    let len = u64::from(descriptor.size);
    if len > *means.left_bytes || is_backward(descriptor) {
        return false;
    }
    let (from, to) = (iova(descriptor.first), iova(descriptor.second));
    let done = means.port.copy_at_once(means.by, from, means.by, to, len);
    if done {
        means.spend(len);
    }
    done
}

/// From the end, in pieces that stay within a page on both sides, each read whole before it is written.
fn backward(
    means: &mut Means<'_>,
    descriptor: &Descriptor,
    done_bytes: &mut u32,
) -> Result<Yield, Stop> {
    while *done_bytes < descriptor.size {
        let remaining = descriptor.size - *done_bytes;
        let from_end = descriptor.first + u64::from(remaining);
        let to_end = descriptor.second + u64::from(remaining);
        let most = from_page_start(from_end).min(from_page_start(to_end));
        let len = means.piece(remaining, most)?;
        let buffer = &mut means.scratch.one[..piece_len(len)];
        means.port.read(means.by, iova(from_end - len), buffer)?;
        means.port.write(means.by, iova(to_end - len), buffer)?;
        means.account(done_bytes, len);
    }
    Ok(Yield {
        result: 1,
        ..Yield::default()
    })
}
