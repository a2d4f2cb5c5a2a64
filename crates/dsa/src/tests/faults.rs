use palisade_iommu::{FaultReason, PageResponse};
use palisade_units::{Access, Iova};

use super::{BLOCK, Dedicated, record};
use crate::lock::locked;
use crate::spec::{Descriptor, Flags, Status};
use crate::testing::{Host, run};

const FROM: u64 = 0x10_0000;
const TO: u64 = 0x20_0000;
const RECORD: u64 = 0x8_0000;

#[test]
fn r16_a_wrong_pasid_faults_and_touches_nothing() {
    let host = Host::new();
    host.process(5).map(0, 0, 0x300);
    let queue = Dedicated::open(&host, 0, 5);
    let wrong = Dedicated::open(&host, 1, 6);
    host.write(FROM, &[7; 64]);
    wrong.submit(Descriptor::memory_move(FROM, TO, 64).with_record(RECORD));
    queue.submit(Descriptor::memory_move(FROM, TO + 0x1000, 64).with_record(RECORD + 32));
    run(&mut host.engine());
    assert_eq!(host.bytes(TO, 64), [0; 64]);
    assert_eq!(
        record(&host, RECORD).status(),
        Status::NONE,
        "it has no access either"
    );
    assert_eq!(
        record(&host, RECORD + 32).status(),
        Status::SUCCESS,
        "others go on"
    );
    // The copy faults, then the record that was to say so.
    let errors = wrong.errors();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].code, Status::RECORD_FAULT.with_write().into());
    assert_eq!((errors[0].pasid, errors[0].fault_address), (6, RECORD));
    let faults: Vec<_> = host.function.host_faults();
    assert_eq!(faults[0].reason, FaultReason::PasidEntryNotPresent);
    assert_eq!(
        (faults[0].tag.unwrap().get(), faults[0].at),
        (6, Iova::new(FROM))
    );
}

#[test]
fn without_block_on_fault_a_missing_page_ends_the_descriptor_with_what_was_done() {
    let host = Host::new();
    let process = host.process(5);
    process.map(FROM, FROM, 3);
    process.map(TO, TO, 1);
    process.map(RECORD, RECORD, 1);
    let queue = Dedicated::open(&host, 0, 5);
    queue.submit(Descriptor::memory_move(FROM, TO + 0x100, 0x2000).with_record(RECORD));
    queue.submit(Descriptor::memory_move(TO, FROM + 0x2800, 0x1000).with_record(RECORD + 32));
    queue.submit(Descriptor::memory_move(TO + 0x800, FROM, 0x1000).with_record(RECORD + 64));
    queue.submit(Descriptor::memory_fill(1, TO + 0xff0, 0x20).with_record(RECORD + 96));
    run(&mut host.engine());
    let to = record(&host, RECORD);
    assert_eq!(to.status(), Status::PAGE_FAULT.with_write());
    assert_eq!((to.bytes_completed, to.fault_address), (0xf00, TO + 0x1000));
    let past = record(&host, RECORD + 32);
    assert_eq!(past.status(), Status::PAGE_FAULT.with_write());
    assert_eq!(
        (past.bytes_completed, past.fault_address),
        (0x800, FROM + 0x3000)
    );
    let source = record(&host, RECORD + 64);
    assert_eq!(source.status(), Status::PAGE_FAULT);
    assert_eq!(
        (source.bytes_completed, source.fault_address),
        (0x800, TO + 0x1000)
    );
    let fill = record(&host, RECORD + 96);
    assert_eq!(
        (fill.bytes_completed, fill.fault_address),
        (0x10, TO + 0x1000)
    );
    let faults = locked(&host.unit.faults);
    assert_eq!(faults.len(), 4);
    assert_eq!(faults[0].reason, FaultReason::FirstStageNotPresent);
    assert_eq!(faults[0].pasid.unwrap().get(), 5);
}

#[test]
fn r62_success_retries_from_where_it_was() {
    let host = Host::new();
    let process = host.process(5);
    process.map(FROM, FROM, 4);
    process.map(TO, TO, 1);
    process.map(RECORD, RECORD, 1);
    let data: Vec<u8> = (0..0x4000_u32)
        .map(|i| (i % 249).to_le_bytes()[0])
        .collect();
    host.write(FROM, &data);
    let queue = Dedicated::open(&host, 0, 5);
    let mut engine = host.engine();
    queue.submit(
        Descriptor::memory_move(FROM, TO, 0x4000)
            .with_record(RECORD)
            .with_flags(BLOCK),
    );
    for page in 1..4 {
        run(&mut engine);
        let request = locked(&host.unit.requests)[0];
        assert_eq!(request.at, Iova::new(TO + page * 0x1000));
        assert_eq!(request.access, Access::WRITE);
        assert_eq!(request.pasid.unwrap().get(), 5);
        assert_eq!(record(&host, RECORD).status(), Status::NONE);
        // Others go on meanwhile.
        queue.submit(Descriptor::no_op().with_record(RECORD + 32));
        run(&mut engine);
        assert_eq!(record(&host, RECORD + 32).status(), Status::SUCCESS);
        process.map(TO + page * 0x1000, TO + page * 0x1000, 1);
        assert_eq!(host.answer(PageResponse::Success), 1);
    }
    run(&mut engine);
    assert_eq!(record(&host, RECORD).status(), Status::SUCCESS);
    assert_eq!(host.bytes(TO, 0x4000), data);
    assert_eq!(queue.lane.pending(), 0);
    assert_eq!(*locked(&host.unit.faults), []);
}

#[test]
fn r62_invalid_and_failure_end_the_descriptor() {
    for response in [PageResponse::Invalid, PageResponse::Failure] {
        let host = Host::new();
        let process = host.process(5);
        process.map(FROM, FROM, 1);
        process.map(TO, TO, 1);
        process.map(RECORD, RECORD, 1);
        let queue = Dedicated::open(&host, 0, 5);
        let mut engine = host.engine();
        let copy = Descriptor::memory_move(FROM + 0xc00, TO, 0x800);
        queue.submit(copy.with_record(RECORD).with_flags(BLOCK));
        run(&mut engine);
        host.answer(response);
        run(&mut engine);
        let record = record(&host, RECORD);
        assert_eq!(record.status(), Status::PAGE_REQUEST_REFUSED);
        assert_eq!(
            (record.bytes_completed, record.fault_address),
            (0x400, FROM + 0x1000)
        );
    }
}

#[test]
fn a_record_on_a_missing_page_is_asked_for_even_without_block_on_fault() {
    let host = Host::new();
    let process = host.process(5);
    process.map(FROM, FROM, 1);
    let queue = Dedicated::open(&host, 0, 5);
    let mut engine = host.engine();
    queue.submit(Descriptor::memory_move(FROM, FROM + 0x800, 8).with_record(RECORD));
    run(&mut engine);
    process.map(RECORD, RECORD, 1);
    assert_eq!(host.answer(PageResponse::Success), 1);
    run(&mut engine);
    assert_eq!(record(&host, RECORD).status(), Status::SUCCESS);

    queue.submit(Descriptor::no_op().with_record(RECORD + 0x1000));
    run(&mut engine);
    assert_eq!(host.answer(PageResponse::Invalid), 1);
    run(&mut engine);
    assert_eq!(
        queue.errors()[0].code,
        Status::RECORD_FAULT.with_write().into()
    );
    assert_eq!(queue.errors()[0].fault_address, RECORD + 0x1000);
    assert_eq!(queue.lane.pending(), 0);
}

#[test]
fn descriptors_that_need_one_page_share_a_request() {
    let host = Host::new();
    let process = host.process(5);
    process.map(FROM, FROM, 1);
    process.map(RECORD, RECORD, 1);
    let queue = Dedicated::open(&host, 0, 5);
    let mut engine = host.engine();
    for _ in 0..20 {
        queue.submit(Descriptor::memory_move(FROM, TO, 8).with_flags(BLOCK));
    }
    run(&mut engine);
    assert_eq!(locked(&host.unit.requests).len(), 1);
    process.map(TO, TO, 1);
    host.answer(PageResponse::Success);
    run(&mut engine);
    assert_eq!((queue.lane.pending(), queue.errors().len()), (0, 0));
}

#[test]
fn r67_many_missing_pages_are_asked_for_a_few_at_a_time() {
    let host = Host::new();
    let process = host.process(5);
    process.map(FROM, FROM, 1);
    let queue = Dedicated::open(&host, 0, 5);
    let mut engine = host.engine();
    for page in 0..40 {
        let to = TO + page * 0x1000;
        queue.submit(Descriptor::memory_move(FROM, to, 8).with_flags(BLOCK));
    }
    let mut asked = 0;
    for _ in 0..100 {
        run(&mut engine);
        let open = locked(&host.unit.requests).len();
        assert!(open <= 8, "{open} at a time");
        asked += open;
        for request in locked(&host.unit.requests).iter() {
            process.map(request.at.get(), request.at.get(), 1);
        }
        host.answer(PageResponse::Success);
    }
    assert_eq!((asked, queue.lane.pending()), (40, 0));
    assert_eq!(queue.errors(), []);
}

#[test]
fn r65_an_unbind_answers_what_is_parked() {
    let host = Host::new();
    let process = host.process(5);
    process.map(FROM, FROM, 1);
    process.map(RECORD, RECORD, 1);
    let queue = Dedicated::open(&host, 0, 5);
    let mut engine = host.engine();
    queue.submit(
        Descriptor::memory_move(FROM, TO, 8)
            .with_record(RECORD)
            .with_flags(BLOCK),
    );
    run(&mut engine);
    assert_eq!(host.function.outstanding_page_requests(), 1);
    let tag = Some(crate::testing::tag(5));
    host.function
        .unbind(tag, palisade_iommu::UserId(1))
        .unwrap();
    run(&mut engine);
    assert_eq!(
        (
            queue.lane.pending(),
            host.function.outstanding_page_requests()
        ),
        (0, 0)
    );
    // Not even the record can be written any more.
    assert_eq!(
        queue.errors()[0].code,
        Status::RECORD_FAULT.with_write().into()
    );
}

#[test]
fn a_batch_waits_for_pages_of_its_list_and_its_parts() {
    let host = Host::new();
    let process = host.process(5);
    process.map(FROM, FROM, 1);
    process.map(RECORD, RECORD, 1);
    let list = 0x9_0000;
    let copy = Descriptor::memory_move(FROM, TO, 8).with_flags(BLOCK);
    host.write(FROM, b"palisade");
    host.write(list, zerocopy::IntoBytes::as_bytes(&Descriptor::no_op()));
    host.write(list + 64, zerocopy::IntoBytes::as_bytes(&copy));
    let queue = Dedicated::open(&host, 0, 5);
    let mut engine = host.engine();
    queue.submit(
        Descriptor::batch(list, 2)
            .with_record(RECORD)
            .with_flags(BLOCK),
    );
    for page in [list, TO] {
        run(&mut engine);
        assert_eq!(locked(&host.unit.requests)[0].at, Iova::new(page));
        process.map(page, page, 1);
        host.answer(PageResponse::Success);
    }
    run(&mut engine);
    let batch = record(&host, RECORD);
    assert_eq!(
        (batch.status(), batch.bytes_completed),
        (Status::SUCCESS, 2)
    );
    assert_eq!(host.bytes(TO, 8), b"palisade");

    queue.submit(Descriptor::batch(0x100_0000, 2).with_record(RECORD));
    run(&mut engine);
    let batch = record(&host, RECORD);
    assert_eq!(batch.status(), Status::BATCH_PAGE_FAULT);
    assert_eq!(
        (batch.bytes_completed, batch.fault_address),
        (0, 0x100_0000)
    );
    assert!(!Descriptor::batch(0, 2).flags().contains(Flags::FENCE));
}
