//! What each operation does not take (DSA §5, §8).

use super::scattered::{BASE, Scattered};
use crate::spec::{
    CreateDelta, Descriptor, DifBlock, DifDestination, DifFields, DifTags, Flags, Opcode, Status,
};
use crate::testing::Host;

const FROM: u64 = BASE;
const TO: u64 = BASE + 0x8000;
const THIRD: u64 = BASE + 0x1_0000;

fn create_delta() -> Descriptor {
    let fields = CreateDelta {
        record: THIRD,
        max_bytes: 80,
        ..CreateDelta::default()
    };
    Descriptor::create_delta(FROM, TO, 0x1000, fields)
}

fn fields() -> DifFields {
    DifFields::of(DifBlock::Of512)
}

/// A descriptor of each operation that touches memory, with nothing wrong in it.
fn good() -> Vec<Descriptor> {
    vec![
        Descriptor::memory_move(FROM, TO, 64),
        Descriptor::memory_fill(1, TO, 64),
        Descriptor::memory_fill_wide(1, TO, 64),
        Descriptor::compare(FROM, TO, 64),
        Descriptor::compare_pattern(FROM, 0, 64),
        create_delta(),
        // An entry of zeros, for the first word.
        Descriptor::apply_delta(THIRD, 10, TO, 64),
        Descriptor::dualcast(FROM, TO, THIRD, 64),
        Descriptor::crc(FROM, 64),
        Descriptor::copy_crc(FROM, TO, 64),
        Descriptor::crc(FROM, 64).with_crc_seed_at(THIRD),
        Descriptor::dif_insert(FROM, TO, 1024, fields()),
        Descriptor::dif_check(TO, 520, fields()),
        Descriptor::dif_strip(TO, THIRD, 520, fields()),
        Descriptor::dif_update(TO, THIRD, 520, fields()),
        Descriptor::cache_flush(FROM, 64),
    ]
}

fn status_of(descriptor: Descriptor) -> Status {
    let host = Host::new();
    let mut scattered = Scattered::new(&host, &[]);
    let record = scattered.run(descriptor);
    assert_eq!(scattered.queue.errors(), []);
    record.status()
}

fn all_have_their_status(cases: &[(Descriptor, Status)]) {
    for (descriptor, status) in cases {
        assert_eq!(status_of(*descriptor), *status, "{descriptor:x?}");
    }
}

#[test]
fn r69_every_operation_of_opcap_is_taken() {
    let host = Host::new();
    let mut scattered = Scattered::new(&host, &[]);
    let mut done = vec![Opcode::NO_OP, Opcode::BATCH, Opcode::DRAIN];
    for descriptor in good() {
        let record = scattered.run(descriptor);
        assert_eq!(record.status(), Status::SUCCESS, "{descriptor:x?}");
        done.push(descriptor.opcode());
    }
    for number in 0..=u8::MAX {
        let opcode = Opcode(number);
        assert_eq!(crate::OPERATIONS.contains(opcode), done.contains(&opcode));
    }
}

/// A traffic class for each address, cache control where something is written, and what only one operation has.
#[test]
fn r69_flags_that_an_operation_does_not_have_are_named_in_the_record() {
    let own = |opcode: Opcode| match opcode {
        Opcode::MEMORY_MOVE
        | Opcode::APPLY_DELTA
        | Opcode::DIF_INSERT
        | Opcode::DIF_STRIP
        | Opcode::DIF_UPDATE => 0x0700,
        Opcode::MEMORY_FILL => 0x4_0500,
        Opcode::COMPARE => 0x0680,
        Opcode::COMPARE_PATTERN => 0x0280,
        Opcode::CREATE_DELTA => 0x0f80,
        Opcode::DUALCAST => 0x0f00,
        Opcode::CRC => 0x7_0a00,
        Opcode::COPY_CRC => 0x7_0f00,
        Opcode::DIF_CHECK => 0x0200,
        Opcode::CACHE_FLUSH => 0x0400,
        _ => 0,
    };
    // Block on fault, a record, its class, strict order.
    let common = 0x300e;
    // An interrupt must be one of the client's; what these two flags change of a descriptor makes it another.
    let skipped = 0x0010 | Flags::READ_CRC_SEED.bits() | Flags::WIDE_PATTERN.bits();
    let host = Host::new();
    let mut scattered = Scattered::new(&host, &[]);
    for descriptor in good() {
        let allowed = common | own(descriptor.opcode());
        for bit in (0..24).map(|bit| 1 << bit).filter(|bit| bit & skipped == 0) {
            let flagged = descriptor.with_flags(Flags::from_bits_retain(bit));
            let record = scattered.run(flagged);
            if allowed & bit == 0 {
                assert_eq!(record.status(), Status::INVALID_FLAGS, "{flagged:x?}");
                assert_eq!(record.invalid_flags(), bit);
            } else {
                assert_ne!(record.status(), Status::INVALID_FLAGS, "{flagged:x?}");
            }
        }
    }
}

#[test]
fn r69_fields_that_an_operation_does_not_have_are_zero() {
    let used = |descriptor: &Descriptor| -> Vec<usize> {
        let wide = descriptor.flags().contains(Flags::WIDE_PATTERN);
        match descriptor.opcode() {
            Opcode::MEMORY_FILL if wide => (0..8).collect(),
            Opcode::COMPARE | Opcode::COMPARE_PATTERN => vec![0],
            Opcode::CREATE_DELTA => (0..12).chain([16]).collect(),
            Opcode::APPLY_DELTA => (0..4).collect(),
            Opcode::DUALCAST => (0..8).collect(),
            Opcode::CRC if descriptor.flags().contains(Flags::READ_CRC_SEED) => {
                (0..4).chain(8..16).collect()
            }
            Opcode::CRC | Opcode::COPY_CRC => (0..4).collect(),
            Opcode::DIF_CHECK | Opcode::DIF_STRIP => [0, 2].into_iter().chain(8..16).collect(),
            Opcode::DIF_INSERT => [1, 2].into_iter().chain(16..24).collect(),
            Opcode::DIF_UPDATE => (0..3).chain(8..24).collect(),
            _ => vec![],
        }
    };
    let host = Host::new();
    let mut scattered = Scattered::new(&host, &[]);
    for descriptor in good() {
        for at in (0..24).filter(|at| !used(&descriptor).contains(at)) {
            let mut wrong = descriptor;
            wrong.specific[at] |= 0x80;
            let record = scattered.run(wrong);
            assert_eq!(record.status(), Status::RESERVED_NOT_ZERO, "{wrong:x?}");
        }
    }
    let passing = DifFields {
        destination_flags: DifDestination::PASS_GUARD.bits(),
        ..fields()
    };
    let unknown = DifFields {
        flags: 0x10,
        ..fields()
    };
    let second = |descriptor| Descriptor {
        second: 8,
        ..descriptor
    };
    let of_source = DifFields {
        source: DifTags {
            reference: 1,
            ..DifTags::ZERO
        },
        ..fields()
    };
    let wrong = [
        Descriptor::dif_insert(FROM, TO, 512, passing),
        Descriptor::dif_insert(FROM, TO, 512, of_source),
        Descriptor::dif_check(FROM, 520, unknown),
        second(Descriptor::crc(FROM, 64)),
        second(Descriptor::dif_check(FROM, 520, fields())),
        second(Descriptor::batch(FROM, 2)),
        second(Descriptor::no_op()),
        second(Descriptor::drain()),
        Descriptor {
            size: 1,
            ..Descriptor::no_op()
        },
        Descriptor {
            first: FROM,
            ..Descriptor::cache_flush(TO, 64)
        },
    ];
    all_have_their_status(&wrong.map(|descriptor| (descriptor, Status::RESERVED_NOT_ZERO)));
}

#[test]
fn r69_sizes_are_those_that_the_operation_can_have() {
    let sized = |descriptor, size| Descriptor { size, ..descriptor };
    for descriptor in good() {
        assert_eq!(status_of(sized(descriptor, 0)), Status::TRANSFER_SIZE);
        let too_large = sized(descriptor, (1 << 31) + 8);
        assert_eq!(status_of(too_large), Status::TRANSFER_SIZE);
    }
    let room = |max_bytes| {
        let fields = CreateDelta {
            max_bytes,
            ..create_delta().create_delta_fields()
        };
        Descriptor::create_delta(FROM, TO, 0x1000, fields)
    };
    all_have_their_status(&[
        (sized(create_delta(), 0x8_0008), Status::TRANSFER_SIZE),
        (
            Descriptor::apply_delta(THIRD, 10, TO, 0x8_0008),
            Status::TRANSFER_SIZE,
        ),
        (room(70), Status::DELTA_SIZE),
        (room(85), Status::DELTA_SIZE),
        (
            Descriptor::apply_delta(THIRD, 0, TO, 64),
            Status::DELTA_SIZE,
        ),
        (
            Descriptor::apply_delta(THIRD, 15, TO, 64),
            Status::DELTA_SIZE,
        ),
        (
            Descriptor::dif_insert(FROM, TO, 520, fields()),
            Status::TRANSFER_SIZE,
        ),
        (
            Descriptor::dif_check(FROM, 512, fields()),
            Status::TRANSFER_SIZE,
        ),
        (
            Descriptor::dif_strip(FROM, TO, 521, fields()),
            Status::TRANSFER_SIZE,
        ),
        (
            Descriptor::dif_update(FROM, TO, 512, fields()),
            Status::TRANSFER_SIZE,
        ),
    ]);
}

#[test]
fn r69_addresses_are_aligned_as_the_operation_needs_them() {
    let moved = |descriptor: Descriptor, first, second, size| Descriptor {
        first: descriptor.first + first,
        second: descriptor.second + second,
        size: descriptor.size + size,
        ..descriptor
    };
    let apply = Descriptor::apply_delta(THIRD, 10, TO, 64);
    all_have_their_status(&[
        (moved(create_delta(), 4, 0, 0), Status::ADDRESS_ALIGNMENT),
        (moved(create_delta(), 0, 4, 0), Status::ADDRESS_ALIGNMENT),
        (moved(create_delta(), 0, 0, 4), Status::ADDRESS_ALIGNMENT),
        (moved(apply, 0, 4, 0), Status::ADDRESS_ALIGNMENT),
        (moved(apply, 0, 0, 4), Status::ADDRESS_ALIGNMENT),
        // A record goes on where the one before ended: it may be anywhere.
        (moved(apply, 1, 0, 0), Status::SUCCESS),
        (
            Descriptor::crc(FROM, 64).with_crc_seed_at(THIRD + 2),
            Status::ADDRESS_ALIGNMENT,
        ),
        (
            Descriptor::dualcast(FROM, TO, THIRD + 8, 64),
            Status::DUALCAST_OFFSETS,
        ),
    ]);
}

#[test]
fn r69_buffers_that_must_not_overlap_do_not() {
    let into = |record| {
        let fields = CreateDelta {
            record,
            max_bytes: 80,
            ..CreateDelta::default()
        };
        Descriptor::create_delta(FROM, TO, 0x1000, fields)
    };
    let overlap = Status::OVERLAPPING;
    all_have_their_status(&[
        (into(FROM + 0xff8), overlap),
        (into(TO - 79), overlap),
        (into(TO - 80), Status::SUCCESS),
        (into(FROM + 0x1000), Status::SUCCESS),
        (Descriptor::apply_delta(TO - 9, 10, TO, 64), overlap),
        (
            Descriptor::apply_delta(TO - 10, 10, TO, 64),
            Status::SUCCESS,
        ),
        (Descriptor::dualcast(FROM, FROM + 8, TO + 8, 64), overlap),
        (Descriptor::dualcast(FROM, TO, FROM, 64), overlap),
        (Descriptor::dualcast(FROM, TO, TO, 64), overlap),
        (Descriptor::copy_crc(FROM, FROM + 63, 64), overlap),
        (Descriptor::copy_crc(FROM, FROM + 64, 64), Status::SUCCESS),
        // The destination is as large as what is written to it.
        (Descriptor::dif_insert(TO, TO - 513, 512, fields()), overlap),
        (
            Descriptor::dif_insert(TO, TO - 520, 512, fields()),
            Status::SUCCESS,
        ),
        (
            Descriptor::dif_strip(TO, TO - 512, 520, fields()),
            Status::SUCCESS,
        ),
        (Descriptor::dif_strip(TO, TO - 511, 520, fields()), overlap),
        (Descriptor::dif_update(TO, TO + 519, 520, fields()), overlap),
    ]);
}

#[test]
fn r69_buffers_end_where_the_space_ends() {
    let end = 0_u64.wrapping_sub(8);
    let fields_at_end = CreateDelta {
        record: end,
        max_bytes: 80,
        ..CreateDelta::default()
    };
    let cases = [
        Descriptor::create_delta(FROM, TO, 64, fields_at_end),
        Descriptor::apply_delta(end, 10, TO, 64),
        Descriptor::dualcast(FROM, 0x1000 - 8, end, 64),
        Descriptor::crc(end, 64),
        Descriptor::copy_crc(FROM, end, 64),
        Descriptor::dif_insert(FROM, 0_u64.wrapping_sub(512), 512, fields()),
        Descriptor::cache_flush(end, 64),
    ];
    all_have_their_status(&cases.map(|descriptor| (descriptor, Status::TRANSLATION)));
    // There is nowhere to say so but the error register.
    let host = Host::new();
    let scattered = Scattered::new(&host, &[]);
    scattered.queue.submit(cases[0]);
    crate::testing::run(&mut host.engine());
    let errors = scattered.queue.errors();
    assert_eq!(errors[0].code, Status::TRANSLATION.into());
    assert_eq!(errors[0].operation, Some(Opcode::CREATE_DELTA));
    assert_eq!(errors[0].fault_address, end);
}
