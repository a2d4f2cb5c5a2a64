//! Connecting, firing and disconnecting interrupts.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use palisade_memory::GuestMemory;
use palisade_vfio_user::{Errno, wire::Command};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::{
    case::{Case, File, differs, none, same},
    common::{Toy, VECTORS},
    peer::{Peer, words},
};

const SENSE: &str = "a_request_that_makes_no_sense_is_refused";
const DESCRIPTORS: &str = "descriptors_come_where_they_are_meant_and_in_number";

const SET: &[Case] = &[
    same(
        "test_device_set_irqs_no_irq_set",
        "no payload: EINVAL",
        "interrupts_cannot_be_set_without_saying_which",
    ),
    same(
        "test_device_set_irqs_short_write",
        "8 bytes: EINVAL",
        "interrupts_cannot_be_set_without_saying_which",
    ),
    same(
        "test_device_set_irqs_bad_argsz",
        "an argsz of 3: EINVAL",
        SENSE,
    ),
    same("test_device_set_irqs_bad_index", "type 5: EINVAL", SENSE),
    same(
        "test_device_set_irqs_bad_flags_MASK_and_UNMASK",
        "two actions: EINVAL",
        SENSE,
    ),
    same(
        "test_device_set_irqs_bad_flags_DATA_NONE_and_DATA_BOOL",
        "two kinds of data: EINVAL",
        SENSE,
    ),
    same(
        "test_device_set_irqs_bad_start_count_range",
        "the last vector and one more: EINVAL",
        SENSE,
    ),
    same(
        "test_device_set_irqs_bad_start_count_range2",
        "a start beyond the last vector: EINVAL",
        SENSE,
    ),
    same(
        "test_device_set_irqs_bad_start_count_range3",
        "a count of 2^32-1: EINVAL",
        SENSE,
    ),
    same(
        "test_device_set_irqs_bad_action_for_err_irq",
        "masking the error interrupt: EINVAL",
        SENSE,
    ),
    same(
        "test_device_set_irqs_bad_action_for_req_irq",
        "masking the request interrupt: EINVAL",
        SENSE,
    ),
    same(
        "test_device_set_irqs_bad_start_count_range_for_err_irq",
        "two error interrupts: EINVAL",
        SENSE,
    ),
    same(
        "test_device_set_irqs_bad_start_count_range_for_req_irq",
        "two request interrupts: EINVAL",
        SENSE,
    ),
    same(
        "test_device_set_irqs_bad_start_for_count_0",
        "a count of 0 from vector 1 on: EINVAL",
        SENSE,
    ),
    same(
        "test_device_set_irqs_bad_action_for_count_0",
        "a count of 0 to be masked: EINVAL",
        SENSE,
    ),
    same(
        "test_device_set_irqs_bad_action_and_data_type_for_count_0",
        "a count of 0 with booleans: EINVAL",
        SENSE,
    ),
    same(
        "test_device_set_irqs_bad_fds_for_DATA_BOOL",
        "a descriptor beside booleans: EINVAL",
        DESCRIPTORS,
    ),
    same(
        "test_device_set_irqs_bad_fds_for_DATA_NONE",
        "a descriptor where none is meant: EINVAL",
        DESCRIPTORS,
    ),
    same(
        "test_device_set_irqs_bad_fds_for_count_2",
        "one descriptor for two vectors: EINVAL",
        DESCRIPTORS,
    ),
    differs(
        "test_device_set_irqs_disable",
        "the request interrupt is turned off by a count of 0, and by a count of 1 without a descriptor",
        "vectors_are_turned_off_in_two_ways",
        "so for MSI-X; of the request interrupt there is none, and a count of 1 is EINVAL",
    ),
    same(
        "test_device_set_irqs_enable",
        "a descriptor for a vector is accepted",
        "vectors_are_connected_and_connected_anew",
    ),
    same(
        "test_device_set_irqs_trigger_bool_too_small",
        "one boolean for two vectors: EINVAL",
        "there_is_a_boolean_for_each_vector",
    ),
    same(
        "test_device_set_irqs_trigger_bool_too_large",
        "three booleans for two vectors: EINVAL",
        "there_is_a_boolean_for_each_vector",
    ),
    same(
        "test_device_set_irqs_enable_update",
        "another descriptor for a connected vector is accepted",
        "vectors_are_connected_and_connected_anew",
    ),
    same(
        "test_device_set_irqs_enable_trigger_none",
        "of two vectors the second is fired: its counter goes up by one, the first one's stays",
        "a_vector_is_fired_by_its_number",
    ),
    same(
        "test_device_set_irqs_enable_trigger_bool",
        "of two vectors the second is fired by booleans: its counter goes up by one, the first one's stays",
        "a_vector_is_fired_by_a_boolean",
    ),
    differs(
        "test_irq_state",
        "masking a vector is accepted, and the device is told",
        "masking_is_not_supported",
        "ENOTSUP, as the flags of the type say: a guest masks a vector in the MSI-X table, which is the function's",
    ),
];

const TRIGGER_CASES: &[Case] = &[
    none(
        "test_irq_trigger_bad_subindex",
        "a device that fires a vector that it does not have: EINVAL",
        "a function is given an object for each vector, and no number by which it could name another",
    ),
    differs(
        "test_irq_trigger_no_interrupt",
        "a device that fires a vector that nobody has connected: ENOENT",
        "firing_what_nobody_has_connected_does_nothing",
        "a function holds nothing that it could fire",
    ),
    same(
        "test_irq_trigger",
        "a device fires a vector: its counter goes up by one",
        "a_function_fires_a_vector",
    ),
];

pub(crate) const FILES: [File; 2] = [
    File {
        name: "test_device_set_irqs.py",
        cases: SET,
    },
    File {
        name: "test_irq_trigger.py",
        cases: TRIGGER_CASES,
    },
];

const NONE: u32 = 1;
const BOOL: u32 = 2;
const EVENTFD: u32 = 4;
const MASK: u32 = 8;
const UNMASK: u32 = 16;
const TRIGGER: u32 = 32;

const MSIX: u32 = 2;
const ERROR: u32 = 3;
const REQUEST: u32 = 4;
const LAST: u32 = VECTORS as u32 - 1;

const COMMAND: Command = Command::DeviceSetIrqs;

fn set(peer: &mut Peer, flags: u32, index: u32, start: u32, count: u32) -> Result<(), Errno> {
    let request = words(&[20, flags, index, start, count]);
    peer.ask(COMMAND, &request).map(drop)
}

fn connect(
    peer: &mut Peer,
    flags: u32,
    count: u32,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let request = words(&[20, flags, MSIX, 0, count]);
    peer.ask_with(COMMAND, &request, descriptors).map(drop)
}

fn counter(start: u32) -> OwnedFd {
    eventfd(start, EventfdFlags::NONBLOCK).unwrap()
}

fn count_of(eventfd: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    rustix::io::read(eventfd, &mut count).unwrap();
    u64::from_ne_bytes(count)
}

/// Returns when what was fired before `eventfd` has arrived: interrupts keep their order.
fn arrives(eventfd: &OwnedFd) {
    let limit = Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(eventfd, PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&limit)), Ok(1));
    assert_eq!(count_of(eventfd), 1);
}

/// Counters of 4, 8 and 0 for the first three vectors.
fn connected() -> (Arc<Toy>, Peer, [OwnedFd; 3]) {
    let toy = Toy::new();
    let mut peer = Peer::of(toy.clone(), Arc::new(GuestMemory::new()));
    let counters = [4, 8, 0].map(counter);
    let [first, second, third] = counters.each_ref().map(AsFd::as_fd);
    connect(&mut peer, TRIGGER | EVENTFD, 3, &[first, second, third]).unwrap();
    (toy, peer, counters)
}

#[test]
fn interrupts_cannot_be_set_without_saying_which() {
    let mut peer = Peer::any();
    assert_eq!(peer.ask(COMMAND, &[]), Err(Errno::INVAL));
    assert_eq!(peer.ask(COMMAND, &[0; 8]), Err(Errno::INVAL));
}

#[test]
fn a_request_that_makes_no_sense_is_refused() {
    let mut peer = Peer::any();
    let short = words(&[3, TRIGGER | NONE, REQUEST, 0, 0]);
    assert_eq!(peer.ask(COMMAND, &short), Err(Errno::INVAL));
    for (flags, index, start, count) in [
        (TRIGGER | NONE, 5, 0, 0),
        (MASK | UNMASK, MSIX, 0, 0),
        (MASK | UNMASK | NONE, MSIX, 0, 1),
        (MASK | NONE | BOOL, MSIX, 0, 0),
        (TRIGGER | NONE | BOOL, MSIX, 0, 1),
        (MASK | NONE, MSIX, LAST, 2),
        (MASK | NONE, MSIX, LAST + 2, 1),
        (TRIGGER | EVENTFD, MSIX, 8, u32::MAX),
        (MASK | NONE, ERROR, 0, 1),
        (MASK | NONE, REQUEST, 0, 1),
        (TRIGGER | NONE, ERROR, 0, 2),
        (TRIGGER | NONE, REQUEST, 0, 2),
        (MASK | NONE, MSIX, 1, 0),
        (TRIGGER | NONE, MSIX, 1, 0),
        (MASK | NONE, MSIX, 0, 0),
        (TRIGGER | BOOL, MSIX, 0, 0),
    ] {
        let refused = set(&mut peer, flags, index, start, count);
        let what = (flags, index, start, count);
        assert_eq!(refused, Err(Errno::INVAL), "{what:?}");
    }
}

#[test]
fn descriptors_come_where_they_are_meant_and_in_number() {
    let mut peer = Peer::any();
    let eventfd = counter(0);
    let one = [eventfd.as_fd()];
    let bool_and_one = [words(&[20, TRIGGER | BOOL, MSIX, 0, 1]), vec![0]].concat();
    let refused = peer.ask_with(COMMAND, &bool_and_one, &one);
    assert_eq!(refused, Err(Errno::INVAL));
    for (flags, count) in [
        (TRIGGER | NONE, 1),
        (TRIGGER | NONE, 0),
        (TRIGGER | EVENTFD, 2),
    ] {
        let refused = connect(&mut peer, flags, count, &one);
        assert_eq!(refused, Err(Errno::INVAL));
    }
}

#[test]
fn vectors_are_turned_off_in_two_ways() {
    let (toy, mut peer, _counters) = connected();
    assert_eq!(toy.connected_vectors(), 3);
    set(&mut peer, TRIGGER | EVENTFD, MSIX, 1, 1).unwrap();
    assert_eq!(toy.connected_vectors(), 2);
    set(&mut peer, TRIGGER | NONE, MSIX, 0, 0).unwrap();
    assert_eq!(toy.connected_vectors(), 0);
    set(&mut peer, TRIGGER | NONE, REQUEST, 0, 0).unwrap();
    let request = set(&mut peer, TRIGGER | EVENTFD, REQUEST, 0, 1);
    assert_eq!(request, Err(Errno::INVAL));
}

#[test]
fn vectors_are_connected_and_connected_anew() {
    let (toy, mut peer, [first, ..]) = connected();
    let other = counter(0);
    connect(&mut peer, TRIGGER | EVENTFD, 1, &[other.as_fd()]).unwrap();
    assert_eq!(toy.connected_vectors(), 3);
    toy.fire(0);
    arrives(&other);
    assert_eq!(count_of(&first), 4);
}

#[test]
fn there_is_a_boolean_for_each_vector() {
    let mut peer = Peer::any();
    for booleans in [1, 3] {
        let argsz = 20 + booleans;
        let request = words(&[argsz, TRIGGER | BOOL, MSIX, 0, 2]);
        let payload = [request, vec![0; booleans as usize]].concat();
        assert_eq!(peer.ask(COMMAND, &payload), Err(Errno::INVAL));
    }
}

#[test]
fn a_vector_is_fired_by_its_number() {
    let (_toy, mut peer, [first, second, third]) = connected();
    set(&mut peer, TRIGGER | NONE, MSIX, 1, 2).unwrap();
    arrives(&third);
    assert_eq!((count_of(&first), count_of(&second)), (4, 9));
}

#[test]
fn a_vector_is_fired_by_a_boolean() {
    let (_toy, mut peer, [first, second, third]) = connected();
    let request = words(&[23, TRIGGER | BOOL, MSIX, 0, 3]);
    peer.ask(COMMAND, &[request, vec![0, 1, 1]].concat())
        .unwrap();
    arrives(&third);
    assert_eq!((count_of(&first), count_of(&second)), (4, 9));
}

#[test]
fn masking_is_not_supported() {
    let mut peer = Peer::any();
    for action in [MASK, UNMASK] {
        let refused = set(&mut peer, action | NONE, MSIX, 0, 1);
        assert_eq!(refused, Err(Errno::NOTSUP));
    }
}

#[test]
fn firing_what_nobody_has_connected_does_nothing() {
    let (toy, mut peer, [first, second, third]) = connected();
    set(&mut peer, TRIGGER | EVENTFD, MSIX, 1, 1).unwrap();
    toy.fire(1);
    set(&mut peer, TRIGGER | NONE, MSIX, 1, 1).unwrap();
    toy.fire(2);
    arrives(&third);
    assert_eq!((count_of(&first), count_of(&second)), (4, 8));
}

#[test]
fn a_function_fires_a_vector() {
    let (toy, _peer, [first, _, third]) = connected();
    toy.fire(0);
    toy.fire(2);
    arrives(&third);
    assert_eq!(count_of(&first), 5);
}
