//! Batches of all operations (DSA §3.8, §8.3): fences, and parts that fail.

use palisade_iommu::PageResponse;
use proptest::prelude::*;

use super::model::{self, Memory};
use super::operation::{memory, operation};
use super::scattered::{BASE, LIST, PAGES, RECORD, Scattered};
use super::{BLOCK, Dedicated, RULES, record};
use crate::lock::locked;
use crate::spec::{CompletionRecord, Descriptor, Flags, Opcode, Status};
use crate::testing::{Host, run};

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

/// What a part tells its client besides its record, or instead of it, is told once, and the parts after it are done.
#[test]
fn parts_that_have_something_to_tell_do_not_hold_up_the_others() {
    let host = Host::new();
    host.process(5).map(0, 0, 0xb00);
    let (list, records, missing) = (0xa_0000, 0x8_0000, 0x5000_0000);
    let record_at = |part: u64| records + part * 32;
    let copy = |part: u64| Descriptor::memory_move(0x10_0000, 0x20_0000 + part * 8, 8);
    let parts = [
        copy(0).with_record(record_at(0)),
        copy(1).with_record(missing),
        copy(2).with_record(record_at(2)).with_interrupt(1),
        copy(3).with_record(record_at(3)).with_interrupt(2),
        Descriptor::memory_move(missing, 0x20_0018, 8),
        Descriptor::memory_move(missing, 0x20_0018, 8).with_record(record_at(5)),
        copy(6).with_record(record_at(6) + 8),
        copy(7),
        copy(8).with_record(record_at(8)),
    ];
    host.write(0x10_0000, b"palisade");
    host.write(list, zerocopy::IntoBytes::as_bytes(&parts));
    let queue = Dedicated::open(&host, 0, 5);
    queue.submit(Descriptor::batch(list, 9).with_record(records + 0x400));
    let mut engine = host.engine();
    run(&mut engine);
    // The part without BLOCK_ON_FAULT asks for the page of its record all the same.
    host.answer(PageResponse::Invalid);
    run(&mut engine);
    let batch = record(&host, records + 0x400);
    assert_eq!(
        (batch.status(), batch.bytes_completed),
        (Status::BATCH_FAILED, 9)
    );
    let statuses = [0, 2, 3, 5, 6, 8].map(|part| record(&host, record_at(part)).status());
    assert_eq!(
        statuses,
        [
            Status::SUCCESS,
            Status::SUCCESS,
            Status::INTERRUPT_HANDLE,
            Status::PAGE_FAULT,
            Status::NONE,
            Status::SUCCESS,
        ]
    );
    assert_eq!(*locked(&queue.driver.interrupts), [1]);
    let errors = queue.errors();
    let told: Vec<_> = errors.iter().map(|e| (e.batch_index, e.code)).collect();
    assert_eq!(
        told,
        [
            (Some(1), Status::RECORD_FAULT.with_write().into()),
            (Some(4), Status::PAGE_FAULT.into()),
            (Some(6), Status::RECORD_ALIGNMENT.into()),
        ]
    );
    // Those of parts 4 and 5; the page of the record was asked for, and refused.
    assert_eq!(locked(&host.unit.faults).len(), 2);
    assert_eq!(host.bytes(0x20_0000 + 7 * 8, 16), b"palisadepalisade");
}

/// Descriptors are read several at a time, but never from a page before it is needed.
#[test]
fn r62_a_list_that_ends_in_a_missing_page_is_done_up_to_there() {
    let host = Host::new();
    host.process(5).map(0, 0, 0xb00);
    let (list, records) = (0xaf_ff40, 0x8_0000);
    let part = |at: u64| Descriptor::no_op().with_record(records + at * 32);
    host.write(list, zerocopy::IntoBytes::as_bytes(&[0, 1, 2].map(part)));
    let queue = Dedicated::open(&host, 0, 5);
    queue.submit(Descriptor::batch(list, 8).with_record(records + 0x400));
    run(&mut host.engine());
    let batch = record(&host, records + 0x400);
    assert_eq!(batch.status(), Status::BATCH_PAGE_FAULT);
    assert_eq!((batch.bytes_completed, batch.fault_address), (3, 0xb0_0000));
    let statuses = [0, 1, 2].map(|at| record(&host, records + at * 32).status());
    assert_eq!(statuses, [Status::SUCCESS; 3]);
}
