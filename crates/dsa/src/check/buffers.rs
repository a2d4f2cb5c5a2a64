use super::{Wrong, wrong};
use crate::op;
use crate::session::Session;
use crate::spec::{CompletionRecord, DELTA_ENTRY_BYTES, Descriptor, Flags, Opcode, Status};

const LIST_ALIGNMENT: u64 = 64;
/// The alignment of what delta records are about, and of its size.
const WORD_ALIGNMENT: u64 = 8;
/// How much a delta record can be about: its offsets are numbers of words in 16 bits.
const MAX_DELTA_TRANSFER: u64 = WORD_ALIGNMENT << 16;
/// The least room for a delta record.
const MIN_DELTA_ROOM: u32 = 8 * DELTA_ENTRY_BYTES;
const SEED_BYTES: u64 = 4;
/// Where two destinations must agree.
const PAGE_OFFSET: u64 = 0xfff;

/// A range of memory.
#[derive(Clone, Copy)]
struct Buffer {
    start: u64,
    len_bytes: u64,
}

const NONE: Buffer = Buffer {
    start: 0,
    len_bytes: 0,
};

/// Whether the buffers of an operation may overlap.
enum Overlap {
    Allowed,
    /// The last with any of the others.
    NotWithLast,
    Never,
}

/// Looks at sizes, alignments and buffers.
#[inline]
pub(super) fn check(descriptor: &Descriptor, session: &Session) -> Result<(), Wrong> {
    match descriptor.opcode() {
        Opcode::NO_OP | Opcode::DRAIN => return Ok(()),
        Opcode::BATCH => return batch(descriptor, session),
        _ => {}
    }
    let size = u64::from(descriptor.size);
    if size == 0 || size > session.rules.max_transfer_bytes {
        return Err(wrong(Status::TRANSFER_SIZE));
    }
    let first = Buffer::at(descriptor.first, size);
    let second = Buffer::at(descriptor.second, size);
    if matches!(descriptor.opcode(), Opcode::MEMORY_MOVE | Opcode::COMPARE) {
        first.within()?;
        return second.within();
    }
    check_others(descriptor, first, second)
}

/// Those of operations that are more than a source and a destination.
fn check_others(descriptor: &Descriptor, first: Buffer, second: Buffer) -> Result<(), Wrong> {
    let (buffers, overlap) = match descriptor.opcode() {
        Opcode::MEMORY_FILL | Opcode::CACHE_FLUSH => ([second, NONE, NONE], Overlap::Allowed),
        Opcode::COMPARE_PATTERN => ([first, NONE, NONE], Overlap::Allowed),
        Opcode::CREATE_DELTA => create_delta(descriptor, first, second)?,
        Opcode::APPLY_DELTA => apply_delta(descriptor, second)?,
        Opcode::DUALCAST => dualcast(descriptor, first, second)?,
        Opcode::CRC => ([first, NONE, seed(descriptor)?], Overlap::Allowed),
        Opcode::COPY_CRC => {
            // The seed is read before anything is written: it may be anywhere.
            seed(descriptor)?.within()?;
            ([first, second, NONE], Overlap::Never)
        }
        _ => dif(descriptor)?,
    };
    for buffer in buffers {
        buffer.within()?;
    }
    let [one, other, last] = buffers;
    let overlapping = match overlap {
        Overlap::Allowed => false,
        Overlap::NotWithLast => one.overlaps(last) || other.overlaps(last),
        Overlap::Never => one.overlaps(other) || one.overlaps(last) || other.overlaps(last),
    };
    if overlapping {
        return Err(wrong(Status::OVERLAPPING));
    }
    Ok(())
}

fn batch(descriptor: &Descriptor, session: &Session) -> Result<(), Wrong> {
    let Descriptor { first, size, .. } = *descriptor;
    if size < 2 || size > session.rules.max_batch {
        return Err(wrong(Status::DESCRIPTOR_COUNT));
    }
    if !first.is_multiple_of(LIST_ALIGNMENT) {
        return Err(wrong(Status::LIST_ALIGNMENT));
    }
    Buffer::at(first, u64::from(size) * LIST_ALIGNMENT).within()
}

type Buffers = ([Buffer; 3], Overlap);

fn create_delta(descriptor: &Descriptor, one: Buffer, other: Buffer) -> Result<Buffers, Wrong> {
    let fields = descriptor.create_delta_fields();
    delta_size(descriptor)?;
    if fields.max_bytes < MIN_DELTA_ROOM || !fields.max_bytes.is_multiple_of(DELTA_ENTRY_BYTES) {
        return Err(wrong(Status::DELTA_SIZE));
    }
    words(&[one.start, other.start, one.len_bytes])?;
    let record = Buffer::at(fields.record, fields.max_bytes.into());
    Ok(([one, other, record], Overlap::NotWithLast))
}

fn apply_delta(descriptor: &Descriptor, to: Buffer) -> Result<Buffers, Wrong> {
    let delta_bytes = descriptor.delta_bytes();
    delta_size(descriptor)?;
    if delta_bytes == 0 || !delta_bytes.is_multiple_of(DELTA_ENTRY_BYTES) {
        return Err(wrong(Status::DELTA_SIZE));
    }
    words(&[to.start, to.len_bytes])?;
    let record = Buffer::at(descriptor.first, delta_bytes.into());
    Ok(([record, to, NONE], Overlap::Never))
}

fn delta_size(descriptor: &Descriptor) -> Result<(), Wrong> {
    if u64::from(descriptor.size) > MAX_DELTA_TRANSFER {
        return Err(wrong(Status::TRANSFER_SIZE));
    }
    Ok(())
}

fn words(what: &[u64]) -> Result<(), Wrong> {
    let aligned = |value: &u64| value.is_multiple_of(WORD_ALIGNMENT);
    if what.iter().all(aligned) {
        Ok(())
    } else {
        Err(wrong(Status::ADDRESS_ALIGNMENT))
    }
}

fn dualcast(descriptor: &Descriptor, from: Buffer, to: Buffer) -> Result<Buffers, Wrong> {
    let third = descriptor.second_destination();
    if (to.start ^ third) & PAGE_OFFSET != 0 {
        return Err(wrong(Status::DUALCAST_OFFSETS));
    }
    let also_to = Buffer::at(third, to.len_bytes);
    Ok(([from, to, also_to], Overlap::Never))
}

/// Where the seed of a CRC is, if it is in memory.
fn seed(descriptor: &Descriptor) -> Result<Buffer, Wrong> {
    if !descriptor.flags().contains(Flags::READ_CRC_SEED) {
        return Ok(NONE);
    }
    let address = descriptor.crc_seed().address;
    if !address.is_multiple_of(SEED_BYTES) {
        return Err(wrong(Status::ADDRESS_ALIGNMENT));
    }
    Ok(Buffer::at(address, SEED_BYTES))
}

fn dif(descriptor: &Descriptor) -> Result<Buffers, Wrong> {
    let (from, to) = op::dif_strides(descriptor);
    if !descriptor.size.is_multiple_of(from) {
        return Err(wrong(Status::TRANSFER_SIZE));
    }
    let blocks = u64::from(descriptor.size / from);
    let source = Buffer::at(descriptor.first, descriptor.size.into());
    let destination = Buffer::at(descriptor.second, blocks * u64::from(to));
    Ok(([source, destination, NONE], Overlap::Never))
}

impl Buffer {
    const fn at(start: u64, len_bytes: u64) -> Self {
        Self { start, len_bytes }
    }

    /// A range that runs past the end of the space has no translation.
    #[inline]
    fn within(self) -> Result<(), Wrong> {
        match self.start.checked_add(self.len_bytes) {
            Some(_) => Ok(()),
            None => Err(Wrong::Record(CompletionRecord {
                status: Status::TRANSLATION.0,
                fault_address: self.start,
                ..CompletionRecord::default()
            })),
        }
    }

    /// Whether some byte is in both; neither runs past the end of the space. One of no bytes overlaps nothing.
    const fn overlaps(self, other: Self) -> bool {
        self.len_bytes != 0
            && other.len_bytes != 0
            && self.start < other.start + other.len_bytes
            && other.start < self.start + self.len_bytes
    }
}
