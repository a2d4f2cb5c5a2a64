//! Batches of all operations (DSA §3.8, §8.3): fences, and parts that fail.

use proptest::prelude::*;

use super::model::{self, Memory};
use super::operation::{memory, operation};
use super::scattered::{BASE, LIST, PAGES, RECORD, Scattered};
use super::{BLOCK, RULES};
use crate::spec::{CompletionRecord, Descriptor, Flags, Opcode, Status};
use crate::testing::Host;

/// A descriptor that is refused.
fn refused() -> impl Strategy<Value = (Descriptor, Status)> {
    prop::sample::select(vec![
        (Descriptor::drain(), Status::UNSUPPORTED_OPERATION),
        (Descriptor::batch(LIST, 2), Status::UNSUPPORTED_OPERATION),
        (
            Descriptor::of(Opcode(0x16), 0, 0, 0),
            Status::UNSUPPORTED_OPERATION,
        ),
        (Descriptor::crc(BASE, 0), Status::TRANSFER_SIZE),
        (
            Descriptor::dualcast(BASE, BASE, BASE + 0x1000, 8),
            Status::OVERLAPPING,
        ),
    ])
}

#[derive(Clone, Debug)]
enum Part {
    Operation(Box<super::operation::Operation>),
    Refused(Descriptor, Status),
}

impl Part {
    fn descriptor(&self, index: usize, fence: bool) -> Descriptor {
        let descriptor = match self {
            Self::Operation(operation) => operation.descriptor.with_flags(BLOCK),
            Self::Refused(descriptor, _) => *descriptor,
        };
        let fence = if fence { Flags::FENCE } else { Flags::empty() };
        descriptor
            .with_flags(fence)
            .with_record(RECORD + (index as u64 + 1) * 32)
    }

    fn by_software(&self, memory: &mut Memory) -> CompletionRecord {
        match self {
            Self::Operation(operation) => model::run(&operation.descriptor, memory),
            Self::Refused(_, status) => CompletionRecord {
                status: status.0,
                ..CompletionRecord::default()
            },
        }
    }
}

fn part() -> impl Strategy<Value = (Part, bool)> {
    let part = prop_oneof![
        9 => operation().prop_map(|operation| Part::Operation(Box::new(operation))),
        1 => refused().prop_map(|(descriptor, status)| Part::Refused(descriptor, status)),
    ];
    (part, any::<bool>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// A batch does what its parts do one after the other, up to a fence that comes after one that did not succeed.
    #[test]
    fn r73_a_batch_does_what_its_parts_do(
        memory in memory(),
        parts in proptest::collection::vec(part(), 2..10),
        missing in proptest::collection::vec(any::<bool>(), PAGES),
    ) {
        let host = Host::new();
        let mut scattered = Scattered::new(&host, &missing);
        let mut expected = memory;
        for (part, _) in &parts {
            if let Part::Operation(operation) = part {
                operation.prepare(&mut expected);
            }
        }
        scattered.load(&expected);
        let list: Vec<_> = parts
            .iter()
            .enumerate()
            .map(|(index, (part, fence))| part.descriptor(index, *fence))
            .collect();
        scattered.list(&list);
        let batch = scattered.run(Descriptor::batch(LIST, u32::try_from(list.len()).unwrap()));
        let (mut completed, mut failed) = (0, false);
        for (index, (part, fence)) in parts.iter().enumerate() {
            let record = scattered.record(index + 1);
            if *fence && failed {
                // Neither it nor anything behind it was begun.
                for index in index..parts.len() {
                    prop_assert_eq!(scattered.record(index + 1).status(), Status::NONE);
                }
                break;
            }
            let by_software = part.by_software(&mut expected);
            prop_assert_eq!(record, by_software, "part {}: {:x?}", index, list[index]);
            completed += 1;
            failed |= by_software.status() != Status::SUCCESS;
        }
        let status = if failed { Status::BATCH_FAILED } else { Status::SUCCESS };
        prop_assert_eq!((batch.status(), batch.bytes_completed), (status, completed));
        prop_assert!(scattered.memory() == expected);
        prop_assert_eq!(scattered.queue.errors(), vec![]);
    }
}

/// A result that was not expected is not a success either: what a fence guards is not begun.
#[test]
fn an_unexpected_result_stops_at_a_fence() {
    let host = Host::new();
    let mut scattered = Scattered::new(&host, &[]);
    let copy = Descriptor::memory_move(BASE, BASE + 0x1000, 8).with_flags(Flags::FENCE);
    for (expected, status) in [(0, Status::SUCCESS), (1, Status::BATCH_FAILED)] {
        let compare = Descriptor::compare(BASE, BASE + 0x2000, 8).with_expected_result(expected);
        scattered.list(&[compare, copy]);
        let batch = scattered.run(Descriptor::batch(LIST, 2));
        let completed = if status == Status::SUCCESS { 2 } else { 1 };
        assert_eq!((batch.status(), batch.bytes_completed), (status, completed));
    }
}

#[test]
fn a_batch_may_be_as_large_as_its_queue_allows() {
    let host = Host::new();
    let mut scattered = Scattered::new(&host, &[]);
    let parts = vec![Descriptor::no_op(); RULES.max_batch as usize];
    scattered.list(&parts);
    let batch = scattered.run(Descriptor::batch(LIST, RULES.max_batch));
    assert_eq!(
        (batch.status(), batch.bytes_completed),
        (Status::SUCCESS, RULES.max_batch)
    );
}
