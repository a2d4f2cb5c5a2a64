//! R78: clients that keep to no rule. Each loses its own connection, or gets its errno, and nothing else happens.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use common::*;
use palisade_container::wire::{FrameError, Kind};
use palisade_container::{Client, ClientError, ConnectionError};
use palisade_vfio::Abi;
use proptest::prelude::*;
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

const EPROTO: u32 = 71;
const EPROTONOSUPPORT: u32 = 93;
const EINVAL: u32 = 22;
const ENOTTY: u32 = 25;

fn message(kind: u16, id: u16, number: u32, payload: &[u8]) -> Vec<u8> {
    let size = 16 + u32::try_from(payload.len()).unwrap();
    [
        &size.to_le_bytes()[..],
        &kind.to_le_bytes(),
        &id.to_le_bytes(),
        &number.to_le_bytes(),
        &[0; 4],
        payload,
    ]
    .concat()
}

fn version(major: u16, abi: u16) -> Vec<u8> {
    let words = [major, 0, abi, 0];
    let payload: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    message(1, 9, 0, &payload)
}

/// The kind, the id, the errno and the payload of what comes.
fn answer(stream: &mut UnixStream) -> (u16, u16, u32, Vec<u8>) {
    let mut header = [0; 16];
    stream.read_exact(&mut header).unwrap();
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
    let half = |at: usize| u16::from_le_bytes(header[at..at + 2].try_into().unwrap());
    let mut payload = vec![0; word(0) as usize - 16];
    stream.read_exact(&mut payload).unwrap();
    (half(4), half(6), word(8), payload)
}

fn is_closed(stream: &mut UnixStream) -> bool {
    matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_))
}

fn negotiated(world: &World) -> (UnixStream, Serving) {
    let (mut stream, serving) = world.serve();
    stream.write_all(&version(1, 7)).unwrap();
    let (kind, id, errno, _) = answer(&mut stream);
    assert_eq!((kind, id, errno), (2, 9, 0));
    (stream, serving)
}

fn send_with(stream: &UnixStream, bytes: &[u8], descriptors: usize) {
    let fds: Vec<OwnedFd> = (0..descriptors)
        .map(|_| eventfd(0, EventfdFlags::empty()).unwrap())
        .collect();
    let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&borrowed)));
    let io = [IoSlice::new(bytes)];
    let sent = sendmsg(stream, &io, &mut control, SendFlags::NOSIGNAL);
    assert_eq!(sent, Ok(bytes.len()));
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn no_request_comes_before_the_version() {
    for kind in [2, 3, 4] {
        let world = World::new();
        let (mut stream, serving) = world.serve();
        stream.write_all(&message(kind, 5, 0x3b64, &[])).unwrap();
        let (answered, id, errno, told) = answer(&mut stream);
        assert_eq!((answered, id, errno), (2, 5, EPROTO));
        assert_eq!(told[..2], [1, 0], "what it speaks");
        assert!(is_closed(&mut stream));
        let kind = Kind::from_raw(kind).unwrap();
        assert_eq!(serving.end(), Err(ConnectionError::BeforeVersion(kind)));
    }
}

#[test]
fn another_version_or_form_of_the_requests_is_refused() {
    for (major, abi) in [(0, 7), (2, 7), (1, 0), (1, 2), (1, 8), (u16::MAX, u16::MAX)] {
        let world = World::new();
        let (mut stream, serving) = world.serve();
        stream.write_all(&version(major, abi)).unwrap();
        let (kind, id, errno, _) = answer(&mut stream);
        assert_eq!((kind, id, errno), (2, 9, EPROTONOSUPPORT));
        assert!(is_closed(&mut stream));
        assert_eq!(serving.end(), Err(ConnectionError::Version { major, abi }));
    }
    let world = World::new();
    for len in [0, 7, 9, 100] {
        let (mut stream, serving) = world.serve();
        stream.write_all(&message(1, 9, 0, &vec![1; len])).unwrap();
        assert_eq!(answer(&mut stream).2, EPROTO);
        assert_eq!(serving.end(), Err(ConnectionError::VersionSize));
    }
}

#[test]
fn a_client_is_told_that_its_version_is_refused() {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let server = std::thread::spawn(move || {
        ours.read_exact(&mut [0; 24]).unwrap();
        let told = [2, 0, 0, 0, 4, 0, 0, 0, 0, 16, 0, 0];
        ours.write_all(&message(2, 0, EPROTONOSUPPORT, &told))
            .unwrap();
    });
    let refused = Client::over(theirs, Abi::V1).map(drop).unwrap_err();
    assert!(matches!(
        refused,
        ClientError::Version {
            major: 2,
            minor: 0,
            ..
        }
    ));
    server.join().unwrap();
}

#[test]
fn a_stream_that_holds_no_messages_ends() {
    let world = World::new();
    let sized = |size: u32| {
        let mut bytes = message(3, 1, 0x3b64, &[]);
        bytes[..4].copy_from_slice(&size.to_le_bytes());
        bytes
    };
    for (bytes, error) in [
        (sized(0), FrameError::Size(0)),
        (sized(15), FrameError::Size(15)),
        (sized(4097), FrameError::Size(4097)),
        (sized(u32::MAX), FrameError::Size(u32::MAX)),
        (message(0, 1, 0, &[]), FrameError::Kind(0)),
        (message(5, 1, 0, &[]), FrameError::Kind(5)),
    ] {
        let (mut stream, serving) = negotiated(&world);
        stream.write_all(&bytes).unwrap();
        assert!(is_closed(&mut stream));
        assert_eq!(serving.end(), Err(ConnectionError::Frame(error)));
    }
    for kind in [2, 4] {
        let (mut stream, serving) = negotiated(&world);
        stream.write_all(&message(kind, 1, 0, &[])).unwrap();
        assert!(is_closed(&mut stream));
        let kind = Kind::from_raw(kind).unwrap();
        assert_eq!(serving.end(), Err(ConnectionError::NotAClients(kind)));
    }
}

#[test]
fn a_second_version_is_refused_and_the_connection_goes_on() {
    let world = World::new();
    let (mut stream, _serving) = negotiated(&world);
    stream.write_all(&version(1, 1)).unwrap();
    assert_eq!(answer(&mut stream), (4, 9, EINVAL, vec![]));
    stream.write_all(&message(3, 10, 0x3b64, &[])).unwrap();
    assert_eq!(answer(&mut stream), (4, 10, 0, vec![]));
}

#[test]
fn messages_in_pieces_and_many_in_one_are_told_apart() {
    let world = World::new();
    let (mut stream, _serving) = negotiated(&world);
    let one = message(3, 1, 0x3b65, &9_u32.to_le_bytes());
    for byte in &one {
        stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(answer(&mut stream).1, 1);
    let many: Vec<u8> = (2..102)
        .flat_map(|id| message(3, id, 0x3b65, &[6, 0, 0, 0]))
        .collect();
    stream.write_all(&many).unwrap();
    for id in 2..102 {
        assert_eq!(answer(&mut stream), (4, id, 0, vec![]));
    }
}

#[test]
fn a_client_that_goes_in_the_middle_of_a_message_leaves_nothing() {
    let world = World::new();
    let books = world.books();
    let whole = message(3, 1, 0x3b65, &[0; 40]);
    for len in 1..whole.len() {
        let (mut stream, serving) = negotiated(&world);
        stream.write_all(&whole[..len]).unwrap();
        drop(stream);
        assert_eq!(serving.end(), Ok(()));
    }
    assert_eq!(world.books(), books);
}

#[test]
fn a_client_that_reads_no_answers_holds_up_itself_alone() {
    let world = World::new();
    let (mut stuck, serving) = negotiated(&world);
    stuck.set_nonblocking(true).unwrap();
    let request = message(3, 1, 0x3b64, &[0; 4000]);
    while stuck.write(&request).is_ok() {}
    let (mut other, _serving) = world.client(Abi::V7);
    other.info().unwrap();
    drop(stuck);
    assert_eq!(serving.end(), Ok(()));
}

#[test]
fn descriptors_that_a_request_does_not_take_are_closed_and_too_many_end_the_connection() {
    // Other tests of this program open and close descriptors meanwhile, so many are sent and few may be left.
    let world = World::new();
    let (mut stream, _serving) = negotiated(&world);
    let before = open_descriptors();
    for round in 0..400 {
        send_with(&stream, &message(3, round, 0x3b64, &[]), 4);
        assert_eq!(answer(&mut stream), (4, round, EINVAL, vec![]));
        send_with(&stream, &message(3, round, 0x3b00, &[]), 1);
        assert_eq!(answer(&mut stream), (4, round, ENOTTY, vec![]));
    }
    assert!(open_descriptors() < before + 500);
    send_with(&stream, &message(3, 1, 0x3b64, &[]), 5);
    assert!(is_closed(&mut stream));
    // One with each byte is too many, too.
    let (stream, serving) = negotiated(&world);
    for byte in message(3, 1, 0x3b64, &[]).iter().take(5) {
        send_with(&stream, &[*byte], 1);
    }
    assert_eq!(serving.end(), Err(ConnectionError::TooManyDescriptors));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever comes, the server ends or answers, and what was taken goes back.
    #[test]
    fn r78_random_streams_end_or_are_answered(
        abi in prop_oneof![Just(1_u16), Just(3), Just(7)],
        parts in proptest::collection::vec(
            (0_u16..6, 0x3b60_u32..0x3bff, proptest::collection::vec(prop_oneof![0_u8..3, any::<u8>()], 0..90)),
            0..20,
        ),
        rest in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let world = World::new();
        let books = world.books();
        let (mut stream, serving) = world.serve();
        stream.write_all(&version(1, abi)).unwrap();
        stream.write_all(&message(3, 0, 0x3b66, &[6, 0, 0, 0])).unwrap();
        for (kind, number, payload) in parts {
            // The server may have cut this connection off already.
            let _ = stream.write_all(&message(kind, 1, number, &payload));
        }
        let _ = stream.write_all(&rest);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
        let _ = serving.end();
        prop_assert_eq!(world.books(), books);
    }
}
