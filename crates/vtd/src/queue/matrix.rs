//! Every type of descriptor in every width and mode, every granularity, every flag of a wait, and the error
//! that each wrong one ends in (VT-d §6.5.2, §11.4.9.9).

use std::sync::mpsc::channel;

use palisade_iommu::PageResponse;
use palisade_units::{Access, Iova};

use super::*;
use crate::spec::command::Command;
use crate::spec::descriptor::PageStreamResponse;
use crate::spec::page_request::GroupIndex;
use crate::spec::queue::DescriptorWidth::{self, *};
use crate::spec::register as reg;
use crate::testing::{FUNCTION, QUEUE_BYTES, Rig, Space, pasid};

const QUEUE_ERROR: u32 = 1 << 4;

/// A well-formed descriptor of each type.
const WELL_FORMED: [(u64, u64); 10] = [
    (0x11, 0),
    (0x12, 0),
    (0x3, 0x1000),
    (0x4, 0),
    (0x5, 0),
    (0x26, 0),
    (0x37, 0),
    (0x1_0000_0008, 0x1000),
    (0x19, 0),
    (0xa, 0),
];

fn error(rig: &Rig) -> Option<u8> {
    let [code, ..] = rig.read64(reg::IQER).to_le_bytes();
    (rig.read32(reg::FSTS) & QUEUE_ERROR != 0).then_some(code)
}

/// Puts one descriptor into an empty queue of a guest in some mode, and says how it ended.
fn processed(mode: TranslationTableMode, width: DescriptorWidth, words: [u64; 4]) -> Option<u8> {
    let mut rig = Rig::new();
    rig.set_root_table(mode);
    rig.enable_queue();
    let wide = match width {
        Bits128 => 0,
        Bits256 => 1 << 11,
    };
    rig.write64(reg::IQA, rig.queue_base().get() | wide | 1);
    rig.store(rig.queue_base(), &words);
    rig.write32(reg::IQT, u32::try_from(width.bytes()).unwrap());
    let error = error(&rig);
    let head = if error.is_none() { width.bytes() } else { 0 };
    assert_eq!(rig.read64(reg::IQH), head, "it stands at what is wrong");
    error
}

#[test]
fn every_type_in_every_width_and_mode() {
    let legacy = TranslationTableMode::Legacy;
    let scalable = TranslationTableMode::Scalable;
    let reserved = TranslationTableMode::Unsupported(2);
    let abort = TranslationTableMode::Unsupported(3);
    let unknown = Some(QueueError::DescriptorType.code());
    let narrow = Some(QueueError::DescriptorWidth.code());
    let no_mode = Some(QueueError::TranslationTableMode.code());
    for kind in 0..16_u64 {
        let index = usize::try_from(kind).unwrap().wrapping_sub(1);
        let (low, high) = WELL_FORMED.get(index).copied().unwrap_or((kind, 0));
        let words = [low, high, 0, 0];
        let in_legacy = if (1..=5).contains(&kind) {
            None
        } else {
            unknown
        };
        let in_scalable = if (1..=10).contains(&kind) {
            None
        } else {
            unknown
        };
        for (mode, width, expected) in [
            (legacy, Bits128, in_legacy),
            (legacy, Bits256, in_legacy),
            (scalable, Bits128, narrow),
            (scalable, Bits256, in_scalable),
            (reserved, Bits128, no_mode),
            (reserved, Bits256, no_mode),
            (abort, Bits256, no_mode),
        ] {
            let ended = processed(mode, width, words);
            assert_eq!(ended, expected, "type {kind:#x}, {mode:?}, {width:?}");
        }
    }
}

/// Pairs of a type and a granularity, and whether there is such a thing.
#[test]
fn r40_every_granularity_of_every_type() {
    let scalable = TranslationTableMode::Scalable;
    for (kind, valid) in [
        (0x1, [false, true, true, true]),
        (0x2, [false, true, true, true]),
        (0x6, [false, false, true, true]),
        (0x7, [true, true, false, true]),
    ] {
        for (granularity, valid) in (0_u64..).zip(valid) {
            let words = [kind | granularity << 4, 0, 0, 0];
            let expected = (!valid).then_some(QueueError::ReservedField.code());
            let ended = processed(scalable, Bits256, words);
            assert_eq!(ended, expected, "{:#x}", words[0]);
        }
    }
    // Of the interrupt entry cache everything, or some entries.
    for low in [0x4, 0x14, 0x5_f800_0014] {
        assert_eq!(processed(scalable, Bits256, [low, 0, 0, 0]), None);
    }
}

/// Error 4: a reserved bit of each type, in each word.
#[test]
fn reserved_fields_stop_the_queue() {
    let scalable = TranslationTableMode::Scalable;
    let reserved = Some(QueueError::ReservedField.code());
    let bits = [
        (1_u64 << 63, 1),
        (1 << 63, 1 << 7),
        (1 << 10 << 20, 1 << 1),
        (1 << 16, 1),
        (1 << 16, 1),
        (1 << 63, 1 << 7),
        (1 << 63, 1),
        (0, 1 << 1),
        (1 << 63, 1 << 12),
        (1 << 54, 0),
    ];
    for ((low, high), (of_low, of_high)) in WELL_FORMED.into_iter().zip(bits) {
        for words in [
            [low | of_low, high, 0, 0],
            [low, high | of_high, 0, 0],
            [low, high, 1, 0],
            [low, high, 0, 1 << 63],
        ] {
            if words != [low, high, 0, 0] {
                let ended = processed(scalable, Bits256, words);
                assert_eq!(ended, reserved, "{words:x?}");
            }
        }
    }
}

/// Software mends what is wrong, clears the error, and the queue goes on from there.
#[test]
fn a_mended_descriptor_is_processed_when_the_error_is_cleared() {
    let mut rig = Rig::booted();
    let wait = InvDescriptor::wait(rig.status_address(), 0x77, WaitFlags::empty());
    rig.enqueue(&[InvDescriptor::from_words([0x11, 1, 0, 0]), wait]);
    rig.ring();
    assert_eq!(error(&rig), Some(QueueError::ReservedField.code()));
    assert_eq!(rig.messages.take(), [(0xfee0_1000, 0x41)]);
    assert_eq!(rig.status(), 0);
    rig.store(rig.queue_base(), &[0x11, 0]);
    rig.write32(reg::FSTS, QUEUE_ERROR);
    assert_eq!(rig.status(), 0x77);
    assert_eq!(rig.read64(reg::IQER), 4, "the record of the last error");
}

#[test]
fn every_combination_of_the_flags_of_a_wait() {
    for bits in 0..16_u8 {
        let flags = WaitFlags::from_bits_truncate(bits << 4);
        let mut rig = Rig::booted();
        let wait = InvDescriptor::new(Invalidation::Wait(Wait {
            flags,
            status_address: rig.status_address(),
            status_data: 0x5a5a,
        }));
        rig.enqueue(&[wait]);
        rig.ring();
        assert_eq!(error(&rig), None);
        assert_eq!(rig.read64(reg::IQH), 32, "{flags:?}");
        let writes = flags.contains(WaitFlags::STATUS_WRITE);
        assert_eq!(rig.status() == 0x5a5a, writes, "{flags:?}");
        let interrupts = flags.contains(WaitFlags::INTERRUPT);
        assert_eq!(rig.read32(reg::ICS) == 1, interrupts, "{flags:?}");
        let messages = rig.messages.take();
        assert_eq!(messages == [(0xfee0_2000, 0x42)], interrupts, "{flags:?}");
        assert_eq!(messages.is_empty(), !interrupts, "{flags:?}");
    }
}

#[test]
fn entries_of_interrupts_are_not_cached_so_nothing_else_is_touched() {
    let mut rig = Rig::booted();
    let at = Iova::new(0x7000);
    let space = Space::with_page(&mut rig, at, 0x600d);
    rig.bind(pasid(1), &space);
    let mut port = rig.port();
    let mut read = || {
        let mut bytes = [0; 8];
        let read = port.read(Rig::asking(pasid(1)), at, &mut bytes);
        read.is_ok() && u64::from_le_bytes(bytes) == 0x600d
    };
    assert!(read());
    space.unmap(&rig, at);
    rig.submit(&[InvDescriptor::new(Invalidation::InterruptEntryCache)]);
    assert!(read(), "still cached");
}

#[test]
fn r62_a_stream_response_answers_the_one_request_that_it_names() {
    let mut rig = Rig::booted();
    let queue = rig.set_page_request_queue(0);
    let at = Iova::new(0x7000);
    let space = Space::new(&mut rig);
    rig.bind(pasid(1), &space);
    let (to, answers) = channel();
    let waiter = Box::new(move |response| {
        let _ = to.send(response);
    });
    rig.port()
        .request_page(Rig::asking(pasid(1)), at, Access::WRITE, waiter)
        .unwrap();
    let group = rig.page_request(queue, 0).group;
    let response = |group, code| {
        InvDescriptor::new(Invalidation::PageStreamResponse(PageStreamResponse {
            requester: FUNCTION,
            pasid: pasid(1),
            group,
            at,
            code,
        }))
    };
    // One that nobody waits for is dropped.
    let other = GroupIndex::new(group.get() ^ 0x100);
    rig.submit(&[response(other, ResponseCode::Success)]);
    assert!(answers.try_recv().is_err());
    rig.submit(&[response(group, ResponseCode::InvalidRequest)]);
    assert_eq!(answers.try_recv(), Ok(PageResponse::Invalid));
    rig.submit(&[response(group, ResponseCode::Success)]);
    assert!(answers.try_recv().is_err(), "answered once");
}

/// QS: the queue is as long as it says, and the head starts over at its end.
#[test]
fn every_size_of_the_queue() {
    for order in 0..8_u64 {
        let mut rig = Rig::new();
        rig.set_root_table(TranslationTableMode::Scalable);
        let base = rig.frames(1 << order);
        let len = 4096_u64 << order;
        let words = InvDescriptor::new(Invalidation::InterruptEntryCache).to_words();
        let count = usize::try_from(len / 32).unwrap();
        rig.store(base, &words.repeat(count));
        rig.write64(reg::IQA, base.get() | 1 << 11 | order);
        rig.command(Command::QUEUED_INVALIDATION_ENABLE);
        let last = u32::try_from(len - 32).unwrap();
        rig.write32(reg::IQT, last);
        assert_eq!(rig.read32(reg::IQH), last, "order {order}");
        rig.write32(reg::IQT, 0x20);
        assert_eq!(rig.read32(reg::IQH), 0x20, "order {order}");
        if order < 7 {
            rig.write32(reg::IQT, last + 32);
            assert_eq!(error(&rig), Some(QueueError::InvalidTail.code()));
        }
    }
}

/// Software must not do it (VT-d §11.4.9.3). What is read next is at the same head of the new queue, and a
/// head beyond that is an error.
#[test]
fn a_queue_that_moves_while_it_is_on() {
    let mut rig = Rig::booted();
    let nothing = InvDescriptor::new(Invalidation::InterruptEntryCache);
    rig.submit(&[nothing]);
    let moved = rig.frames(1);
    let wait = InvDescriptor::wait(rig.status_address(), 0x99, WaitFlags::empty());
    let at = moved.checked_add(0x40).unwrap();
    rig.store(at, &wait.to_words());
    rig.write64(reg::IQA, moved.get() | 1 << 11);
    rig.write32(reg::IQT, 0x60);
    assert_eq!(rig.status(), 0x99);

    // From its second page back to one page.
    rig.write64(reg::IQA, rig.queue_base().get() | 1 << 11 | 1);
    let words = nothing.to_words();
    let all = usize::try_from(QUEUE_BYTES / 32).unwrap();
    rig.store(rig.queue_base(), &words.repeat(all));
    rig.write32(reg::IQT, 0x1800);
    assert_eq!(rig.read32(reg::IQH), 0x1800);
    rig.write64(reg::IQA, moved.get() | 1 << 11);
    rig.write32(reg::IQT, 0x20);
    assert_eq!(error(&rig), Some(QueueError::InvalidTail.code()));
}
