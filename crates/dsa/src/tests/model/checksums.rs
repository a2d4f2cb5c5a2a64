use crate::spec::{DifFlags, Flags};

/// CRC-32C with polynomial 1EDC6F41h, bit by bit, highest first (RFC 3720 §12.1; DSA §8.3). The value is complemented and
/// its bits are reversed on the way in and out, and the bits of each byte are reversed, unless the flags say otherwise.
pub(in super::super) fn crc32c(data: &[u8], seed: u32, flags: Flags) -> u32 {
    let plain = flags.contains(Flags::BYPASS_CRC_INVERSION);
    let mut crc = if plain { seed } else { (!seed).reverse_bits() };
    for byte in data {
        let byte = if flags.contains(Flags::BYPASS_DATA_REFLECTION) {
            *byte
        } else {
            byte.reverse_bits()
        };
        crc ^= u32::from(byte) << 24;
        for _ in 0..8 {
            let carry = crc >> 31;
            crc = (crc << 1) ^ (0x1edc_6f41 * carry);
        }
    }
    if plain { crc } else { !crc.reverse_bits() }
}

/// CRC-16/T10-DIF, bit by bit.
pub(in super::super) fn t10_guard(data: &[u8], flags: DifFlags) -> u16 {
    let all = |flag| if flags.contains(flag) { u16::MAX } else { 0 };
    let mut crc = all(DifFlags::INVERT_SEED);
    for byte in data {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            let carry = crc >> 15;
            crc = (crc << 1) ^ (0x8bb7 * carry);
        }
    }
    crc ^ all(DifFlags::INVERT_RESULT)
}

#[test]
fn checksums_of_the_digits_are_as_published() {
    let digits = b"123456789";
    assert_eq!(crc32c(digits, 0, Flags::empty()), 0xe306_9283);
    assert_eq!(t10_guard(digits, DifFlags::empty()), 0xd0db);
}
