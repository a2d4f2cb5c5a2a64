use zerocopy::IntoBytes;

use crate::spec::DifTags;

/// How far an operation has come. With the descriptor it is all that an engine needs to go on with it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SoFar {
    /// So many bytes are done, of what the descriptor's size counts; of a delta record that is applied, its bytes.
    pub(crate) done_bytes: u32,
    pub(super) carry: Carry,
}

/// What an operation takes along from piece to piece, besides how much is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Carry {
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
pub(super) struct Tags {
    pub(super) source: Option<DifTags>,
    pub(super) destination: Option<DifTags>,
}

impl SoFar {
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
