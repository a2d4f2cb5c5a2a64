use proptest::prelude::*;

use super::{Dedicated, record};
use crate::spec::{Descriptor, Flags, Opcode, Status};
use crate::testing::{Host, run};

const DATA: u64 = 0x10_0000;
const DATA_BYTES: usize = 0x2_0000;
const RECORD: u64 = 0x8_0000;

/// A process that sees the data as it stands, with the pages in descending order in memory.
fn scattered(host: &Host) {
    let process = host.process(5);
    let pages = DATA_BYTES as u64 / 4096;
    for page in 0..pages {
        process.map(DATA + page * 4096, DATA + (pages - 1 - page) * 4096, 1);
    }
    process.map(RECORD, RECORD, 1);
}

/// The data as the process sees it.
fn seen(host: &Host) -> Vec<u8> {
    let pages = DATA_BYTES / 4096;
    let page = |i: usize| host.bytes(DATA + ((pages - 1 - i) * 4096) as u64, 4096);
    (0..pages).flat_map(page).collect()
}

fn pattern() -> Vec<u8> {
    (0..DATA_BYTES)
        .map(|i| (i * 7 + i / 251 % 256).to_le_bytes()[0])
        .collect()
}

#[derive(Clone, Debug)]
enum Operation {
    Move {
        from: usize,
        to: usize,
        len: usize,
    },
    Fill {
        pattern: u64,
        to: usize,
        len: usize,
    },
    Compare {
        one: usize,
        other: usize,
        len: usize,
    },
    ComparePattern {
        pattern: u64,
        at: usize,
        len: usize,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    let place = 0..DATA_BYTES - 0x4000;
    let len = prop_oneof![1_usize..100, 1_usize..0x4000];
    let pattern = prop_oneof![Just(0_u64), any::<u64>()];
    prop_oneof![
        4 => (place.clone(), place.clone(), len.clone())
            .prop_map(|(from, to, len)| Operation::Move { from, to, len }),
        2 => (place.clone(), 0_usize..0x100, len.clone())
            .prop_map(|(from, by, len)| Operation::Move { from, to: from + by, len }),
        2 => (pattern.clone(), place.clone(), len.clone())
            .prop_map(|(pattern, to, len)| Operation::Fill { pattern, to, len }),
        2 => (place.clone(), place.clone(), len.clone())
            .prop_map(|(one, other, len)| Operation::Compare { one, other, len }),
        1 => (pattern, place, len)
            .prop_map(|(pattern, at, len)| Operation::ComparePattern { pattern, at, len }),
    ]
}

impl Operation {
    fn descriptor(&self) -> Descriptor {
        let at = |offset: usize| DATA + offset as u64;
        let size = |len: usize| u32::try_from(len).unwrap();
        let descriptor = match *self {
            Self::Move { from, to, len } => Descriptor::memory_move(at(from), at(to), size(len)),
            Self::Fill { pattern, to, len } => Descriptor::memory_fill(pattern, at(to), size(len)),
            Self::Compare { one, other, len } => Descriptor::compare(at(one), at(other), size(len)),
            Self::ComparePattern {
                pattern,
                at: place,
                len,
            } => Descriptor::of(Opcode::COMPARE_PATTERN, at(place), pattern, size(len)),
        };
        descriptor.with_record(RECORD)
    }

    /// The same by software. Says where the first difference is, of a comparison that finds one.
    fn model(&self, data: &mut [u8]) -> Option<usize> {
        let repeat = |pattern: u64, i: usize| pattern.to_le_bytes()[i % 8];
        match *self {
            Self::Move { from, to, len } => {
                data.copy_within(from..from + len, to);
                None
            }
            Self::Fill { pattern, to, len } => {
                for (i, byte) in data[to..to + len].iter_mut().enumerate() {
                    *byte = repeat(pattern, i);
                }
                None
            }
            Self::Compare { one, other, len } => {
                (0..len).find(|i| data[one + i] != data[other + i])
            }
            Self::ComparePattern { pattern, at, len } => {
                (0..len).find(|i| data[at + i] != repeat(pattern, *i))
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn r73_operations_do_what_software_does(
        operations in proptest::collection::vec(operation(), 1..12)
    ) {
        let host = Host::new();
        scattered(&host);
        host.write(DATA, &pattern());
        let mut expected = seen(&host);
        let queue = Dedicated::open(&host, 0, 5);
        let mut engine = host.engine();
        for operation in &operations {
            queue.submit(operation.descriptor());
            run(&mut engine);
            let difference = operation.model(&mut expected);
            let record = record(&host, RECORD);
            prop_assert_eq!(record.status(), Status::SUCCESS);
            let is_compare = !matches!(operation, Operation::Move { .. } | Operation::Fill { .. });
            if is_compare {
                prop_assert_eq!(record.result == 1, difference.is_some());
            }
            prop_assert_eq!(record.bytes_completed as usize, difference.unwrap_or(0));
        }
        prop_assert!(seen(&host) == expected);
        prop_assert_eq!(queue.errors(), vec![]);
    }
}

#[test]
fn r69_what_opcap_does_not_have_is_refused_by_its_status() {
    let host = Host::new();
    scattered(&host);
    let queue = Dedicated::open(&host, 0, 5);
    let mut engine = host.engine();
    for opcode in 0..=u8::MAX {
        let opcode = Opcode(opcode);
        if crate::OPERATIONS.contains(opcode) {
            continue;
        }
        queue.submit(Descriptor::of(opcode, DATA, DATA, 8).with_record(RECORD));
        run(&mut engine);
        assert_eq!(
            record(&host, RECORD).status(),
            Status::UNSUPPORTED_OPERATION
        );
    }
}

#[test]
fn r69_what_the_specification_forbids_has_its_status() {
    let host = Host::new();
    scattered(&host);
    let queue = Dedicated::open(&host, 0, 5);
    let mut engine = host.engine();
    let good = Descriptor::memory_move(DATA, DATA + 0x1000, 64);
    let cases = [
        (good.with_flags(Flags::FENCE), Status::INVALID_FLAGS),
        (
            good.with_flags(Flags::DESTINATION_READBACK),
            Status::INVALID_FLAGS,
        ),
        (
            Descriptor::no_op().with_flags(Flags::BLOCK_ON_FAULT),
            Status::INVALID_FLAGS,
        ),
        (
            Descriptor {
                identity: 1 << 20,
                ..good
            },
            Status::RESERVED_NOT_ZERO,
        ),
        (
            Descriptor {
                reserved: 1,
                ..good
            },
            Status::RESERVED_NOT_ZERO,
        ),
        (Descriptor { size: 0, ..good }, Status::TRANSFER_SIZE),
        (
            Descriptor {
                size: (1 << 31) + 1,
                ..good
            },
            Status::TRANSFER_SIZE,
        ),
        (
            Descriptor {
                first: u64::MAX - 8,
                ..good
            },
            Status::TRANSLATION,
        ),
        (good.with_interrupt(2), Status::INTERRUPT_HANDLE),
        (Descriptor::batch(DATA, 1), Status::DESCRIPTOR_COUNT),
        (Descriptor::batch(DATA, 33), Status::DESCRIPTOR_COUNT),
        (Descriptor::batch(DATA + 32, 2), Status::LIST_ALIGNMENT),
    ];
    for (descriptor, status) in cases {
        queue.submit(descriptor.with_record(RECORD));
        run(&mut engine);
        assert_eq!(record(&host, RECORD).status(), status, "{descriptor:x?}");
    }
    assert_eq!(queue.errors(), []);
    // Where there is no record to write, the error register tells.
    queue.submit(good.with_record(RECORD + 8));
    queue.submit(good.with_flags(Flags::REQUEST_RECORD));
    queue.submit(Descriptor { size: 0, ..good });
    run(&mut engine);
    let codes: Vec<_> = queue.errors().iter().map(|error| error.code).collect();
    let expected = [
        Status::RECORD_ALIGNMENT,
        Status::INVALID_FLAGS,
        Status::TRANSFER_SIZE,
    ];
    assert_eq!(codes, expected.map(Into::into));
    assert_eq!(
        queue.errors()[1].invalid_flags,
        Flags::REQUEST_RECORD.bits()
    );
    assert_eq!(queue.errors()[0].operation, Some(Opcode::MEMORY_MOVE));
    assert_eq!(queue.errors()[0].queue, Some(3));
    assert_eq!(queue.errors()[0].pasid, 5);
}

#[test]
fn a_comparison_reports_the_unexpected() {
    let host = Host::new();
    scattered(&host);
    host.write(RECORD - 0x1000, &[0; 32]);
    let queue = Dedicated::open(&host, 0, 5);
    let compare = Descriptor::compare(DATA, DATA + 0x1000, 64).with_flags(Flags::CHECK_RESULT);
    let mut expected_different = compare;
    expected_different.specific[0] = 1;
    queue.submit(compare.with_record(RECORD));
    queue.submit(expected_different.with_record(RECORD + 32));
    run(&mut host.engine());
    assert_eq!(record(&host, RECORD).status(), Status::SUCCESS);
    assert_eq!(
        record(&host, RECORD + 32).status(),
        Status::SUCCESS_UNEXPECTED
    );
}

#[test]
fn an_interrupt_comes_when_it_was_asked_for() {
    let host = Host::new();
    scattered(&host);
    let queue = Dedicated::open(&host, 0, 5);
    queue.submit(Descriptor::no_op().with_record(RECORD));
    queue.submit(Descriptor::no_op().with_interrupt(1));
    run(&mut host.engine());
    assert_eq!(*queue.driver.interrupts.lock().unwrap(), [1]);
}

#[test]
fn a_batch_runs_its_list_and_counts_what_failed() {
    let host = Host::new();
    scattered(&host);
    let list = 0x9_0000;
    host.process(6).map(list, list, 1);
    let process = host.process(7);
    process.map(list, list, 1);
    process.map(DATA, DATA, 2);
    process.map(RECORD, RECORD, 1);
    let queue = Dedicated::open(&host, 0, 7);
    let put = |index: u64, descriptor: Descriptor| {
        host.write(
            list + index * 64,
            zerocopy::IntoBytes::as_bytes(&descriptor),
        );
    };
    host.write(DATA, b"palisade");
    put(
        0,
        Descriptor::memory_move(DATA, DATA + 0x800, 8).with_record(RECORD + 32),
    );
    put(1, Descriptor::drain().with_record(RECORD + 64));
    put(2, Descriptor::memory_fill(!0, DATA + 0x1000, 8));
    put(
        3,
        Descriptor::no_op()
            .with_flags(Flags::FENCE)
            .with_record(RECORD + 96),
    );
    queue.submit(Descriptor::batch(list, 4).with_record(RECORD));
    run(&mut host.engine());
    let batch = record(&host, RECORD);
    assert_eq!(
        (batch.status(), batch.bytes_completed),
        (Status::BATCH_FAILED, 3)
    );
    assert_eq!(record(&host, RECORD + 32).status(), Status::SUCCESS);
    assert_eq!(
        record(&host, RECORD + 64).status(),
        Status::UNSUPPORTED_OPERATION
    );
    assert_eq!(
        record(&host, RECORD + 96).status(),
        Status::NONE,
        "behind the fence"
    );
    assert_eq!(host.bytes(DATA + 0x800, 8), b"palisade");
    assert_eq!(host.bytes(DATA + 0x1000, 8), [0xff; 8]);
    assert_eq!(queue.errors(), []);
}
