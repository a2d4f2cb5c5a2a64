use zerocopy::IntoBytes;

use super::dif;
use crate::spec::{DELTA_ENTRY_BYTES, Descriptor, DifTags, Opcode};

/// The size of the words that delta records are about.
const WORD_BYTES: u32 = 8;

/// How far an operation has come. With the descriptor it is all that an engine needs to go on with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SoFar {
    /// So many bytes are done, of what the descriptor's size counts; of a delta record that is applied, its bytes.
    pub(crate) done_bytes: u32,
    pub(crate) carry: Carry,
}

/// What an operation takes along from piece to piece, besides how much is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Carry {
    /// Nothing, or nothing yet.
    #[default]
    Nothing,
    /// The CRC of what is done, as a completion record has it.
    Crc(u32),
    /// How many bytes of a delta record were written.
    DeltaBytes(u32),
    /// The offset of the entry of a delta record that was applied last.
    DeltaOffset(u16),
    /// The tags of the next block.
    Tags(Tags),
}

/// The tags of a block in the source and in the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tags {
    pub(crate) source: Option<DifTags>,
    pub(crate) destination: Option<DifTags>,
}

impl SoFar {
    /// Whether the operation of a descriptor that was checked can have come so far.
    pub(crate) fn fits(&self, descriptor: &Descriptor) -> bool {
        let opcode = descriptor.opcode();
        let (most, unit) = match opcode {
            Opcode::NO_OP | Opcode::DRAIN => (0, 1),
            Opcode::APPLY_DELTA => (descriptor.delta_bytes(), DELTA_ENTRY_BYTES),
            Opcode::CREATE_DELTA => (descriptor.size, WORD_BYTES),
            Opcode::DIF_CHECK | Opcode::DIF_INSERT | Opcode::DIF_STRIP | Opcode::DIF_UPDATE => {
                (descriptor.size, dif::strides(descriptor).0)
            }
            _ => (descriptor.size, 1),
        };
        self.done_bytes <= most && self.done_bytes.is_multiple_of(unit) && self.carries(descriptor)
    }

    /// Whether what it takes along is what the operation takes along.
    fn carries(&self, descriptor: &Descriptor) -> bool {
        let opcode = descriptor.opcode();
        let begun = self.done_bytes > 0;
        match opcode {
            Opcode::CRC | Opcode::COPY_CRC => match self.carry {
                Carry::Nothing => !begun,
                carry => matches!(carry, Carry::Crc(_)),
            },
            Opcode::CREATE_DELTA => match self.carry {
                Carry::Nothing => !begun,
                Carry::DeltaBytes(bytes) => {
                    let entries = bytes / DELTA_ENTRY_BYTES;
                    bytes.is_multiple_of(DELTA_ENTRY_BYTES)
                        && bytes <= descriptor.create_delta_fields().max_bytes
                        && entries <= self.done_bytes / WORD_BYTES
                }
                _ => false,
            },
            Opcode::APPLY_DELTA => match self.carry {
                Carry::Nothing => !begun,
                carry => begun && matches!(carry, Carry::DeltaOffset(_)),
            },
            Opcode::DIF_CHECK | Opcode::DIF_INSERT | Opcode::DIF_STRIP | Opcode::DIF_UPDATE => {
                let (reads, writes) = dif::sides(opcode);
                match self.carry {
                    Carry::Nothing => !begun,
                    Carry::Tags(tags) => {
                        tags.source.is_some() == reads && tags.destination.is_some() == writes
                    }
                    _ => false,
                }
            }
            _ => self.carry == Carry::Nothing,
        }
    }

    /// What a completion record says of it, for the driver to go on from.
    pub(crate) fn report(&self) -> [u8; 16] {
        let word = |word: u32| zerocopy::transmute!([word.to_le_bytes(), [0; 4], [0; 4], [0; 4]]);
        match self.carry {
            Carry::Nothing | Carry::DeltaOffset(_) => [0; 16],
            Carry::Crc(crc) => word(crc),
            Carry::DeltaBytes(bytes) => word(bytes),
            Carry::Tags(Tags {
                source,
                destination,
            }) => {
                let tags = [source, destination].map(Option::unwrap_or_default);
                let mut bytes = [0; 16];
                bytes.copy_from_slice(tags.as_bytes());
                bytes
            }
        }
    }
}
