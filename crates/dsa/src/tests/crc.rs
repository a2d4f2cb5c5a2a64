//! CRC generation and copy with CRC (DSA §8.3).

use super::model::crc32c;
use super::scattered::{BASE, Scattered};
use crate::spec::{Descriptor, Flags, Status};
use crate::testing::Host;

const FROM: u64 = BASE;
const TO: u64 = BASE + 0x8000;

fn with_digits(host: &Host) -> Scattered<'_> {
    let scattered = Scattered::new(host, &[]);
    let mut memory = scattered.memory();
    memory.put(FROM, b"123456789");
    scattered.load(&memory);
    scattered
}

#[test]
fn the_crc_is_that_of_iscsi() {
    let host = Host::new();
    let mut scattered = with_digits(&host);
    let record = scattered.run(Descriptor::crc(FROM, 9));
    assert_eq!(
        (record.status(), record.crc()),
        (Status::SUCCESS, 0xe306_9283)
    );
    assert_eq!(record.bytes_completed, 0);
}

#[test]
fn a_copy_has_the_crc_of_what_it_copied() {
    let host = Host::new();
    let mut scattered = with_digits(&host);
    let record = scattered.run(Descriptor::copy_crc(FROM, TO + 1, 9));
    assert_eq!(
        (record.status(), record.crc()),
        (Status::SUCCESS, 0xe306_9283)
    );
    assert_eq!(scattered.memory().at(TO, 11), b"\x00123456789\0");
}

#[test]
fn a_crc_goes_on_from_its_seed() {
    let host = Host::new();
    let mut scattered = with_digits(&host);
    for flags in [
        Flags::empty(),
        Flags::BYPASS_CRC_INVERSION,
        Flags::BYPASS_DATA_REFLECTION,
        Flags::BYPASS_CRC_INVERSION | Flags::BYPASS_DATA_REFLECTION,
    ] {
        let part = scattered.run(Descriptor::crc(FROM, 4).with_flags(flags));
        let rest = Descriptor::crc(FROM + 4, 5).with_crc_seed(part.crc());
        let rest = scattered.run(rest.with_flags(flags));
        assert_eq!(rest.crc(), crc32c(b"123456789", 0, flags), "{flags:?}");
    }
}

#[test]
fn the_seed_may_be_in_memory() {
    let host = Host::new();
    let mut scattered = with_digits(&host);
    let mut memory = scattered.memory();
    memory.put(TO + 4, &0x1234_5678_u32.to_le_bytes());
    scattered.load(&memory);
    let expected = crc32c(b"123456789", 0x1234_5678, Flags::empty());
    let record = scattered.run(Descriptor::crc(FROM, 9).with_crc_seed_at(TO + 4));
    assert_eq!(record.crc(), expected);
    // It was read before the copy overwrites it.
    let record = scattered.run(Descriptor::copy_crc(FROM, TO, 9).with_crc_seed_at(TO + 4));
    assert_eq!(record.crc(), expected);
}

/// What a fault leaves is the CRC of what was done.
#[test]
fn a_fault_leaves_the_crc_so_far() {
    let host = Host::new();
    let mut missing = [false; 32];
    missing[1] = true;
    let mut scattered = Scattered::new(&host, &missing);
    let record = scattered.run(Descriptor::crc(FROM + 0xff0, 0x20));
    assert_eq!(record.status(), Status::PAGE_FAULT);
    assert_eq!(
        (record.bytes_completed, record.fault_address),
        (0x10, FROM + 0x1000)
    );
    assert_eq!(record.crc(), crc32c(&[0; 0x10], 0, Flags::empty()));
    let seed = FROM + 0x1004;
    let record = scattered.run(Descriptor::crc(FROM, 8).with_crc_seed_at(seed));
    assert_eq!(record.status(), Status::PAGE_FAULT);
    assert_eq!((record.bytes_completed, record.fault_address), (0, seed));
}
