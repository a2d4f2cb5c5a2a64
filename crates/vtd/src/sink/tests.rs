use std::sync::mpsc::{Receiver, channel};

use palisade_ioasid::Hold;
use palisade_iommu::{FaultReason, OnMiss, PageResponse, PasidSupport, Requester, Sharing};
use palisade_units::{Access, Bdf, Iova};

use crate::spec::command::Command;
use crate::spec::context::ContextFlags;
use crate::spec::descriptor::{ContextScope, InvDescriptor, PageGroupResponse, ResponseCode};
use crate::spec::fault::RequestKind;
use crate::spec::page_request::{GroupIndex, PlaceInGroup};
use crate::spec::pasid_table::PasidEntry;
use crate::spec::register as reg;
use crate::testing::{FUNCTION, HOST_FUNCTION, Rig, Space, all_flags, pasid};

const AT: Iova = Iova::new(0x7f12_3456_7000);
const FAULT_MESSAGE: (u64, u32) = (0xfee0_1000, 0x41);
const PAGE_MESSAGE: (u64, u32) = (0xfee0_3000, 0x43);
const OVERFLOW: u32 = 2;
const PENDING: u32 = 1;

/// Asks for a page of a PASID and returns where the answer comes.
fn ask(rig: &Rig, raw: u32, at: Iova) -> Receiver<PageResponse> {
    let (to, from) = channel();
    // Whoever no longer listens does not want the answer.
    let waiter = Box::new(move |response| {
        let _ = to.send(response);
    });
    rig.port()
        .request_page(Rig::asking(pasid(raw)), at, Access::WRITE, waiter)
        .unwrap();
    from
}

fn answer(raw: u32, group: GroupIndex, code: ResponseCode) -> InvDescriptor {
    InvDescriptor::page_group_response(PageGroupResponse {
        requester: FUNCTION,
        pasid: Some(pasid(raw)),
        group,
        code,
    })
}

#[test]
fn r16_r66_a_fault_is_recorded_in_the_guests_names() {
    let mut rig = Rig::booted();
    let space = Space::new(&mut rig);
    rig.bind(pasid(0x55), &space);
    assert!(rig.write(Some(pasid(0x55)), AT, 1).is_err());
    let record = rig.record(0);
    assert!(record.pending());
    assert_eq!(record.source(), FUNCTION);
    assert_ne!(record.source(), HOST_FUNCTION);
    assert_eq!(record.pasid(), Some(pasid(0x55)));
    assert_eq!(record.at(), AT);
    assert_eq!(record.kind(), RequestKind::Write);
    assert_eq!(
        record.reason().get(),
        FaultReason::FirstStageNotPresent.code()
    );
    assert_eq!(rig.messages.take(), [FAULT_MESSAGE]);
}

#[test]
fn r62_r64_a_group_of_several_pages_is_answered_once_and_asked_for_again_where_it_found_no_room() {
    let mut rig = Rig::booted();
    let space = Space::new(&mut rig);
    rig.bind(pasid(5), &space);
    let queue = rig.set_page_request_queue(0);
    let ask = |rig: &Rig| {
        let (to, from) = channel();
        let waiter = Box::new(move |response| {
            let _ = to.send(response);
        });
        let pages = [0, 0x3000, 0x8000].map(|offset| {
            let at = AT.checked_add(offset).unwrap();
            (at, Access::WRITE)
        });
        let by = Rig::asking(pasid(5));
        rig.port()
            .request_pages(by, pages[0], &pages[1..], waiter)
            .unwrap();
        from
    };
    let from = ask(&rig);
    let requests = [0, 1, 2].map(|index| rig.page_request(queue, index));
    let places = requests.map(|request| request.place);
    use palisade_iommu::PlaceInGroup::{Last, MoreFollow};
    assert_eq!(places, [MoreFollow, MoreFollow, Last]);
    assert!(requests.iter().all(|one| one.group == requests[0].group));
    rig.submit(&[answer(5, requests[0].group, ResponseCode::Success)]);
    assert_eq!(from.try_recv(), Ok(PageResponse::Success));
    assert!(from.try_recv().is_err(), "once");
    // The queue has 128 places, one of which stays empty, and nobody takes anything out.
    let groups: Vec<_> = (0..42).map(|_| ask(&rig)).collect();
    let over = &groups[41];
    assert_eq!(rig.read32(reg::PRS), OVERFLOW | PENDING);
    assert!(over.try_recv().is_err(), "while the queue is full");
    rig.write64(reg::PQH, rig.read64(reg::PQT));
    rig.write32(reg::PRS, OVERFLOW);
    assert_eq!(over.try_recv(), Ok(PageResponse::Success), "to ask again");
    assert!(groups[0].try_recv().is_err(), "the guest has that one");
}

#[test]
fn r66_the_hosts_number_of_a_pasid_never_shows() {
    let mut rig = Rig::booted();
    let space = Space::new(&mut rig);
    rig.bind(pasid(0x55), &space);
    let host = rig.container.translate(FUNCTION, pasid(0x55)).unwrap();
    assert_ne!(host.pasid().get(), 0x55);
    assert!(rig.read(Some(pasid(0x55)), AT).is_err());
    assert_eq!(rig.take_record().unwrap().pasid(), Some(pasid(0x55)));
    let queue = rig.set_page_request_queue(0);
    let _answer = ask(&rig, 0x55, AT);
    assert_eq!(rig.page_request(queue, 0).pasid, Some(pasid(0x55)));
    assert_eq!(rig.page_request(queue, 0).requester, FUNCTION);
}

#[test]
fn r59_a_pasid_that_nothing_is_bound_to_has_the_fault_of_the_guests_own_tables() {
    let mut rig = Rig::booted();
    let fault = |rig: &Rig, raw| {
        assert!(rig.read(Some(pasid(raw)), AT).is_err());
        let record = rig.take_record().unwrap();
        assert_eq!(record.pasid(), Some(pasid(raw)));
        FaultReason::from_code(record.reason().get()).unwrap()
    };
    assert_eq!(fault(&rig, 1), FaultReason::PasidDirectoryNotPresent);
    rig.entry_at(pasid(1));
    assert_eq!(fault(&rig, 1), FaultReason::PasidEntryNotPresent);
    rig.set_entry(pasid(1), PasidEntry::from_words([1, 1, 0, 0, 0, 0, 0, 0]));
    assert_eq!(fault(&rig, 1), FaultReason::PasidEntryInvalid);
    rig.set_entry(pasid(1), PasidEntry::from_words([1, 0, 0, 1, 0, 0, 0, 0]));
    assert_eq!(fault(&rig, 1), FaultReason::PasidEntryReserved);
    rig.set_context(FUNCTION, ContextFlags::DEVICE_TLB);
    assert_eq!(fault(&rig, 1), FaultReason::PasidDisabled);
}

#[test]
fn requests_without_a_pasid_have_theirs_too() {
    let rig = Rig::booted();
    assert!(rig.read(None, AT).is_err());
    let record = rig.take_record().unwrap();
    assert_eq!(record.pasid(), None);
    assert_eq!(
        record.reason().get(),
        FaultReason::PasidDirectoryNotPresent.code()
    );
}

#[test]
fn r59_r66_a_slice_of_a_shared_function_has_the_faults_of_the_guests_own_tables_too() {
    let mut rig = Rig::booted();
    let slice = Bdf::new(0, 0x11, 0);
    let parent = Bdf::new(0x6b, 0, 0);
    let parent = rig
        .iommu
        .add_function(parent, PasidSupport::Width(20))
        .unwrap();
    rig.attach(slice, parent.clone(), Sharing::Mediated);
    rig.unit.attached(slice);
    let fault = |rig: &Rig, hold: &Hold| {
        let by = Requester::new(Some(hold.pasid().into()));
        assert!(parent.port().read(by, AT, &mut [0; 8]).is_err());
        let record = rig.take_record().unwrap();
        assert_eq!(record.source(), slice);
        let reason = FaultReason::from_code(record.reason().get()).unwrap();
        (record.pasid(), reason)
    };

    let default = rig.container.default_hold(slice).unwrap();
    let seen = fault(&rig, &default);
    assert_eq!(seen, (None, FaultReason::ContextEntryNotPresent));

    rig.set_context(slice, all_flags());
    let space = Space::new(&mut rig);
    rig.bind(pasid(0x55), &space);
    let of_the_device = rig.container.translate(slice, pasid(0x55)).unwrap();
    assert_ne!(of_the_device.pasid().get(), 0x55);
    rig.unbind(pasid(0x55));
    let seen = fault(&rig, &of_the_device);
    let absent = FaultReason::PasidEntryNotPresent;
    assert_eq!(seen, (Some(pasid(0x55)), absent));
    assert_eq!(parent.host_faults(), []);
}

#[test]
fn r60_fpd_suppresses_the_record_and_not_the_refusal() {
    let mut rig = Rig::booted();
    // Not present with FPD, as Linux leaves an entry that it tears down.
    let silent = PasidEntry::not_present().with_fault_processing_disabled();
    rig.set_entry(pasid(1), silent);
    rig.tell_of(pasid(1));
    assert!(rig.read(Some(pasid(1)), AT).is_err());
    // Present with FPD: what is bound reports nothing either.
    let space = Space::new(&mut rig);
    let entry = crate::testing::first_stage(&space).with_fault_processing_disabled();
    rig.set_entry(pasid(2), entry);
    rig.tell_of(pasid(2));
    assert!(rig.read(Some(pasid(2)), AT).is_err());
    assert_eq!(rig.read32(reg::FSTS), 0);
    assert_eq!(rig.messages.take(), []);
}

#[test]
fn r67_a_storm_of_faults_fills_the_records_and_interrupts_once() {
    let mut rig = Rig::booted();
    let space = Space::new(&mut rig);
    rig.bind(pasid(1), &space);
    for _ in 0..10_000 {
        assert!(rig.read(Some(pasid(1)), AT).is_err());
    }
    assert_eq!(rig.read32(reg::FSTS) & 3, 3);
    assert_eq!(rig.messages.take(), [FAULT_MESSAGE]);
}

#[test]
fn r62_a_page_request_is_queued_and_its_answer_reaches_the_device() {
    let mut rig = Rig::booted();
    let queue = rig.set_page_request_queue(0);
    let space = Space::new(&mut rig);
    rig.bind(pasid(1), &space);
    let codes = [
        (ResponseCode::Success, PageResponse::Success),
        (ResponseCode::InvalidRequest, PageResponse::Invalid),
        (ResponseCode::Failure, PageResponse::Failure),
        (ResponseCode::Reserved(7), PageResponse::Failure),
    ];
    for (index, (code, response)) in (0..).zip(codes) {
        let from = ask(&rig, 1, AT);
        assert_eq!(rig.read64(reg::PQT), (index + 1) * 32);
        let request = rig.page_request(queue, index);
        assert_eq!(request.at, AT);
        assert_eq!(request.access, Access::WRITE);
        assert_eq!(request.place, PlaceInGroup::Last);
        assert!(from.try_recv().is_err(), "the queue goes on meanwhile");
        rig.submit(&[answer(1, request.group, code)]);
        assert_eq!(from.try_recv(), Ok(response));
    }
}

#[test]
fn r62_the_first_request_interrupts_and_those_before_it_is_taken_do_not() {
    let mut rig = Rig::booted();
    rig.set_page_request_queue(0);
    let space = Space::new(&mut rig);
    rig.bind(pasid(1), &space);
    let _answers = [ask(&rig, 1, AT), ask(&rig, 1, AT)];
    assert_eq!(rig.messages.take(), [PAGE_MESSAGE]);
    assert_eq!(rig.read32(reg::PRS), PENDING);
    rig.write32(reg::PRS, PENDING);
    rig.write64(reg::PQH, rig.read64(reg::PQT));
    let _third = ask(&rig, 1, AT);
    assert_eq!(rig.messages.take(), [PAGE_MESSAGE]);
}

#[test]
fn a_masked_page_request_event_is_sent_when_it_is_unmasked() {
    let mut rig = Rig::booted();
    rig.set_page_request_queue(0);
    rig.write32(reg::PECTL, 1 << 31);
    let space = Space::new(&mut rig);
    rig.bind(pasid(1), &space);
    let _answer = ask(&rig, 1, AT);
    assert_eq!(rig.messages.take(), []);
    assert_eq!(rig.read32(reg::PECTL), 3 << 30);
    rig.write32(reg::PECTL, 0);
    assert_eq!(rig.messages.take(), [PAGE_MESSAGE]);
}

#[test]
fn r64_a_full_queue_sets_its_status_and_the_device_asks_again_once_it_is_emptied() {
    let mut rig = Rig::booted();
    rig.set_page_request_queue(0);
    let space = Space::new(&mut rig);
    for raw in 1..=3 {
        rig.bind(pasid(raw), &space);
    }
    // One page holds 128 requests, and one place stays empty.
    let waiting: Vec<_> = (0..127).map(|n| ask(&rig, 1 + n / 60, AT)).collect();
    assert_eq!(rig.read32(reg::PRS), PENDING);
    let postponed = ask(&rig, 3, AT);
    assert_eq!(rig.read32(reg::PRS), PENDING | OVERFLOW);
    assert_eq!(rig.messages.take(), [PAGE_MESSAGE]);
    assert!(waiting.iter().all(|from| from.try_recv().is_err()));

    // Room alone is not enough: software clears the overflow too.
    rig.write64(reg::PQH, rig.read64(reg::PQT));
    let another = ask(&rig, 3, AT);
    assert!(postponed.try_recv().is_err() && another.try_recv().is_err());
    rig.write32(reg::PRS, PENDING | OVERFLOW);
    // §7.4.1, Table 31: the answer is success, upon which a device asks again.
    assert_eq!(postponed.try_recv(), Ok(PageResponse::Success));
    assert_eq!(another.try_recv(), Ok(PageResponse::Success));
    let taken = ask(&rig, 3, AT);
    assert!(taken.try_recv().is_err());
    assert_eq!(rig.read32(reg::PRS), PENDING);
    assert_eq!(rig.messages.take(), [PAGE_MESSAGE]);
}

#[test]
fn r64_r65_what_found_the_queue_full_is_answered_by_an_unbind_too() {
    let mut rig = Rig::booted();
    rig.set_page_request_queue(0);
    let space = Space::new(&mut rig);
    for raw in 1..=3 {
        rig.bind(pasid(raw), &space);
    }
    let _waiting: Vec<_> = (0..127).map(|n| ask(&rig, 1 + n / 60, AT)).collect();
    let postponed = ask(&rig, 3, AT);
    rig.unbind(pasid(3));
    assert_eq!(postponed.try_recv(), Ok(PageResponse::Invalid));
    rig.write32(reg::PRS, PENDING | OVERFLOW);
}

#[test]
fn r63_with_translation_off_a_page_request_is_invalid_and_no_fault() {
    let rig = Rig::booted();
    rig.write32(reg::GCMD, Command::QUEUED_INVALIDATION_ENABLE.bits());
    let (to, from) = channel();
    let waiter = Box::new(move |response| {
        let _ = to.send(response);
    });
    let by = Requester {
        on_miss: OnMiss::Ask,
        ..Requester::new(None)
    };
    let asked = rig.port().request_page(by, AT, Access::WRITE, waiter);
    assert_eq!(asked, Ok(()));
    assert_eq!(from.try_recv(), Ok(PageResponse::Invalid));
    assert_eq!(rig.read64(reg::PQT), 0);
    assert_eq!(rig.read32(reg::PRS), 0);
    assert_eq!(rig.read32(reg::FSTS), 0);
}

#[test]
fn r60_with_translation_off_nothing_is_recorded() {
    let rig = Rig::booted();
    rig.write32(reg::GCMD, Command::QUEUED_INVALIDATION_ENABLE.bits());
    assert!(rig.read(Some(pasid(1)), AT).is_err());
    assert!(rig.read(None, Iova::new(0xfee0_0000)).is_err());
    assert_eq!(rig.read32(reg::FSTS), 0);
    assert_eq!(rig.messages.take(), []);
}

#[test]
fn without_a_queue_a_request_is_answered_at_once() {
    let mut rig = Rig::booted();
    let space = Space::new(&mut rig);
    rig.bind(pasid(1), &space);
    rig.write64(reg::PQA, 0);
    assert_eq!(ask(&rig, 1, AT).try_recv(), Ok(PageResponse::Failure));
    rig.write64(reg::PQA, 0xdead_0000_0000);
    assert_eq!(ask(&rig, 1, AT).try_recv(), Ok(PageResponse::Failure));
    assert_eq!(rig.read32(reg::PRS), 0);
}

#[test]
fn r59_a_request_that_the_context_forbids_is_a_fault_and_is_answered() {
    let mut rig = Rig::booted();
    let space = Space::new(&mut rig);
    rig.set_context(FUNCTION, ContextFlags::DEVICE_TLB | ContextFlags::PASID);
    rig.submit(&[InvDescriptor::context_cache(ContextScope::Global)]);
    rig.bind(pasid(1), &space);
    assert_eq!(ask(&rig, 1, AT).try_recv(), Ok(PageResponse::Invalid));
    let record = rig.take_record().unwrap();
    assert_eq!(
        record.reason().get(),
        FaultReason::PageRequestDisabled.code()
    );
    assert_eq!(record.kind(), RequestKind::PageRequest);
    assert_eq!(rig.read64(reg::PQT), 0);
}

#[test]
fn r65_an_unbind_answers_what_is_open() {
    let mut rig = Rig::booted();
    let space = Space::new(&mut rig);
    rig.bind(pasid(1), &space);
    let open = ask(&rig, 1, AT);
    rig.unbind(pasid(1));
    assert_eq!(open.try_recv(), Ok(PageResponse::Invalid));
}

#[test]
fn r65_a_reset_answers_what_is_open() {
    use palisade_pci::Function;

    let mut rig = Rig::booted();
    let space = Space::new(&mut rig);
    rig.bind(pasid(1), &space);
    let open = ask(&rig, 1, AT);
    rig.unit.reset();
    assert_eq!(open.try_recv(), Ok(PageResponse::Invalid));
}
