//! Agreeing on the version.

use std::sync::Arc;

use palisade_memory::GuestMemory;
use palisade_vfio_user::{
    ConnectionError, End, Errno,
    wire::{Capabilities, Command, MAX_FRAME_BYTES},
};

use crate::{
    case::{Case, File, differs, same},
    common::{
        Toy,
        raw::{message, version},
    },
    peer::Peer,
};

const SHAPE: &str = "capabilities_of_the_wrong_shape_are_refused";

const CASES: &[Case] = &[
    same(
        "test_short_write",
        "a VERSION that is a header and nothing else: EINVAL",
        "a_version_without_a_payload_is_refused",
    ),
    same(
        "test_long_write",
        "a VERSION whose header says more bytes than any message has: no connection",
        "a_version_longer_than_any_message_is_refused",
    ),
    same(
        "test_bad_command",
        "another command, which does not exist, before VERSION: EINVAL",
        "another_command_before_the_version_is_refused",
    ),
    same(
        "test_invalid_major",
        "major version 999: EINVAL",
        "another_major_version_is_refused",
    ),
    same(
        "test_invalid_json_missing_NUL",
        "JSON that no NUL ends: EINVAL",
        SHAPE,
    ),
    same(
        "test_invalid_json_missing_closing_brace",
        "JSON of an opening brace: EINVAL",
        SHAPE,
    ),
    same(
        "test_invalid_json_missing_closing_quote",
        "JSON of an opening quote: EINVAL",
        SHAPE,
    ),
    same(
        "test_invalid_json_bad_capabilities_object",
        "`capabilities` as a string: EINVAL",
        SHAPE,
    ),
    same(
        "test_invalid_json_bad_max_fds",
        "`max_msg_fds` as a string: EINVAL",
        SHAPE,
    ),
    same(
        "test_invalid_json_bad_max_fds2",
        "`max_msg_fds` of -1: EINVAL",
        SHAPE,
    ),
    differs(
        "test_invalid_json_bad_max_fds3",
        "`max_msg_fds` of 1025, one above their limit: EINVAL",
        "any_number_of_descriptors_may_be_offered",
        "accepted: this server sends no descriptors, so that any number is enough",
    ),
    same(
        "test_invalid_json_bad_migration_object",
        "`migration` as a string: EINVAL",
        SHAPE,
    ),
    same(
        "test_invalid_json_bad_pgsize",
        "`pgsize` as a string: EINVAL",
        SHAPE,
    ),
    same(
        "test_invalid_json_bad_pgsize2",
        "`pgsize` of 4095: EINVAL",
        SHAPE,
    ),
    differs(
        "test_valid_negotiate_no_json",
        "a version without JSON is accepted; the reply has the limits of the server, `migration` and minor version 1",
        "without_capabilities_the_defaults_hold",
        "minor version 0, since QEMU refuses 1; `migration` and `write_multiple` only for who proposes them",
    ),
    same(
        "test_valid_negotiate_empty_json",
        "an empty JSON object is accepted; that the peer goes is noticed",
        "capabilities_may_be_empty_or_at_their_limits",
    ),
    same(
        "test_valid_negotiate_json",
        "`max_msg_fds` and `max_data_xfer_size` at their limits are accepted",
        "capabilities_may_be_empty_or_at_their_limits",
    ),
];

pub(crate) const FILE: File = File {
    name: "test_negotiate.py",
    cases: CASES,
};

fn silent() -> Peer {
    Peer::silent(Toy::new(), Arc::new(GuestMemory::new()))
}

/// What a peer is told that begins with these bytes, and how its connection ends.
fn turned_away(bytes: &[u8]) -> (Errno, ConnectionError) {
    let mut peer = silent();
    let told = peer.send(bytes).unwrap_err();
    (told, peer.end().unwrap_err())
}

#[test]
fn a_version_without_a_payload_is_refused() {
    let (told, end) = turned_away(&message(Command::Version, &[]));
    assert_eq!(told, Errno::INVAL);
    assert!(matches!(end, ConnectionError::ShortVersion));
}

#[test]
fn a_version_longer_than_any_message_is_refused() {
    let mut bytes = message(Command::Version, &[]);
    let size = MAX_FRAME_BYTES as u32 + 1;
    bytes[4..8].copy_from_slice(&size.to_ne_bytes());
    let (told, end) = turned_away(&bytes);
    assert_eq!(told, Errno::INVAL);
    assert!(matches!(end, ConnectionError::Frame(_)));
}

#[test]
fn another_command_before_the_version_is_refused() {
    for command in [999_u16, 13] {
        let mut bytes = message(Command::DeviceReset, &[0; 5]);
        bytes[2..4].copy_from_slice(&command.to_ne_bytes());
        let (told, end) = turned_away(&bytes);
        assert_eq!(told, Errno::INVAL);
        assert!(matches!(end, ConnectionError::BeforeVersion(it) if it == command));
    }
}

#[test]
fn another_major_version_is_refused() {
    let (told, end) = turned_away(&version(999, b""));
    assert_eq!(told, Errno::INVAL);
    assert!(matches!(end, ConnectionError::Version(999)));
}

#[test]
fn capabilities_of_the_wrong_shape_are_refused() {
    for text in [
        r"{}",
        "{\0",
        "\"\0",
        "{\"capabilities\":\"23\"}\0",
        "{\"capabilities\":{\"max_msg_fds\":\"foo\"}}\0",
        "{\"capabilities\":{\"max_msg_fds\":-1}}\0",
        "{\"capabilities\":{\"migration\":\"23\"}}\0",
        "{\"capabilities\":{\"migration\":{\"pgsize\":\"foo\"}}}\0",
        "{\"capabilities\":{\"migration\":{\"pgsize\":4095}}}\0",
    ] {
        let (told, end) = turned_away(&version(0, text.as_bytes()));
        assert_eq!(told, Errno::INVAL, "{text}");
        assert!(matches!(end, ConnectionError::Capabilities(_)), "{text}");
    }
}

#[test]
fn any_number_of_descriptors_may_be_offered() {
    let text = "{\"capabilities\":{\"max_msg_fds\":1025}}\0";
    let mut peer = silent();
    peer.send(&version(0, text.as_bytes())).unwrap();
    assert_eq!(peer.end().unwrap(), End::PeerClosed);
}

#[test]
fn without_capabilities_the_defaults_hold() {
    let mut peer = Peer::silent(Toy::movable(), Arc::new(GuestMemory::new()));
    let said = peer.send(&version(0, b"")).unwrap();
    assert_eq!(said[..4], [0; 4], "major and minor version");
    let ours = Capabilities::parse(&said[4..]).unwrap();
    assert_eq!((ours.max_descriptors, ours.max_data_bytes), (16, 64 << 10));
    assert_eq!((ours.migration_page_bytes, ours.write_multi), (None, false));
    let proposed = Capabilities::own(1024);
    let mut peer = Peer::silent(Toy::movable(), Arc::new(GuestMemory::new()));
    let said = peer.send(&version(0, &proposed.text())).unwrap();
    assert_eq!(Capabilities::parse(&said[4..]), Ok(proposed));
}

#[test]
fn capabilities_may_be_empty_or_at_their_limits() {
    for text in [
        "{}\0",
        "{\"capabilities\":{\"max_msg_fds\":1024,\"max_data_xfer_size\":1048576}}\0",
    ] {
        let mut peer = silent();
        peer.send(&version(0, text.as_bytes())).unwrap();
        assert_eq!(peer.end().unwrap(), End::PeerClosed);
    }
}
