//! Messages that are none, and peers that go.

use std::{
    io::{Read, Write},
    os::fd::AsFd,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use palisade_memory::GuestMemory;
use palisade_vfio_user::{
    ConnectionError, End, Errno,
    wire::{Command, MAX_FRAME_BYTES},
};

use crate::{
    case::{Case, File, differs, none, same},
    common::{Toy, raw::message},
    peer::{Peer, words},
};

const NEXT: &str =
    "EINVAL as well, and the connection ends: nobody knows where the next message begins";

const CASES: &[Case] = &[
    differs(
        "test_too_small",
        "a header that says 15 bytes: EINVAL",
        "a_size_that_cannot_be_is_refused_and_ends_the_connection",
        NEXT,
    ),
    differs(
        "test_too_large",
        "a header that says more than the longest message has: EINVAL",
        "a_size_that_cannot_be_is_refused_and_ends_the_connection",
        NEXT,
    ),
    differs(
        "test_unsolicited_reply",
        "a reply to what was not asked: EINVAL in a reply",
        "an_answer_to_nothing_ends_the_connection",
        "the connection ends without an answer: two sides that answer answers never end",
    ),
    differs(
        "test_bad_command",
        "a command that does not exist: EINVAL",
        "a_command_that_is_not_known_is_not_supported",
        "ENOTSUP: who tries a command of a later revision can tell that it is not there from that it was asked wrongly",
    ),
    same(
        "test_no_payload",
        "DEVICE_SET_IRQS without a payload: EINVAL",
        "interrupts_cannot_be_set_without_saying_which",
    ),
    same(
        "test_bad_request_closes_fds",
        "a request with two descriptors that is refused: EINVAL, and the descriptors are closed",
        "descriptors_of_a_refused_request_are_closed",
    ),
    differs(
        "test_disconnected_socket",
        "a peer that goes: the run ends with ENOTCONN and the device is reset",
        "a_peer_that_goes_leaves_the_function_to_its_owner",
        "the run ends and says so, and the peer's interrupts are disconnected; resetting, unbinding and draining are \
         the owner's, in its own order",
    ),
    none(
        "test_disconnected_socket_quiesce_busy",
        "a peer that goes while the device is busy: the reset waits for the device",
        BUSY,
    ),
    same(
        "test_reply_fail_quiesce_busy",
        "a peer that goes while the state of migration changes: the device is reset",
        "a_function_whose_peer_goes_amid_a_migration_is_reset",
    ),
];

/// Why nothing is ever busy.
pub(crate) const BUSY: &str = "a function is never asked to be quiet and never says that it is busy: each of its calls \
     has taken effect when it returns";

pub(crate) const FILE: File = File {
    name: "test_request_errors.py",
    cases: CASES,
};

#[test]
fn a_size_that_cannot_be_is_refused_and_ends_the_connection() {
    for size in [15, MAX_FRAME_BYTES as u32 + 1] {
        let mut peer = Peer::any();
        let mut bytes = message(Command::DeviceSetIrqs, &[]);
        bytes[4..8].copy_from_slice(&size.to_ne_bytes());
        assert_eq!(peer.send(&bytes), Err(Errno::INVAL));
        assert!(matches!(peer.end(), Err(ConnectionError::Frame(_))));
    }
}

#[test]
fn a_size_that_cannot_be_has_no_answer_where_none_is_wanted() {
    const REPLY: u32 = 1;
    const NO_REPLY: u32 = 1 << 4;
    for flags in [REPLY, NO_REPLY, 2] {
        let mut peer = Peer::any();
        let mut bytes = message(Command::DeviceSetIrqs, &[]);
        bytes[4..8].copy_from_slice(&15_u32.to_ne_bytes());
        bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
        peer.stream.write_all(&bytes).unwrap();
        let mut rest = Vec::new();
        peer.stream.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
        assert!(matches!(peer.end(), Err(ConnectionError::Frame(_))));
    }
}

#[test]
fn a_command_that_is_not_known_is_not_supported() {
    let mut peer = Peer::any();
    for command in [0_u16, 19, 999] {
        let mut bytes = message(Command::DeviceReset, &[0]);
        bytes[2..4].copy_from_slice(&command.to_ne_bytes());
        assert_eq!(peer.send(&bytes), Err(Errno::NOTSUP));
    }
}

#[test]
fn descriptors_of_a_refused_request_are_closed() {
    const TRIGGER_BOOL: u32 = 2 | 32;
    let mut peer = Peer::any();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let request = words(&[20, TRIGGER_BOOL, 2, 0, 1]);
    let two = [writer.as_fd(), writer.as_fd()];
    let refused = peer.ask_with(Command::DeviceSetIrqs, &request, &two);
    assert_eq!(refused, Err(Errno::INVAL));
    drop(writer);
    // The end of a pipe comes when nobody has its other end any more.
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    peer.ask(Command::DeviceReset, &[]).unwrap();
}

#[test]
fn a_peer_that_goes_leaves_the_function_to_its_owner() {
    let toy = Toy::new();
    let peer = Peer::of(toy.clone(), Arc::new(GuestMemory::new()));
    assert_eq!(peer.end().unwrap(), End::PeerClosed);
    assert_eq!(toy.resets.load(Ordering::Relaxed), 0);
}

#[test]
fn a_function_whose_peer_goes_amid_a_migration_is_reset() {
    const STOP_COPY: u32 = 3;
    let toy = Toy::movable();
    let mut peer = Peer::of(toy.clone(), Arc::new(GuestMemory::new()));
    // Its end is closed before there can be an answer.
    let request = words(&[16, 0x2_0002, STOP_COPY, 0]);
    let bytes = message(Command::DeviceFeature, &request);
    peer.stream.write_all(&bytes).unwrap();
    while !toy.moves().is_stopped() {
        std::thread::sleep(Duration::from_micros(100));
    }
    assert_eq!(peer.end().unwrap(), End::PeerClosed);
    assert_eq!(toy.resets.load(Ordering::Relaxed), 1);
    assert!(!toy.moves().is_stopped(), "at work again");
}
