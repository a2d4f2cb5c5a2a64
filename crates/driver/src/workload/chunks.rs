//! How a buffer is cut into descriptors.

/// The smallest piece in bytes.
const SMALLEST: u64 = 4 << 10;
/// How often each piece is twice as long as the one before, from the smallest on: 4 KiB to 2 MiB.
const SIZES: u64 = 10;

/// A piece of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) offset: u64,
    pub(super) len_bytes: u32,
}

/// Cuts `len_bytes` into pieces of 4 KiB to 2 MiB, none longer than `longest`, in an order that `seed` says.
pub(super) fn cut(len_bytes: u64, longest: u64, seed: u64) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut offset = 0;
    // 7 has no divisor in common with 10, so that ten pieces in a row have ten sizes.
    let mut turn = seed % SIZES;
    while offset < len_bytes {
        let wanted = (SMALLEST << turn).min(longest).min(len_bytes - offset);
        turn = (turn + 7) % SIZES;
        // At most 2 MiB, as the largest size is.
        let Ok(len) = u32::try_from(wanted) else {
            break;
        };
        if len == 0 {
            break;
        }
        chunks.push(Chunk {
            offset,
            len_bytes: len,
        });
        offset += wanted;
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_pieces_are_the_whole_and_have_all_sizes() {
        for seed in 0..10 {
            let chunks = cut(16 << 20, 2 << 20, seed);
            let mut next = 0;
            for chunk in &chunks {
                assert_eq!(chunk.offset, next);
                next += u64::from(chunk.len_bytes);
            }
            assert_eq!(next, 16 << 20);
            let sizes: BTreeSet<u32> = chunks.iter().map(|chunk| chunk.len_bytes).collect();
            assert!(
                sizes.contains(&4096) && sizes.contains(&(2 << 20)),
                "{sizes:?}"
            );
        }
    }

    #[test]
    fn no_piece_is_longer_than_the_device_can() {
        assert!(
            cut(8 << 20, 64 << 10, 3)
                .iter()
                .all(|chunk| chunk.len_bytes <= 64 << 10)
        );
        assert!(cut(8 << 20, 0, 3).is_empty());
    }
}
