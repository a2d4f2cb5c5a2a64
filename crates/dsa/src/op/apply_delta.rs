use palisade_iommu::DmaError;

use super::so_far::Carry;
use super::{
    ACCESS_COST_BYTES, Means, Scratch, SoFar, Stop, WORD, WORD_BYTES, Yield, iova, piece_len,
    to_page_end,
};
use crate::spec::{DELTA_ENTRY_BYTES, Descriptor, Status};

const ENTRY_BYTES: u64 = DELTA_ENTRY_BYTES as u64;
const ENTRY: usize = DELTA_ENTRY_BYTES as usize;

/// Writes the words of the delta record at the first address to their places in the `size` bytes at the second. The record
/// comes from the driver: its offsets must increase and stay within the destination. What is done counts bytes of the
/// record, in whole entries.
pub(super) fn run(
    means: &mut Means<'_>,
    descriptor: &Descriptor,
    so_far: &mut SoFar,
) -> Result<Yield, Stop> {
    let record_bytes = descriptor.delta_bytes();
    let words = u64::from(descriptor.size) / WORD_BYTES;
    while so_far.done_bytes < record_bytes {
        let at = descriptor.first + u64::from(so_far.done_bytes);
        // Whole entries of this page, or the one that reaches into the next.
        let most = to_page_end(at).max(ENTRY_BYTES);
        let len = means.whole(ENTRY_BYTES, record_bytes - so_far.done_bytes, most)?;
        means
            .port
            .read(means.by, iova(at), &mut means.scratch.one[..piece_len(len)])?;
        let end = piece_len(len) / ENTRY;
        let mut next = 0;
        while next < end {
            let Scratch { one, other, .. } = &mut *means.scratch;
            let start = Entry::nth(one, next).word;
            if let Some(status) = wrong(start, so_far.carry, words) {
                return Ok(Yield {
                    status,
                    bytes_completed: so_far.done_bytes,
                    ..Yield::default()
                });
            }
            let count = gather(&one[..end * ENTRY], next, words, other);
            let to = descriptor.second + u64::from(start) * WORD_BYTES;
            let run = &other[..count * WORD];
            let written = means.port.write(means.by, iova(to), run);
            let whole = whole_words(&written, to, count);
            means.spend(ACCESS_COST_BYTES);
            means.account(&mut so_far.done_bytes, whole as u64 * ENTRY_BYTES);
            if let Some(last) = whole.checked_sub(1) {
                let last = u16::try_from(last).unwrap_or(0);
                so_far.carry = Carry::DeltaOffset(start.saturating_add(last));
            }
            written?;
            next += count;
        }
    }
    Ok(Yield::default())
}

/// What is wrong with the next entry, after the one that was applied last.
fn wrong(word: u16, carry: Carry, words: u64) -> Option<Status> {
    match carry {
        Carry::DeltaOffset(last) if word <= last => Some(Status::DELTA_ORDER),
        _ if u64::from(word) >= words => Some(Status::DELTA_OFFSET),
        _ => None,
    }
}

/// Puts together the words of the entry `first` and of those after it whose words follow it in the destination: they are
/// written in one piece. Says how many there are; at least one.
fn gather(entries: &[u8], first: usize, words: u64, into: &mut [u8]) -> usize {
    let start = usize::from(Entry::nth(entries, first).word);
    let mut count = 0;
    for (place, bytes) in into
        .chunks_exact_mut(WORD)
        .zip(entries.chunks_exact(ENTRY).skip(first))
    {
        let entry = Entry::of(bytes);
        let follows = usize::from(entry.word) == start + count && u64::from(entry.word) < words;
        if !follows {
            break;
        }
        place.copy_from_slice(&entry.data);
        count += 1;
    }
    count
}

/// An entry of a delta record.
struct Entry {
    word: u16,
    data: [u8; WORD],
}

impl Entry {
    fn nth(entries: &[u8], index: usize) -> Self {
        Self::of(&entries[index * ENTRY..][..ENTRY])
    }

    fn of(bytes: &[u8]) -> Self {
        let mut whole = [0; ENTRY];
        whole.copy_from_slice(bytes);
        let [low, high, data @ ..] = whole;
        Self {
            word: u16::from_le_bytes([low, high]),
            data,
        }
    }
}

/// How many of `count` words were written.
fn whole_words(written: &Result<(), DmaError>, to: u64, count: usize) -> usize {
    match written {
        Ok(()) => count,
        Err(error) => {
            let words = error.at().get().saturating_sub(to) / WORD_BYTES;
            usize::try_from(words).map_or(count, |words| words.min(count))
        }
    }
}
