//! What the DIF operations have in common: they go block by block, and a block that a fault interrupts is begun again.

use crc_fast::{CrcAlgorithm, Digest};

use super::so_far::{Carry, Tags};
use super::{ACCESS_COST_BYTES, Means, SoFar, Stop, Yield, iova};
use crate::spec::{
    Descriptor, Dif, DifDestination, DifFields, DifFlags, DifMismatch, DifSource, DifTags, Opcode,
    Status,
};

/// The size of an integrity field.
const FIELD: usize = Dif::BYTES as usize;

/// A DIF operation, between two blocks.
pub(super) struct Blocks<'a> {
    pub(super) fields: DifFields,
    pub(super) tags: Tags,
    so_far: &'a mut SoFar,
    size: u32,
    /// How many bytes of the source and of the destination a block has.
    strides: (u32, u32),
}

impl<'a> Blocks<'a> {
    pub(super) fn of(descriptor: &Descriptor, so_far: &'a mut SoFar) -> Self {
        let fields = descriptor.dif_fields();
        let (reads, writes) = sides(descriptor.opcode());
        let tags = match so_far.carry {
            Carry::Tags(tags) => tags,
            _ => Tags {
                source: reads.then_some(fields.source),
                destination: writes.then_some(fields.destination),
            },
        };
        so_far.carry = Carry::Tags(tags);
        Self {
            fields,
            tags,
            so_far,
            size: descriptor.size,
            strides: strides(descriptor),
        }
    }

    /// Goes from block to block of the source. One that is followed by an integrity field is checked against it, and the first
    /// that does not agree ends the operation. `make` has the block with room for a field behind it, where the source's stands
    /// if it has one, and says what of that goes to the destination; nothing, where there is none.
    pub(super) fn each(
        mut self,
        means: &mut Means<'_>,
        descriptor: &Descriptor,
        make: impl for<'b> Fn(&Self, &'b mut [u8]) -> &'b [u8],
    ) -> Result<Yield, Stop> {
        let len = self.block_len();
        while let Some((from, to)) = self.next(means)? {
            let whole = &mut means.scratch.one[..len + FIELD];
            let checks = self.tags.source.is_some();
            let source = if checks {
                &mut whole[..]
            } else {
                &mut whole[..len]
            };
            means
                .port
                .read(means.by, iova(descriptor.first + from), source)?;
            if checks {
                let (block, field) = whole.split_at(len);
                let mismatch = self.check(block, field.first_chunk().copied().unwrap_or_default());
                if !mismatch.is_empty() {
                    return Ok(self.mismatch(mismatch));
                }
            }
            let made = make(&self, whole);
            if !made.is_empty() {
                means
                    .port
                    .write(means.by, iova(descriptor.second + to), made)?;
            }
            self.done(means);
        }
        Ok(Yield::default())
    }

    /// Where the next block is from the start of the source and of the destination; `None` when all are done.
    fn next(&self, means: &Means<'_>) -> Result<Option<(u64, u64)>, Stop> {
        if self.so_far.done_bytes >= self.size {
            return Ok(None);
        }
        if *means.left_bytes == 0 {
            return Err(Stop::TurnOver);
        }
        let (from, to) = self.strides;
        let number = u64::from(self.so_far.done_bytes / from);
        Ok(Some((number * u64::from(from), number * u64::from(to))))
    }

    /// The block is done: the next has the next tags.
    fn done(&mut self, means: &mut Means<'_>) {
        if let Some(tags) = &mut self.tags.source {
            let rules = self.fields.source_rules();
            if !rules.contains(DifSource::REFERENCE_FIXED) {
                tags.reference = tags.reference.wrapping_add(1);
            }
            if rules.contains(DifSource::APPLICATION_INCREASES) {
                tags.application = tags.application.wrapping_add(1);
            }
        }
        if let Some(tags) = &mut self.tags.destination {
            let rules = self.fields.destination_rules();
            if !rules.contains(DifDestination::REFERENCE_FIXED) {
                tags.reference = tags.reference.wrapping_add(1);
            }
            if rules.contains(DifDestination::APPLICATION_INCREASES) {
                tags.application = tags.application.wrapping_add(1);
            }
        }
        self.so_far.carry = Carry::Tags(self.tags);
        means.spend(ACCESS_COST_BYTES);
        means.account(&mut self.so_far.done_bytes, self.strides.0.into());
    }

    /// What the operation yields when the source's block and its field do not agree.
    fn mismatch(&self, mismatch: DifMismatch) -> Yield {
        Yield {
            status: Status::DIF_MISMATCH,
            result: mismatch.bits(),
            bytes_completed: self.so_far.done_bytes,
        }
    }

    /// How many bytes a block has, without its field.
    pub(super) fn block_len(&self) -> usize {
        self.fields.block().bytes() as usize
    }

    /// Compares a block of the source with the field that follows it.
    fn check(&self, block: &[u8], field: [u8; FIELD]) -> DifMismatch {
        let rules = self.fields.source_rules();
        let tags = self.tags.source.unwrap_or_default();
        let dif = Dif::from_bytes(field);
        match look_for_ones(rules, field, dif) {
            Ones::No => {}
            Ones::ChecksAreOff => return DifMismatch::empty(),
            Ones::Error => return DifMismatch::ALL_ONES,
        }
        let mut mismatch = DifMismatch::empty();
        if !rules.contains(DifSource::IGNORE_GUARD) {
            let guard = guard(self.fields.guards(), block);
            mismatch.set(DifMismatch::GUARD, guard != dif.guard);
        }
        if !rules.contains(DifSource::IGNORE_REFERENCE) {
            mismatch.set(DifMismatch::REFERENCE, tags.reference != dif.reference);
        }
        let difference = (tags.application ^ dif.application) & !tags.application_mask;
        mismatch.set(DifMismatch::APPLICATION, difference != 0);
        mismatch
    }
}

/// What comes of a field of ones.
enum Ones {
    No,
    ChecksAreOff,
    Error,
}

fn look_for_ones(rules: DifSource, field: [u8; FIELD], dif: Dif) -> Ones {
    let (application, reference) = (dif.application == u16::MAX, dif.reference == u32::MAX);
    let all = rules.contains(DifSource::ALL_ONES) && field == [0xff; FIELD];
    if all && rules.contains(DifSource::ALL_ONES_IS_ERROR) {
        return Ones::Error;
    }
    let of_application = rules.contains(DifSource::APPLICATION_ONES) && application;
    let of_tags = rules.contains(DifSource::TAGS_ONES) && application && reference;
    if all || of_application || of_tags {
        Ones::ChecksAreOff
    } else {
        Ones::No
    }
}

/// Whether an operation reads integrity fields, and whether it writes some.
pub(super) fn sides(opcode: Opcode) -> (bool, bool) {
    match opcode {
        Opcode::DIF_INSERT => (false, true),
        Opcode::DIF_UPDATE => (true, true),
        _ => (true, false),
    }
}

/// How many bytes of the source and of the destination a block of a DIF operation has.
pub(crate) fn strides(descriptor: &Descriptor) -> (u32, u32) {
    let block = descriptor.dif_fields().block();
    let (bare, whole) = (block.bytes(), block.bytes_with_field());
    match descriptor.opcode() {
        Opcode::DIF_INSERT => (bare, whole),
        Opcode::DIF_STRIP => (whole, bare),
        Opcode::DIF_UPDATE => (whole, whole),
        _ => (whole, 0),
    }
}

/// The guard of a block: CRC-16/T10-DIF, polynomial 8BB7h.
pub(super) fn guard(flags: DifFlags, block: &[u8]) -> u16 {
    let seed = if flags.contains(DifFlags::INVERT_SEED) {
        u16::MAX
    } else {
        0
    };
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc16T10Dif, seed.into());
    digest.update(block);
    let [low, high, ..] = digest.get_state().to_le_bytes();
    let crc = u16::from_le_bytes([low, high]);
    if flags.contains(DifFlags::INVERT_RESULT) {
        !crc
    } else {
        crc
    }
}

/// The application tag as it is written.
pub(super) const fn written_application(tags: DifTags) -> u16 {
    tags.application & !tags.application_mask
}
