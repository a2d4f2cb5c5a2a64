use super::so_far::Carry;
use super::{Means, SoFar, Stop, WORD, WORD_BYTES, Yield, iova, piece_len, to_page_end};
use crate::spec::{DELTA_ENTRY_BYTES, DeltaResult, Descriptor};

/// How many words are compared at a time: the entries of all of them have room in one buffer.
const WORDS: u64 = 400;
const ENTRY: usize = DELTA_ENTRY_BYTES as usize;

/// Compares the words of `size` bytes at the first address with those at the second, and writes down where they differ and what
/// the second has there. Entries are written up to the last that has room whole.
pub(super) fn run(
    means: &mut Means<'_>,
    descriptor: &Descriptor,
    so_far: &mut SoFar,
) -> Result<Yield, Stop> {
    let fields = descriptor.create_delta_fields();
    let mut delta_bytes = match so_far.carry {
        Carry::DeltaBytes(bytes) => bytes,
        _ => 0,
    };
    so_far.carry = Carry::DeltaBytes(delta_bytes);
    while so_far.done_bytes < descriptor.size {
        let done = u64::from(so_far.done_bytes);
        let (at, other_at) = (descriptor.first + done, descriptor.second + done);
        let most = to_page_end(at)
            .min(to_page_end(other_at))
            .min(WORDS * WORD_BYTES);
        let len = means.whole(WORD_BYTES, descriptor.size - so_far.done_bytes, most)?;
        let scratch = &mut *means.scratch;
        let one = &mut scratch.one[..piece_len(len)];
        let other = &mut scratch.other[..piece_len(len)];
        means.port.read(means.by, iova(at), one)?;
        means.port.read(means.by, iova(other_at), other)?;
        let room = (fields.max_bytes - delta_bytes) / DELTA_ENTRY_BYTES;
        let found = compare(one, other, done / WORD_BYTES, room, &mut scratch.out);
        let entries = &scratch.out[..found.entries * ENTRY];
        let record_at = fields.record + u64::from(delta_bytes);
        let written = means.port.write(means.by, iova(record_at), entries);
        let whole = match written {
            Ok(()) => found.entries,
            Err(error) => whole_entries(error.at().get(), record_at, found.entries),
        };
        // What is done ends before the first entry that is not in the record.
        let same_bytes = match entries.chunks_exact(ENTRY).nth(whole) {
            None => found.bytes,
            Some(entry) => u64::from(offset(entry)) * WORD_BYTES - done,
        };
        delta_bytes += DELTA_ENTRY_BYTES * u32::try_from(whole).unwrap_or(0);
        so_far.carry = Carry::DeltaBytes(delta_bytes);
        means.account(&mut so_far.done_bytes, same_bytes);
        written?;
        if found.bytes < len {
            return Ok(Yield {
                result: DeltaResult::OVERFLOWED.0,
                bytes_completed: so_far.done_bytes,
                ..Yield::default()
            });
        }
    }
    let result = if delta_bytes == 0 {
        DeltaResult::EQUAL
    } else {
        DeltaResult::COMPLETE
    };
    Ok(Yield {
        result: result.0,
        ..Yield::default()
    })
}

/// What came of comparing a piece.
struct Found {
    entries: usize,
    /// How many bytes were compared: all, or those before the first difference for which there was no room.
    bytes: u64,
}

fn compare(one: &[u8], other: &[u8], first_word: u64, room: u32, out: &mut [u8]) -> Found {
    let (mut entries, mut bytes) = (0, 0);
    let mut places = out.chunks_exact_mut(ENTRY).take(room as usize);
    for ((word, theirs), number) in one
        .chunks_exact(WORD)
        .zip(other.chunks_exact(WORD))
        .zip(first_word..)
    {
        if word != theirs {
            let Some(place) = places.next() else { break };
            // The size is such that every word has a number of 16 bits.
            let number = u16::try_from(number).unwrap_or(u16::MAX);
            let (offset, data) = place.split_at_mut(ENTRY - WORD);
            offset.copy_from_slice(&number.to_le_bytes());
            data.copy_from_slice(theirs);
            entries += 1;
        }
        bytes += WORD_BYTES;
    }
    Found { entries, bytes }
}

/// How many of the entries from `start` were written before an access stopped.
fn whole_entries(stopped_at: u64, start: u64, most: usize) -> usize {
    let bytes = stopped_at.saturating_sub(start);
    usize::try_from(bytes / u64::from(DELTA_ENTRY_BYTES)).map_or(most, |whole| whole.min(most))
}

fn offset(entry: &[u8]) -> u16 {
    entry
        .first_chunk()
        .map_or(0, |bytes| u16::from_le_bytes(*bytes))
}
