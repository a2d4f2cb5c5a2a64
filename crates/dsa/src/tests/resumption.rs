//! Operations that are interrupted: by missing pages, by refused ones, by the end of a turn.

use proptest::prelude::*;

use super::BLOCK;
use super::model;
use super::operation::{memory, operation};
use super::scattered::{PAGES, Scattered};
use crate::spec::{
    CompletionRecord, CrcSeed, CreateDelta, Descriptor, DifFields, Flags, Opcode, Status,
};
use crate::testing::Host;
use zerocopy::IntoBytes;

fn missing() -> impl Strategy<Value = Vec<bool>> {
    prop_oneof![
        Just(vec![]),
        Just(vec![true; PAGES]),
        proptest::collection::vec(any::<bool>(), PAGES)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Every page may be missing when it is needed first; no matter in what order they come, the result is that of software.
    #[test]
    fn r62_any_operation_goes_on_after_page_requests(
        memory in memory(),
        operations in proptest::collection::vec(operation(), 1..4),
        missing in missing(),
    ) {
        let host = Host::new();
        let mut scattered = Scattered::new(&host, &missing);
        let mut expected = memory;
        for operation in &operations {
            operation.prepare(&mut expected);
            scattered.load(&expected);
            let record = scattered.run(operation.descriptor.with_flags(BLOCK));
            let by_software = model::run(&operation.descriptor, &mut expected);
            prop_assert_eq!(record, by_software, "{:x?}", operation.descriptor);
            prop_assert!(scattered.memory() == expected);
        }
        prop_assert_eq!(scattered.queue.errors(), vec![]);
    }

    /// Without block on fault a driver brings the page of the fault address, and goes on with what the record says is left.
    #[test]
    fn r73_any_operation_can_be_gone_on_with_after_a_partial_completion(
        memory in memory(),
        operation in operation(),
        missing in missing(),
    ) {
        let host = Host::new();
        let mut scattered = Scattered::new(&host, &missing);
        let mut expected = memory;
        operation.prepare(&mut expected);
        scattered.load(&expected);
        let by_software = model::run(&operation.descriptor, &mut expected);
        prop_assume!(can_be_divided(&operation.descriptor, &by_software));
        let mut descriptor = operation.descriptor;
        let (mut record, mut before) = (CompletionRecord::default(), 0);
        let mut deltas = vec![];
        for _ in 0..=PAGES {
            record = scattered.run(descriptor);
            deltas.push((descriptor, record));
            if record.status().code() != Status::PAGE_FAULT {
                break;
            }
            scattered.bring(record.fault_address);
            before += record.bytes_completed;
            descriptor = rest_of(&descriptor, &record);
        }
        prop_assert_eq!(record.status(), by_software.status());
        let opcode = operation.descriptor.opcode();
        if opcode == Opcode::CREATE_DELTA {
            // Each part has a record of its own: with offsets from its own start, directly behind the one before.
            let mut bytes = 0;
            let mut seen = scattered.memory();
            for (descriptor, record) in deltas {
                let start = descriptor.first - operation.descriptor.first;
                for at in (0..u64::from(record.delta_bytes())).step_by(10) {
                    let at = descriptor.create_delta_fields().record + at;
                    let offset = u16::from_le_bytes(seen.at(at, 2).try_into().unwrap());
                    let offset = u64::from(offset) + start / 8;
                    seen.put(at, &u16::try_from(offset).unwrap().to_le_bytes());
                }
                bytes += record.delta_bytes();
            }
            prop_assert!(seen == expected);
            prop_assert_eq!(bytes, by_software.delta_bytes());
        } else {
            prop_assert!(scattered.memory() == expected, "{:x?}", operation.descriptor);
            prop_assert_eq!(record.specific, by_software.specific);
            if opcode != Opcode::MEMORY_MOVE {
                prop_assert_eq!(record.result, by_software.result);
            }
            if by_software.bytes_completed != 0 {
                prop_assert_eq!(record.bytes_completed + before, by_software.bytes_completed);
            }
        }
    }
}

/// A delta record that is out of order is so no more when it is divided there; one with little room has less than the least
/// that is allowed.
fn can_be_divided(descriptor: &Descriptor, by_software: &CompletionRecord) -> bool {
    match descriptor.opcode() {
        Opcode::APPLY_DELTA => by_software.status() != Status::DELTA_ORDER,
        Opcode::CREATE_DELTA => descriptor.create_delta_fields().max_bytes >= 0x5000,
        _ => true,
    }
}

/// What is left of a descriptor after a partial completion, as its driver sees it.
fn rest_of(descriptor: &Descriptor, record: &CompletionRecord) -> Descriptor {
    let done = record.bytes_completed;
    if done == 0 {
        return *descriptor;
    }
    let wide = u64::from(done);
    let turn = done % 8 * 8;
    let mut rest = *descriptor;
    rest.size -= done;
    match descriptor.opcode() {
        Opcode::MEMORY_MOVE if record.result == 1 => {}
        Opcode::MEMORY_FILL if descriptor.flags().contains(Flags::WIDE_PATTERN) => {
            let pattern = u128::from(rest.first) | (u128::from(rest.pattern_high()) << 64);
            rest = Descriptor::memory_fill_wide(
                pattern.rotate_right(done % 16 * 8),
                rest.second + wide,
                rest.size,
            );
        }
        Opcode::MEMORY_FILL => {
            rest.first = rest.first.rotate_right(turn);
            rest.second += wide;
        }
        Opcode::COMPARE_PATTERN => {
            rest.first += wide;
            rest.second = rest.second.rotate_right(turn);
        }
        Opcode::CREATE_DELTA => {
            let fields = descriptor.create_delta_fields();
            let fields = CreateDelta {
                record: fields.record + u64::from(record.delta_bytes()),
                max_bytes: fields.max_bytes - record.delta_bytes(),
                ..fields
            };
            rest.first += wide;
            rest.second += wide;
            rest = rest.with_specific(fields.as_bytes());
        }
        Opcode::APPLY_DELTA => {
            rest.size = descriptor.size;
            rest.first += wide;
            rest = rest.with_specific(&(descriptor.delta_bytes() - done).to_le_bytes());
        }
        Opcode::DUALCAST => {
            rest.first += wide;
            rest.second += wide;
            let third = rest.second_destination() + wide;
            rest = rest.with_specific(&third.to_le_bytes());
        }
        Opcode::CRC | Opcode::COPY_CRC => {
            rest.first += wide;
            if rest.opcode() == Opcode::COPY_CRC {
                rest.second += wide;
            }
            let seed = CrcSeed {
                seed: record.crc(),
                ..CrcSeed::default()
            };
            rest.operation &= !Flags::READ_CRC_SEED.bits();
            rest = rest.with_specific(seed.as_bytes());
        }
        Opcode::CACHE_FLUSH => rest.second += wide,
        Opcode::DIF_CHECK | Opcode::DIF_INSERT | Opcode::DIF_STRIP | Opcode::DIF_UPDATE => {
            let mut fields: DifFields = descriptor.dif_fields();
            let block = fields.block();
            let (bare, whole) = (block.bytes(), block.bytes_with_field());
            let to = match descriptor.opcode() {
                Opcode::DIF_CHECK => 0,
                Opcode::DIF_INSERT => done / bare * whole,
                Opcode::DIF_STRIP => done / whole * bare,
                _ => done,
            };
            rest.first += wide;
            rest.second += u64::from(to);
            fields.source = record.source_tags();
            fields.destination = record.destination_tags();
            rest = rest.with_specific(fields.as_bytes());
        }
        _ => {
            rest.first += wide;
            rest.second += wide;
        }
    }
    rest
}
