use palisade_iommu::{FaultReason, FirstStage, Levels, PageResponse, Space};
use palisade_units::Gpa;

use super::{Driver, dedicated, shared};
use crate::lock::locked;
use crate::spec::{Command, CommandError, Descriptor, ErrorCode, Flags, QueueConfig, Status};
use crate::testing::{Host, run};

const FROM: u64 = 0x10_0000;
const TO: u64 = 0x20_0000;
const RECORD: u64 = 0x8_0000;

fn status(host: &Host, record: u64) -> Status {
    let status = Status(host.bytes(RECORD + record * 32, 1)[0]);
    host.write(RECORD + record * 32, &[0; 32]);
    status
}

#[test]
fn r5_a_queue_with_a_pasid_needs_the_capability_on() {
    let host = Host::new();
    host.process(5).map(RECORD, RECORD, 1);
    let without = QueueConfig {
        mode: dedicated(0).mode.with_pasid_enable(false),
        ..dedicated(0)
    };
    let privileged = QueueConfig {
        mode: dedicated(5).mode.with_privileged(true),
        ..dedicated(5)
    };
    // Linux asks for privileged mode on its own queues whether or not they have a PASID.
    let plain = QueueConfig {
        mode: without.mode.with_privileged(true),
        ..without
    };
    let queues = [dedicated(5), without, shared(), privileged, plain];
    let driver = Driver::enabled(&host, &queues);
    driver.set_pasid_capability(0);
    let enable = |queue| driver.command(Command::ENABLE_QUEUE, queue);
    assert_eq!(enable(0), CommandError::PASID_ENABLE);
    assert_eq!(enable(1), CommandError::SUCCESS);
    assert_eq!(enable(2), CommandError::PASID_ENABLE);
    assert_eq!(enable(4), CommandError::SUCCESS, "nothing is privileged");
    driver.set_pasid_capability(1);
    assert_eq!(
        enable(3),
        CommandError::PASID_ENABLE,
        "privileged mode is off"
    );
    assert_eq!(enable(0), CommandError::SUCCESS);
    driver.set_pasid_capability(5);
    assert_eq!(enable(3), CommandError::SUCCESS);
    // Turned off under an enabled queue, the platform refuses its requests.
    driver.set_pasid_capability(0);
    driver.submit(0, &Descriptor::no_op().with_record(RECORD));
    run(&mut host.engine());
    assert_eq!(status(&host, 0), Status::NONE);
    assert_eq!(
        driver.error().unwrap().code,
        Status::RECORD_FAULT.with_write().into()
    );
    let faults = locked(&host.unit.faults).clone();
    let reasons: Vec<_> = faults.iter().map(|fault| fault.reason).collect();
    let in_log: Vec<_> = host
        .function
        .host_faults()
        .iter()
        .map(|fault| fault.reason)
        .collect();
    assert_eq!(
        [reasons, in_log].concat(),
        [FaultReason::from_code(0x45).unwrap()]
    );
}

#[test]
fn r1_a_queue_without_a_pasid_has_the_space_of_the_function() {
    let host = Host::new();
    host.bind(None, Space::PassThrough);
    let config = QueueConfig {
        mode: dedicated(0).mode.with_pasid_enable(false).with_pasid(5),
        ..dedicated(0)
    };
    host.process(5);
    let driver = Driver::enabled(&host, &[config]);
    driver.enable(0);
    host.write(FROM, b"palisade");
    driver.submit(0, &Descriptor::memory_move(FROM, TO, 8).with_record(RECORD));
    run(&mut host.engine());
    assert_eq!(status(&host, 0), Status::SUCCESS);
    assert_eq!(host.bytes(TO, 8), b"palisade");
}

#[test]
fn r21_an_exclusive_owner_programs_any_pasid_and_its_table_decides() {
    let host = Host::new();
    host.process(5).map(RECORD, RECORD, 1);
    let driver = Driver::enabled(&host, &[dedicated(0)]);
    let mut engine = host.engine();
    for pasid in [0, 1, 5, 0x8_0000, 0xf_ffff] {
        driver.configure(0, &dedicated(pasid));
        driver.enable(0);
        driver.submit(0, &Descriptor::no_op().with_record(RECORD));
        run(&mut engine);
        let own = pasid == 5;
        assert_eq!(status(&host, 0) == Status::SUCCESS, own, "{pasid}");
        assert_eq!(driver.error().is_none(), own);
        assert_eq!(
            driver.command(Command::DISABLE_QUEUES, 1),
            CommandError::SUCCESS
        );
    }
    assert_eq!(host.function.faults(), 4);
}

#[test]
fn r70_on_a_shared_queue_each_descriptor_has_its_own_pasid() {
    let host = Host::new();
    host.process(5).map(RECORD, RECORD, 1);
    host.process(6).map(RECORD, RECORD + 0x1000, 1);
    let driver = Driver::enabled(&host, &[shared()]);
    driver.enable(0);
    for (i, pasid) in [(0, 5), (1, 6), (2, 7)] {
        let record = RECORD + i * 32;
        driver.submit(
            0,
            &Descriptor::no_op().with_record(record).with_pasid(pasid),
        );
    }
    run(&mut host.engine());
    let at = |page: u64, i: u64| host.bytes(RECORD + page * 0x1000 + i * 32, 1)[0];
    assert_eq!([at(0, 0), at(0, 1), at(0, 2)], [1, 0, 0]);
    assert_eq!([at(1, 0), at(1, 1), at(1, 2)], [0, 1, 0]);
    assert_eq!(driver.error().unwrap().pasid, 7);
}

#[test]
fn r70_commands_of_one_pasid_leave_the_others_alone() {
    let host = Host::new();
    let five = host.process(5);
    five.map(FROM, FROM, 1);
    five.map(RECORD, RECORD, 1);
    let six = host.process(6);
    six.map(FROM, FROM, 1);
    six.map(RECORD, RECORD, 1);
    let driver = Driver::enabled(&host, &[shared(), dedicated(6)]);
    driver.enable(0);
    driver.enable(1);
    let mut engine = host.engine();
    let blocking = |record: u64| {
        let copy = Descriptor::memory_move(FROM, TO, 8).with_flags(Flags::BLOCK_ON_FAULT);
        copy.with_record(RECORD + record * 32)
    };
    driver.submit(0, &blocking(0).with_pasid(5));
    driver.submit(0, &blocking(1).with_pasid(6));
    driver.submit(1, &blocking(2));
    run(&mut engine);
    assert_eq!(
        driver.command(Command::DRAIN_PASID, 7),
        CommandError::SUCCESS
    );
    assert_eq!(
        driver.command(Command::ABORT_PASID, 6),
        CommandError::SUCCESS
    );
    assert_eq!(
        driver.command(Command::DRAIN_PASID, 6),
        CommandError::SUCCESS
    );
    let drain = Command::of(Command::DRAIN_PASID).with_operand(5);
    assert!(driver.command_now(drain).active());
    five.map(TO, TO, 1);
    six.map(TO, TO, 1);
    host.answer(PageResponse::Success);
    run(&mut engine);
    assert_eq!(driver.read(crate::spec::register::CMDSTS), 0);
    let expected = [Status::SUCCESS, Status::NONE, Status::NONE];
    assert_eq!([0, 1, 2].map(|record| status(&host, record)), expected);
    // The queues are in service.
    driver.submit(0, &Descriptor::no_op().with_pasid(6).with_record(RECORD));
    driver.submit(1, &Descriptor::no_op().with_record(RECORD + 32));
    run(&mut engine);
    assert_eq!(
        [0, 1].map(|record| status(&host, record)),
        [Status::SUCCESS; 2]
    );
}

#[test]
fn r16_others_go_on_while_one_pasid_faults() {
    let host = Host::new();
    let process = host.process(5);
    process.map(RECORD, RECORD, 1);
    process.map(FROM, FROM, 1);
    process.map(TO, TO, 1);
    // An entry whose table is nowhere.
    host.bind(
        Some(crate::testing::tag(6)),
        Space::FirstStage(FirstStage::new(Gpa::new(1 << 40), Levels::Four)),
    );
    let driver = Driver::enabled(&host, &[dedicated(5), dedicated(6)]);
    driver.enable(0);
    driver.enable(1);
    host.write(FROM, b"palisade");
    let mut engine = host.engine();
    for _ in 0..10 {
        driver.submit(
            1,
            &Descriptor::memory_move(FROM, TO + 0x100, 8).with_record(RECORD + 32),
        );
        driver.submit(0, &Descriptor::memory_move(FROM, TO, 8).with_record(RECORD));
        run(&mut engine);
        assert_eq!(
            [0, 1].map(|record| status(&host, record)),
            [Status::SUCCESS, Status::NONE]
        );
    }
    assert_eq!(host.bytes(TO + 0x100, 8), [0; 8]);
    assert_eq!(
        driver.error().unwrap().code,
        ErrorCode::from(Status::RECORD_FAULT.with_write())
    );
}

/// On a shared queue the descriptor says whether it is privileged; the function must be allowed to send such requests.
#[test]
fn r5_a_privileged_descriptor_needs_privileged_mode() {
    let host = Host::new();
    host.process(5).map(RECORD, RECORD, 1);
    // Where it may be sent, it is sent, and this process's pages are not for privileged requests.
    for (control, expected) in [(0b001, Status::PRIVILEGE), (0b101, Status::NONE)] {
        let driver = Driver::enabled(&host, &[shared(), dedicated(5)]);
        driver.set_pasid_capability(control);
        driver.enable(0);
        driver.enable(1);
        let no_op = Descriptor::no_op().with_pasid(5).with_record(RECORD);
        let privileged = Descriptor {
            identity: no_op.identity | 1 << 31,
            ..no_op
        };
        driver.submit(0, &privileged);
        run(&mut host.engine());
        assert_eq!(status(&host, 0), expected);
        let sent = driver.error().map(|error| (error.code, error.privileged));
        let fault = Status::RECORD_FAULT.with_write();
        let expected = (expected == Status::NONE).then_some((fault.into(), true));
        assert_eq!(sent, expected);
        driver.submit(0, &no_op);
        run(&mut host.engine());
        assert_eq!(status(&host, 0), Status::SUCCESS);
        // That of a dedicated queue means nothing.
        driver.submit(1, &privileged);
        run(&mut host.engine());
        assert_eq!(status(&host, 0), Status::SUCCESS);
        assert_eq!(driver.error(), None);
    }
}
