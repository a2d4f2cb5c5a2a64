//! CRC-32C as the device computes it, and the operation that does nothing else.

use crc_fast::{CrcAlgorithm, Digest};
use palisade_iommu::DmaError;

use super::so_far::Carry;
use super::{Means, SoFar, Stop, Yield, iova, piece_len, to_page_end};
use crate::spec::{Descriptor, Flags};

/// A CRC that is being computed. Its state is in reflected bit order, as the algorithm has it.
#[derive(Clone, Copy)]
pub(super) struct Crc {
    state: u32,
    flags: Flags,
}

impl Crc {
    /// Goes on from the CRC of what came before: of the pieces that are done, or else the seed.
    pub(super) fn resume(
        means: &mut Means<'_>,
        descriptor: &Descriptor,
        so_far: &mut SoFar,
    ) -> Result<Self, Stop> {
        let value = match so_far.carry {
            Carry::Crc(value) => value,
            _ => seed(means, descriptor)?,
        };
        so_far.carry = Carry::Crc(value);
        let flags = descriptor.flags();
        let state = if flags.contains(Flags::BYPASS_CRC_INVERSION) {
            value.reverse_bits()
        } else {
            !value
        };
        Ok(Self { state, flags })
    }

    /// What a completion record says, or a descriptor that goes on.
    pub(super) fn value(self) -> u32 {
        if self.flags.contains(Flags::BYPASS_CRC_INVERSION) {
            self.state.reverse_bits()
        } else {
            !self.state
        }
    }

    /// Takes in further bytes, and may leave something else in their place.
    pub(super) fn take(&mut self, bytes: &mut [u8]) {
        if self.flags.contains(Flags::BYPASS_DATA_REFLECTION) {
            for byte in &mut *bytes {
                *byte = byte.reverse_bits();
            }
        }
        let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, self.state.into());
        digest.update(bytes);
        let [a, b, c, d, ..] = digest.get_state().to_le_bytes();
        self.state = u32::from_le_bytes([a, b, c, d]);
    }
}

fn seed(means: &mut Means<'_>, descriptor: &Descriptor) -> Result<u32, DmaError> {
    let fields = descriptor.crc_seed();
    if !descriptor.flags().contains(Flags::READ_CRC_SEED) {
        return Ok(fields.seed);
    }
    let mut bytes = [0; 4];
    means
        .port
        .read(means.by, iova(fields.address), &mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

/// Computes the CRC of `size` bytes at the first address.
pub(super) fn run(
    means: &mut Means<'_>,
    descriptor: &Descriptor,
    so_far: &mut SoFar,
) -> Result<Yield, Stop> {
    let mut crc = Crc::resume(means, descriptor, so_far)?;
    while so_far.done_bytes < descriptor.size {
        let at = descriptor.first + u64::from(so_far.done_bytes);
        let len = means.piece(descriptor.size - so_far.done_bytes, to_page_end(at))?;
        let piece = &mut means.scratch.one[..piece_len(len)];
        means.port.read(means.by, iova(at), piece)?;
        crc.take(piece);
        so_far.carry = Carry::Crc(crc.value());
        means.account(&mut so_far.done_bytes, len);
    }
    Ok(Yield::default())
}
