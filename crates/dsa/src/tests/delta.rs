//! Delta records (DSA §8.3: create delta record, apply delta record).

use super::scattered::{BASE, RECORD, Scattered};
use crate::spec::{CreateDelta, DeltaResult, Descriptor, Status};
use crate::testing::Host;

const ORIGINAL: u64 = BASE;
const MODIFIED: u64 = BASE + 0x8000;
const DELTA: u64 = BASE + 0x1_0000;

fn into_delta(max_bytes: u32) -> CreateDelta {
    CreateDelta {
        record: DELTA,
        max_bytes,
        ..CreateDelta::default()
    }
}

/// A process with two pieces of memory that differ in three words.
fn with_differences(host: &Host) -> Scattered<'_> {
    let scattered = Scattered::new(host, &[]);
    let mut memory = scattered.memory();
    memory.put(MODIFIED + 0x10, b"differs.");
    memory.put(MODIFIED + 0xff8, b"at end.");
    memory.put(MODIFIED + 0x1000, b"next");
    scattered.load(&memory);
    scattered
}

#[test]
fn an_entry_is_the_number_of_a_word_and_its_new_contents() {
    let host = Host::new();
    let mut scattered = with_differences(&host);
    let record = scattered.run(Descriptor::create_delta(
        ORIGINAL,
        MODIFIED,
        0x2000,
        into_delta(80),
    ));
    assert_eq!(record.status(), Status::SUCCESS);
    assert_eq!(record.result, DeltaResult::COMPLETE.0);
    assert_eq!((record.bytes_completed, record.delta_bytes()), (0, 30));
    assert_eq!(
        scattered.memory().at(DELTA, 30),
        b"\x02\x00differs.\xff\x01at end.\0\x00\x02next\0\0\0\0"
    );
}

#[test]
fn what_was_created_can_be_applied() {
    let host = Host::new();
    let mut scattered = with_differences(&host);
    scattered.run(Descriptor::create_delta(
        ORIGINAL,
        MODIFIED,
        0x2000,
        into_delta(80),
    ));
    let record = scattered.run(Descriptor::apply_delta(DELTA, 30, ORIGINAL, 0x2000));
    assert_eq!(
        (record.status(), record.bytes_completed),
        (Status::SUCCESS, 0)
    );
    let memory = scattered.memory();
    assert_eq!(memory.at(ORIGINAL, 0x2000), memory.at(MODIFIED, 0x2000));
}

#[test]
fn equal_memory_has_an_empty_record() {
    let host = Host::new();
    let mut scattered = with_differences(&host);
    let record = scattered.run(Descriptor::create_delta(
        ORIGINAL + 0x4000,
        MODIFIED + 0x4000,
        0x1000,
        into_delta(80),
    ));
    assert_eq!(record.result, DeltaResult::EQUAL.0);
    assert_eq!((record.bytes_completed, record.delta_bytes()), (0, 0));
}

/// The record is as full as it can be, and the bytes completed are those that it is about.
#[test]
fn a_record_that_is_too_small_says_how_far_it_came() {
    let host = Host::new();
    let mut scattered = Scattered::new(&host, &[]);
    let mut memory = scattered.memory();
    for word in (0..0x1000).step_by(0x100) {
        memory.put(MODIFIED + word, b"!");
    }
    scattered.load(&memory);
    let record = scattered.run(Descriptor::create_delta(
        ORIGINAL,
        MODIFIED,
        0x1000,
        into_delta(80),
    ));
    assert_eq!(record.status(), Status::SUCCESS);
    assert_eq!(record.result, DeltaResult::OVERFLOWED.0);
    assert_eq!((record.bytes_completed, record.delta_bytes()), (0x800, 80));
    assert_eq!(scattered.memory().at(DELTA + 80, 8), [0; 8]);
}

/// There may be more than one expected result: each has its bit.
#[test]
fn the_expected_results_are_a_mask() {
    let host = Host::new();
    let mut scattered = with_differences(&host);
    let cases = [
        (0b010, Status::SUCCESS),
        (0b110, Status::SUCCESS),
        (0b111, Status::SUCCESS),
        (0b101, Status::SUCCESS_UNEXPECTED),
        (0b000, Status::SUCCESS_UNEXPECTED),
    ];
    for (expected, status) in cases {
        let fields = CreateDelta {
            expected,
            ..into_delta(80)
        };
        let descriptor = Descriptor::create_delta(ORIGINAL, MODIFIED, 0x2000, fields)
            .with_flags(crate::spec::Flags::CHECK_RESULT);
        assert_eq!(scattered.run(descriptor).status(), status, "{expected:b}");
    }
    let expecting = |result: DeltaResult| {
        Descriptor::create_delta(ORIGINAL, MODIFIED, 0x2000, into_delta(80))
            .with_expected_result(result.0)
    };
    let unexpected = expecting(DeltaResult::EQUAL);
    let record = scattered.run(unexpected);
    assert_eq!(record.status(), Status::SUCCESS_UNEXPECTED);
    assert_eq!(
        (record.result, record.delta_bytes()),
        (DeltaResult::COMPLETE.0, 30)
    );
    let either = unexpected.with_expected_result(DeltaResult::COMPLETE.0);
    assert_eq!(scattered.run(either).status(), Status::SUCCESS);
}

#[test]
fn a_record_that_is_not_in_order_is_applied_up_to_there() {
    let host = Host::new();
    let mut scattered = Scattered::new(&host, &[]);
    let cases = [
        (*b"\x01\x0011111111\x01\x0022222222", Status::DELTA_ORDER),
        (*b"\x01\x0011111111\x00\x0022222222", Status::DELTA_ORDER),
        (*b"\x01\x0011111111\x00\x0222222222", Status::DELTA_OFFSET),
        (*b"\x01\x0011111111\xff\xff22222222", Status::DELTA_OFFSET),
    ];
    for (delta, status) in cases {
        let mut memory = scattered.memory();
        memory.put(DELTA, &delta);
        memory.put(ORIGINAL, &[0; 24]);
        scattered.load(&memory);
        let record = scattered.run(Descriptor::apply_delta(DELTA, 20, ORIGINAL, 0x1000));
        assert_eq!((record.status(), record.bytes_completed), (status, 10));
        assert_eq!(
            scattered.memory().at(ORIGINAL, 24),
            b"\0\0\0\0\0\0\0\x0011111111\0\0\0\0\0\0\0\0"
        );
    }
}

/// 512 KiB are the largest transfer: 65536 words. All of them differ.
#[test]
fn the_largest_record_has_an_entry_for_each_word() {
    let host = Host::new();
    let process = host.process(6);
    process.map(0x20_0000, 0x20_0000, 0x500);
    process.map(RECORD, RECORD, 1);
    let (original, modified, delta) = (0x20_0000_u64, 0x30_0000_u64, 0x40_0000_u64);
    let data: Vec<u8> = (0..0x8_0000_u32)
        .map(|i| (i / 8 + i % 8 + 1).to_le_bytes()[0] | 1)
        .collect();
    host.write(modified, &data);
    let queue = super::Dedicated::open(&host, 1, 6);
    let fields = CreateDelta {
        record: delta,
        max_bytes: 0xa_0000,
        ..CreateDelta::default()
    };
    queue
        .submit(Descriptor::create_delta(original, modified, 0x8_0000, fields).with_record(RECORD));
    crate::testing::run(&mut host.engine());
    let record = super::record(&host, RECORD);
    assert_eq!((record.result, record.delta_bytes()), (1, 0xa_0000));
    queue.submit(Descriptor::apply_delta(delta, 0xa_0000, original, 0x8_0000).with_record(RECORD));
    crate::testing::run(&mut host.engine());
    assert_eq!(super::record(&host, RECORD).status(), Status::SUCCESS);
    assert!(host.bytes(original, 0x8_0000) == data);
}
