use palisade_iommu::{Ats, Requester};
use palisade_units::{Gpa, Iova};

use crate::spec::DomainId;
use crate::spec::command::{Command, TranslationTableMode};
use crate::spec::descriptor::{
    ContextScope, InvDescriptor, Invalidation, IotlbScope, LeafHint, PageGroupResponse, PageRange,
    PasidCacheScope, PasidIotlbScope, ResponseCode, Wait, WaitFlags,
};
use crate::spec::page_request::GroupIndex;
use crate::spec::pasid_table::PasidEntry;
use crate::spec::queue::QueueError;
use crate::spec::register as reg;
use crate::testing::{DOMAIN, FUNCTION, QUEUE_BYTES, Rig, Space, pasid};

const AT: Iova = Iova::new(0x7f12_3456_7000);
const QUEUE_ERROR: u32 = 1 << 4;

fn error(rig: &Rig) -> Option<u8> {
    let [code, ..] = rig.read64(reg::IQER).to_le_bytes();
    (rig.read32(reg::FSTS) & QUEUE_ERROR != 0).then_some(code)
}

fn nothing() -> InvDescriptor {
    InvDescriptor::new(Invalidation::InterruptEntryCache)
}

#[test]
fn the_status_is_written_and_the_head_follows_the_tail() {
    let mut rig = Rig::booted();
    rig.submit(&[nothing()]);
    assert_eq!(rig.read64(reg::IQH), 64);
    assert_eq!(rig.read64(reg::IQH), rig.read64(reg::IQT));
}

#[test]
fn the_queue_wraps() {
    let mut rig = Rig::booted();
    for _ in 0..200 {
        rig.submit(&[nothing(), nothing()]);
    }
    assert_eq!(rig.read64(reg::IQH), 600 * 32 % QUEUE_BYTES);
}

#[test]
fn a_wait_completes_after_what_precedes_it() {
    // The access after the wait must find the new state, whatever comes between.
    let mut rig = Rig::booted();
    let space = Space::with_page(&mut rig, AT, 0x1111);
    rig.set_entry(pasid(1), crate::testing::first_stage(&space));
    let descriptors: Vec<_> = (0..100)
        .map(|raw| InvDescriptor::pasid_cache(PasidCacheScope::Pasid(DOMAIN, pasid(raw))))
        .collect();
    rig.submit(&descriptors);
    assert_eq!(rig.read(Some(pasid(1)), AT), Ok(0x1111));
}

#[test]
fn a_wait_with_its_interrupt_flag_sends_one_message() {
    let mut rig = Rig::booted();
    let wait = InvDescriptor::new(Invalidation::Wait(Wait {
        flags: WaitFlags::INTERRUPT,
        status_address: Gpa::new(0),
        status_data: 0,
    }));
    rig.submit(&[wait, wait]);
    assert_eq!(rig.messages.take(), [(0xfee0_2000, 0x42)]);
    assert_eq!(rig.read32(reg::ICS), 1);
}

#[test]
fn a_wait_without_a_place_for_its_status_stops_nothing() {
    let mut rig = Rig::booted();
    let lost = InvDescriptor::wait(Gpa::new(0xdead_0000_0000), 1, WaitFlags::empty());
    rig.submit(&[lost]);
    assert_eq!(error(&rig), None);
}

#[test]
fn r41_a_stale_translation_stays_until_it_is_invalidated() {
    let mut rig = Rig::booted();
    let space = Space::with_page(&mut rig, AT, 0x1111);
    rig.bind(pasid(1), &space);
    let mut port = rig.port();
    let mut read = || {
        let mut bytes = [0; 8];
        port.read(Rig::asking(pasid(1)), AT, &mut bytes)
            .map(|()| u64::from_le_bytes(bytes))
    };
    assert_eq!(read(), Ok(0x1111));
    space.unmap(&rig, AT);
    assert_eq!(read(), Ok(0x1111));
    let pages = PasidIotlbScope::Pages(PageRange::page(AT), LeafHint::LeavesOnly);
    rig.submit(&[InvDescriptor::pasid_iotlb(DOMAIN, pasid(1), pages)]);
    assert!(read().is_err());
}

/// Which requests still find a page that went away: those that leave translating to the unit, and those of
/// a function that keeps translations.
fn stale_after(told_of: PasidEntryOf, descriptor: InvDescriptor) -> (bool, bool) {
    let mut rig = Rig::booted();
    let space = Space::with_page(&mut rig, AT, 0x1111);
    let number = match told_of {
        PasidEntryOf::Pasid => pasid(1),
        PasidEntryOf::NoPasid => pasid(0),
    };
    rig.bind(number, &space);
    // Two ports, so that neither takes the other's place in a cache.
    let mut ports = [rig.port(), rig.port()];
    let mut finds = |ats| {
        let port = &mut ports[usize::from(ats == Ats::On)];
        let by = Requester {
            ats,
            ..match told_of {
                PasidEntryOf::Pasid => Rig::asking(number),
                PasidEntryOf::NoPasid => Requester::new(None),
            }
        };
        port.read(by, AT, &mut [0; 8]).is_ok()
    };
    assert!(finds(Ats::Off) && finds(Ats::On));
    space.unmap(&rig, AT);
    assert!(finds(Ats::Off) && finds(Ats::On), "stale");
    rig.submit(&[descriptor]);
    (finds(Ats::Off), finds(Ats::On))
}

#[derive(Clone, Copy)]
enum PasidEntryOf {
    Pasid,
    NoPasid,
}

#[test]
fn r41_an_invalidation_of_the_unit_leaves_what_functions_keep() {
    let of_page = |hint| IotlbScope::Pages(DOMAIN, PageRange::page(AT), hint);
    let page_of_pasid = |hint| PasidIotlbScope::Pages(PageRange::page(AT), hint);
    for descriptor in [
        InvDescriptor::iotlb(IotlbScope::Global),
        InvDescriptor::iotlb(IotlbScope::Domain(DOMAIN)),
        InvDescriptor::iotlb(of_page(LeafHint::AnyLevel)),
        InvDescriptor::iotlb(of_page(LeafHint::LeavesOnly)),
        InvDescriptor::pasid_iotlb(DOMAIN, pasid(1), PasidIotlbScope::All),
        InvDescriptor::pasid_iotlb(DOMAIN, pasid(1), page_of_pasid(LeafHint::AnyLevel)),
        InvDescriptor::pasid_iotlb(DOMAIN, pasid(1), page_of_pasid(LeafHint::LeavesOnly)),
    ] {
        let stale = stale_after(PasidEntryOf::Pasid, descriptor);
        assert_eq!(stale, (false, true), "{descriptor:?}");
    }
    let of_another_domain = DomainId::new(9);
    let elsewhere = InvDescriptor::pasid_iotlb(of_another_domain, pasid(1), PasidIotlbScope::All);
    assert_eq!(stale_after(PasidEntryOf::Pasid, elsewhere), (true, true));
}

#[test]
fn r41_a_device_tlb_invalidation_leaves_what_the_unit_keeps() {
    let everything = PageRange::ALL;
    for descriptor in [
        InvDescriptor::pasid_dev_tlb(FUNCTION, pasid(1), PageRange::holding(AT, 9)),
        InvDescriptor::pasid_dev_tlb(FUNCTION, pasid(1), everything),
        InvDescriptor::new(Invalidation::PasidDeviceTlb(FUNCTION, None, everything)),
    ] {
        let stale = stale_after(PasidEntryOf::Pasid, descriptor);
        assert_eq!(stale, (true, false), "{descriptor:?}");
    }
    let other = InvDescriptor::pasid_dev_tlb(FUNCTION, pasid(2), everything);
    assert_eq!(stale_after(PasidEntryOf::Pasid, other), (true, true));
    for range in [PageRange::page(AT), everything] {
        let descriptor = InvDescriptor::dev_tlb(FUNCTION, range);
        let stale = stale_after(PasidEntryOf::NoPasid, descriptor);
        assert_eq!(stale, (true, false), "{descriptor:?}");
    }
}

#[test]
fn a_tail_beyond_the_queue_is_an_error_and_no_endless_loop() {
    let rig = Rig::booted();
    rig.write32(reg::IQT, u32::try_from(QUEUE_BYTES).unwrap());
    assert_eq!(error(&rig), Some(QueueError::InvalidTail.code()));
    assert_eq!(rig.read64(reg::IQH), 0);
    assert_eq!(rig.messages.take(), [(0xfee0_1000, 0x41)]);
}

#[test]
fn a_tail_between_two_descriptors_is_an_error() {
    let rig = Rig::booted();
    rig.write32(reg::IQT, 0x10);
    assert_eq!(error(&rig), Some(QueueError::TailMisaligned.code()));
}

#[test]
fn a_queue_without_memory_is_an_error() {
    let rig = Rig::booted();
    rig.write64(reg::IQA, 0xdead_0000_0000 | 1 << 11);
    rig.write32(reg::IQT, 0x20);
    assert_eq!(error(&rig), Some(QueueError::DescriptorAccess.code()));
}

#[test]
fn narrow_descriptors_are_an_error_in_scalable_mode() {
    let rig = Rig::booted();
    rig.write64(reg::IQA, rig.queue_base().get());
    rig.write32(reg::IQT, 0x10);
    assert_eq!(error(&rig), Some(QueueError::DescriptorWidth.code()));
}

#[test]
fn a_reserved_mode_is_an_error() {
    let rig = Rig::booted();
    rig.set_root_table(TranslationTableMode::Unsupported(2));
    rig.write32(reg::IQT, 0x20);
    assert_eq!(error(&rig), Some(QueueError::TranslationTableMode.code()));
}

#[test]
fn legacy_mode_has_narrow_descriptors_and_their_types_alone() {
    let mut rig = Rig::new();
    rig.set_root_table(TranslationTableMode::Legacy);
    rig.enable_queue();
    rig.write64(reg::IQA, rig.queue_base().get());
    let [low, high, ..] = InvDescriptor::iotlb(IotlbScope::Global).to_words();
    let wait = InvDescriptor::wait(rig.status_address(), 0x77, WaitFlags::empty());
    let [wait_low, wait_high, ..] = wait.to_words();
    rig.store(rig.queue_base(), &[low, high, wait_low, wait_high]);
    rig.write32(reg::IQT, 0x20);
    assert_eq!(rig.status(), 0x77);
    let [low, high, ..] = InvDescriptor::pasid_cache(PasidCacheScope::Global).to_words();
    let next = rig.queue_base().checked_add(0x20).unwrap();
    rig.store(next, &[low, high]);
    rig.write32(reg::IQT, 0x30);
    assert_eq!(error(&rig), Some(QueueError::DescriptorType.code()));
}

/// What Linux does: the bad descriptor is overwritten, the error cleared, and the queue goes on.
#[test]
fn a_bad_descriptor_stops_the_queue_until_the_error_is_cleared() {
    let mut rig = Rig::booted();
    rig.submit(&[nothing()]);
    let head = rig.read64(reg::IQH);
    let bad = InvDescriptor::from_words([0xb, 0, 0, 0]);
    let wait = InvDescriptor::wait(rig.status_address(), 0x99, WaitFlags::empty());
    rig.enqueue(&[bad, wait]);
    rig.ring();
    assert_eq!(error(&rig), Some(QueueError::DescriptorType.code()));
    assert_eq!(rig.read64(reg::IQH), head, "it stands at the bad one");
    assert_eq!(rig.messages.take(), [(0xfee0_1000, 0x41)]);
    rig.ring();
    assert_ne!(rig.status(), 0x99, "the tail moves nothing meanwhile");

    let at = rig.queue_base().checked_add(head).unwrap();
    rig.store(at, &nothing().to_words());
    rig.write32(reg::FSTS, QUEUE_ERROR);
    assert_eq!(error(&rig), None);
    assert_eq!(rig.status(), 0x99);
}

#[test]
fn what_stands_before_a_bad_descriptor_takes_effect() {
    let mut rig = Rig::booted();
    let space = Space::with_page(&mut rig, AT, 0x1111);
    rig.set_entry(pasid(1), crate::testing::first_stage(&space));
    let told = InvDescriptor::pasid_cache(PasidCacheScope::Pasid(DOMAIN, pasid(1)));
    rig.enqueue(&[told, InvDescriptor::from_words([0; 4])]);
    rig.ring();
    assert!(error(&rig).is_some());
    assert_eq!(rig.read(Some(pasid(1)), AT), Ok(0x1111));
}

#[test]
fn a_queue_that_is_off_does_nothing_and_starts_over() {
    let mut rig = Rig::booted();
    rig.submit(&[nothing()]);
    rig.write32(reg::GCMD, Command::TRANSLATION_ENABLE.bits());
    assert_eq!(rig.read64(reg::IQH), 0);
    rig.write32(reg::IQT, 0);
    rig.write32(reg::IQT, 0x40);
    assert_eq!(rig.read64(reg::IQH), 0);
    rig.command(Command::QUEUED_INVALIDATION_ENABLE);
    assert_eq!(rig.read64(reg::IQH), 0x40);
}

#[test]
fn r63_a_response_that_nobody_waits_for_is_dropped() {
    let mut rig = Rig::booted();
    let space = Space::new(&mut rig);
    rig.bind(pasid(1), &space);
    for pasid in [None, Some(pasid(1)), Some(pasid(77))] {
        let response = PageGroupResponse {
            requester: FUNCTION,
            pasid,
            group: GroupIndex::new(3),
            code: ResponseCode::Success,
        };
        rig.submit(&[InvDescriptor::page_group_response(response)]);
    }
    assert_eq!(error(&rig), None);
}

/// A queue of the largest size, full of the most expensive work, and one access after the other.
#[test]
fn r78_one_access_does_a_bounded_amount_of_work() {
    let mut rig = Rig::booted();
    for index in 0..64 {
        rig.set_entry(pasid(index), PasidEntry::pass_through(DOMAIN));
    }
    let table = rig.load(rig.directory);
    rig.store(rig.directory, &vec![table; 16384]);

    let everything = InvDescriptor::context_cache(ContextScope::Global);
    let queue = rig.frames(128);
    let mut words = Vec::new();
    for index in 0..16383 {
        let wait = InvDescriptor::wait(rig.status_address(), index, WaitFlags::empty());
        words.extend(everything.to_words());
        words.extend(wait.to_words());
    }
    words.truncate(16384 * 4);
    rig.store(queue, &words);
    rig.write32(reg::GCMD, Command::TRANSLATION_ENABLE.bits());
    rig.write32(reg::IQT, 0);
    rig.write64(reg::IQA, queue.get() | 1 << 11 | 7);
    rig.command(Command::QUEUED_INVALIDATION_ENABLE);
    rig.write32(reg::IQT, 16000 * 32);
    let first = rig.read64(reg::IQH) / 32;
    assert!(first < 100, "{first} descriptors in one access");
    // Any access goes on with it.
    rig.read32(reg::GSTS);
    let second = rig.read64(reg::IQH) / 32;
    assert!(second > first);
    // Without a queue there is nothing to go on with.
    rig.write32(reg::GCMD, Command::TRANSLATION_ENABLE.bits());
    assert_eq!(rig.read64(reg::IQH), 0);
}
