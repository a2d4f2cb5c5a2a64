use super::{Driver, PERMISSIONS, dedicated};
use crate::spec::{Command, Descriptor, InterruptPermission, QueueConfig, Status, register};
use crate::testing::{Host, run};

const RECORD: u64 = 0x8_0000;

#[test]
fn commands_and_errors_fire_vector_zero() {
    let host = Host::new();
    let driver = Driver::new(&host);
    let line = driver.line(0);
    driver.submit(0, &Descriptor::no_op());
    assert_eq!(
        (line.count(), driver.read(register::INTCAUSE)),
        (0, 1),
        "not asked for"
    );
    driver.write(register::INTCAUSE, 1);
    driver.write(register::GENCTRL, 1);
    driver.submit(0, &Descriptor::no_op());
    driver.submit(0, &Descriptor::no_op());
    assert_eq!(line.count(), 1, "once for each time the cause is set");
    driver.command_now(Command::of(Command::DRAIN_ALL));
    assert_eq!(
        (line.count(), driver.read(register::INTCAUSE)),
        (1, 1),
        "not asked for"
    );
    driver.command_now(Command::of(Command::DRAIN_ALL).with_interrupt(true));
    assert_eq!(
        (line.count(), driver.read(register::INTCAUSE)),
        (2, 3),
        "though it failed"
    );
}

#[test]
fn r70_an_interrupt_needs_the_permission_of_its_pasid() {
    let host = Host::new();
    host.process(5).map(RECORD, RECORD, 1);
    host.bind(None, palisade_iommu::Space::PassThrough);
    let without = QueueConfig {
        mode: dedicated(0).mode.with_pasid_enable(false),
        ..dedicated(0)
    };
    let driver = Driver::enabled(&host, &[dedicated(5), without]);
    driver.enable(0);
    driver.enable(1);
    let line = driver.line(2);
    let mut engine = host.engine();
    let mut outcome = |queue: u8, handle: u16| {
        let before = line.count();
        driver.submit(
            queue,
            &Descriptor::no_op()
                .with_record(RECORD)
                .with_interrupt(handle),
        );
        run(&mut engine);
        let status = Status(host.bytes(RECORD, 1)[0]);
        host.write(RECORD, &[0; 32]);
        (status, line.count() - before)
    };
    let refused = (Status::INTERRUPT_HANDLE, 0);
    let fired = (Status::SUCCESS, 1);
    let permit = |permission: InterruptPermission| {
        driver.write(PERMISSIONS + 2 * 8, permission.into_bits());
    };
    assert_eq!(
        outcome(0, 2),
        refused,
        "the entry is for requests without a PASID"
    );
    assert_eq!(outcome(1, 2), fired);
    permit(
        InterruptPermission::new()
            .with_pasid_enable(true)
            .with_pasid(5),
    );
    assert_eq!(outcome(0, 2), fired);
    assert_eq!(outcome(1, 2), refused);
    permit(
        InterruptPermission::new()
            .with_pasid_enable(true)
            .with_pasid(6),
    );
    assert_eq!(outcome(0, 2), refused);
    permit(InterruptPermission::new().with_ignore(true));
    assert_eq!((outcome(0, 2), outcome(1, 2)), (fired, fired));
    assert_eq!(outcome(0, 9), refused, "no such vector");
    assert_eq!(driver.error(), None);
}

#[test]
fn r5_a_permission_for_a_pasid_needs_the_capability_on() {
    let host = Host::new();
    let driver = Driver::new(&host);
    let permission = InterruptPermission::new()
        .with_pasid_enable(true)
        .with_pasid(5);
    driver.write(PERMISSIONS, permission.into_bits());
    assert_eq!(driver.read(PERMISSIONS), 0);
    assert_eq!(driver.error().unwrap().pasid, 5);
    driver.set_up_config_space();
    driver.write(PERMISSIONS, permission.into_bits());
    assert_eq!(driver.read(PERMISSIONS), permission.into_bits());
}
