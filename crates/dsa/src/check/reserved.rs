use crate::spec::{Descriptor, DifDestination, DifSource, Flags, Opcode};

/// Bits 30:20 of the first word.
const IDENTITY: u32 = 0x7ff0_0000;
/// Bits 3:0 of the DIF flags are the size of blocks and how guards are computed.
const DIF_FLAGS: u8 = 0x0f;

type Specific = [u8; 24];
type Words = [u64; 3];

const NOTHING: Specific = [0; 24];

/// The mask of a range of the specific bytes.
const fn bytes(mut mask: Specific, from: usize, to: usize) -> Specific {
    let mut at = from;
    while at < to {
        mask[at] = 0xff;
        at += 1;
    }
    mask
}

const fn bits(mut mask: Specific, at: usize, bits: u8) -> Specific {
    mask[at] = bits;
    mask
}

const ADDRESS: Specific = bytes(NOTHING, 0, 8);
const SIZE: Specific = bytes(NOTHING, 0, 4);
const RESULT: Specific = bytes(NOTHING, 0, 1);
const CREATE_DELTA: Specific = bits(bytes(NOTHING, 0, 12), 16, 0x07);
const CRC: Specific = bytes(NOTHING, 0, 4);
const CRC_AT: Specific = bytes(CRC, 8, 16);
const SOURCE: Specific = bits(
    bytes(bits(NOTHING, 0, DifSource::all().bits()), 8, 16),
    2,
    DIF_FLAGS,
);
/// Without a source there is nothing to pass on.
const INSERT: Specific = bits(
    bytes(
        bits(
            NOTHING,
            1,
            DifDestination::APPLICATION_INCREASES.bits() | DifDestination::REFERENCE_FIXED.bits(),
        ),
        16,
        24,
    ),
    2,
    DIF_FLAGS,
);
const UPDATE: Specific = bits(bytes(SOURCE, 16, 24), 1, DifDestination::all().bits());

/// Whether something that is reserved for the operation is not zero.
#[inline]
pub(super) fn is_used(descriptor: &Descriptor) -> bool {
    let words: Words = zerocopy::transmute!(descriptor.specific);
    let used: Words = zerocopy::transmute!(*specific(descriptor));
    let bits = (words[0] & !used[0]) | (words[1] & !used[1]) | (words[2] & !used[2]);
    let identity = descriptor.identity & IDENTITY;
    bits | u64::from(identity) | u64::from(descriptor.reserved) != 0
        || has_reserved_addresses(descriptor)
}

#[inline]
fn specific(descriptor: &Descriptor) -> &'static Specific {
    let has = |flag| descriptor.flags().contains(flag);
    match descriptor.opcode() {
        Opcode::COMPARE | Opcode::COMPARE_PATTERN => &RESULT,
        Opcode::MEMORY_FILL if has(Flags::WIDE_PATTERN) => &ADDRESS,
        Opcode::CREATE_DELTA => &CREATE_DELTA,
        Opcode::APPLY_DELTA => &SIZE,
        Opcode::DUALCAST => &ADDRESS,
        Opcode::CRC | Opcode::COPY_CRC if has(Flags::READ_CRC_SEED) => &CRC_AT,
        Opcode::CRC | Opcode::COPY_CRC => &CRC,
        Opcode::DIF_CHECK | Opcode::DIF_STRIP => &SOURCE,
        Opcode::DIF_INSERT => &INSERT,
        Opcode::DIF_UPDATE => &UPDATE,
        _ => &NOTHING,
    }
}

/// The addresses and the size that the operation has no use for.
#[inline]
fn has_reserved_addresses(descriptor: &Descriptor) -> bool {
    let Descriptor {
        first,
        second,
        size,
        ..
    } = *descriptor;
    match descriptor.opcode() {
        Opcode::NO_OP | Opcode::DRAIN => (first | second, size) != (0, 0),
        Opcode::BATCH | Opcode::CRC | Opcode::DIF_CHECK => second != 0,
        Opcode::CACHE_FLUSH => first != 0,
        _ => false,
    }
}
