use palisade_pci::{AccessError, Bar, Function};
use zerocopy::IntoBytes;

use super::{Driver, dedicated, shared};
use crate::spec::{
    Command, CommandError, Descriptor, ErrorCode, Opcode, Portal, Status, portal_offset,
};
use crate::testing::{Host, run};

const RECORD: u64 = 0x8_0000;

fn statuses(host: &Host, count: u64) -> Vec<u8> {
    (0..count)
        .map(|i| host.bytes(RECORD + i * 32, 1)[0])
        .collect()
}

fn no_op(record: u64) -> Descriptor {
    Descriptor::no_op().with_record(RECORD + record * 32)
}

/// A function with one enabled queue and a process that has room for records.
fn with_queue(host: &Host) -> Driver {
    host.process(5).map(RECORD, RECORD, 1);
    let driver = Driver::enabled(host, &[dedicated(5)]);
    driver.enable(0);
    driver
}

const DONE: u8 = Status::SUCCESS.0;

#[test]
fn eight_stores_one_store_and_several_descriptors_in_one_are_all_the_same() {
    let host = Host::new();
    let driver = with_queue(&host);
    let limited = portal_offset(0, Portal::Limited);
    for (i, store) in (0..).zip(no_op(0).as_bytes().chunks(8)) {
        driver
            .function
            .bar_write(Bar::Bar2, limited + i * 8, store)
            .unwrap();
    }
    // At another place of the portal, in other pieces, in another order.
    let bytes = no_op(1);
    let bytes = bytes.as_bytes();
    for range in [32..64, 0..4, 8..32, 4..8] {
        let at = limited + 0x40 + range.start as u64;
        driver
            .function
            .bar_write(Bar::Bar2, at, &bytes[range])
            .unwrap();
    }
    driver.submit(0, &no_op(2));
    let several: Vec<u8> = (3..6).flat_map(|i| no_op(i).as_bytes().to_vec()).collect();
    let unlimited = portal_offset(0, Portal::Unlimited) + 0x80;
    driver
        .function
        .bar_write(Bar::Bar2, unlimited, &several)
        .unwrap();
    run(&mut host.engine());
    assert_eq!(statuses(&host, 6), [DONE; 6]);
    assert_eq!(driver.error(), None);
}

#[test]
fn a_descriptor_that_was_given_up_does_not_mix_with_the_next() {
    let host = Host::new();
    let driver = with_queue(&host);
    let limited = portal_offset(0, Portal::Limited);
    let store = |i: usize, bytes: &[u8]| {
        let at = limited + (i * 8) as u64;
        driver
            .function
            .bar_write(Bar::Bar2, at, &bytes[i * 8..i * 8 + 8])
            .unwrap();
    };
    let given_up = Descriptor::of(Opcode(0xff), 0, 0, 0);
    (0..3).for_each(|i| store(i, given_up.as_bytes()));
    (0..8).for_each(|i| store(i, no_op(0).as_bytes()));
    run(&mut host.engine());
    assert_eq!(statuses(&host, 1), [DONE]);
    // Nor does it survive a disable.
    store(0, given_up.as_bytes());
    assert_eq!(
        driver.command(Command::DISABLE_QUEUES, 1),
        CommandError::SUCCESS
    );
    driver.enable(0);
    (1..8).for_each(|i| store(i, no_op(1).as_bytes()));
    run(&mut host.engine());
    assert_eq!(statuses(&host, 2), [DONE, 0]);
    assert_eq!(driver.error(), None);
}

#[test]
fn writes_that_no_portal_takes_are_told_by_the_error_register() {
    let host = Host::new();
    let driver = with_queue(&host);
    let code = |at: u64, len: usize| {
        driver
            .function
            .bar_write(Bar::Bar2, at, &[0; 128][..len])
            .unwrap();
        driver.error().map(|error| error.code)
    };
    let stray = Some(ErrorCode::PORTAL_ACCESS);
    assert_eq!(code(0x2000, 64), stray, "no interrupt store");
    assert_eq!(code(0x3000, 8), stray);
    assert_eq!(code(0x1000 + 60, 8), stray, "across two descriptors");
    assert_eq!(code(0x1000 + 32, 64), stray);
    assert_eq!(code(0x1fc0, 128), stray, "across two portals");
    let disabled = portal_offset(1, Portal::Limited);
    assert_eq!(code(disabled, 64), Some(ErrorCode::QUEUE_DISABLED));
    assert_eq!(code(disabled, 8), None, "a piece is nothing yet");
    run(&mut host.engine());
    assert_eq!(statuses(&host, 1), [0]);
}

#[test]
fn a_full_dedicated_queue_drops_and_says_so() {
    let host = Host::new();
    let driver = with_queue(&host);
    (0..17).for_each(|i| driver.submit(0, &no_op(i)));
    let error = driver.error().unwrap();
    assert_eq!((error.code, error.queue), (ErrorCode::QUEUE_FULL, Some(0)));
    run(&mut host.engine());
    assert_eq!(statuses(&host, 17), [[DONE; 16].as_slice(), &[0]].concat());
}

#[test]
fn a_full_shared_queue_asks_to_try_again() {
    let host = Host::new();
    host.process(5).map(RECORD, RECORD, 1);
    let driver = Driver::enabled(&host, &[shared()]);
    driver.enable(0);
    let submit = |portal: Portal, i: u64| {
        let descriptor = no_op(i).with_pasid(5);
        driver
            .function
            .bar_write(Bar::Bar2, portal_offset(0, portal), descriptor.as_bytes())
    };
    let again = Err(AccessError::Retry { bar: Bar::Bar2 });
    (0..8).for_each(|i| submit(Portal::Limited, i).unwrap());
    assert_eq!(submit(Portal::Limited, 8), again, "beyond the threshold");
    (8..16).for_each(|i| submit(Portal::Unlimited, i).unwrap());
    assert_eq!(submit(Portal::Unlimited, 16), again, "beyond the size");
    run(&mut host.engine());
    assert_eq!(statuses(&host, 16), [DONE; 16]);
    submit(Portal::Limited, 16).unwrap();
    run(&mut host.engine());
    assert_eq!(statuses(&host, 17), [DONE; 17]);
    assert_eq!(driver.error(), None);
}
