//! What a peer gets that breaks the protocol: the end of its own connection, or a refusal.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of tests fail like tests"
)]

mod common;

use std::{
    io::{Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, atomic::Ordering},
};

use common::{
    FIRE_AT, Server, Toy,
    raw::{ask, message, negotiated, reply, version},
};
use palisade_pci::{Bar, Interrupt};
use palisade_units::Gpa;
use palisade_vfio_user::{
    Client, ConnectionError, End, Errno, PeerGone, PeerHandle, Region,
    wire::{
        Capabilities, Command, Cut, DmaAccess, DmaMap, Header, IrqSet, MAX_FRAME_BYTES,
        RegionAccess, ReplyWanted, cut, push_frame,
    },
};
use proptest::prelude::*;
use rustix::{
    event::{EventfdFlags, eventfd},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};
use zerocopy::IntoBytes;

const BAR0: Region = Region::Bar(Bar::Bar0);

/// How a connection ends whose first bytes are these.
fn end_after(bytes: &[u8]) -> ConnectionError {
    let (server, mut stream) = Server::start();
    stream.write_all(bytes).unwrap();
    server.end().unwrap_err()
}

fn send_with_descriptors(stream: &UnixStream, bytes: &[u8], count: usize) -> Result<usize, Errno> {
    let fds: Vec<OwnedFd> = (0..count)
        .map(|_| eventfd(0, EventfdFlags::empty()).unwrap())
        .collect();
    let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&borrowed)));
    let io = [std::io::IoSlice::new(bytes)];
    sendmsg(stream, &io, &mut control, SendFlags::NOSIGNAL)
}

#[test]
fn the_version_comes_first_and_must_fit() {
    let early = end_after(&message(Command::DeviceReset, &[]));
    assert!(matches!(early, ConnectionError::BeforeVersion(13)));
    assert!(matches!(
        end_after(&version(1, b"")),
        ConnectionError::Version(1)
    ));
    let short = end_after(&message(Command::Version, &[0; 3]));
    assert!(matches!(short, ConnectionError::ShortVersion));
    let garbled = end_after(&version(0, b"{\"capabilities\":"));
    assert!(matches!(garbled, ConnectionError::Capabilities(_)));

    let (_server, mut stream) = Server::start();
    stream.write_all(&version(0, b"")).unwrap();
    let (outcome, payload) = reply(&mut stream);
    assert_eq!(outcome, Ok(()));
    assert_eq!(&payload[..4], [0; 4], "major 0, minor 0");
    let said = Capabilities::parse(&payload[4..]).unwrap();
    assert!(!said.write_multi, "only what was proposed is offered");
    let twice = message(Command::Version, &[0; 4]);
    stream.write_all(&twice).unwrap();
    assert_eq!(reply(&mut stream).0, Err(Errno::INVAL));
}

#[test]
fn garbage_ends_its_own_connection_and_no_other() {
    let toy = Toy::new();
    let (_good, stream) = Server::serve(toy.clone());
    let mut client = Client::from_stream(stream).unwrap();
    for garbage in [
        vec![0xff; 64],
        vec![0; 64],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ] {
        let (bad, mut stream) = Server::serve(toy.clone());
        stream.write_all(&garbage).unwrap();
        assert!(matches!(bad.end(), Err(ConnectionError::Frame(_))));
        let mut rest = Vec::new();
        let closed = stream.read_to_end(&mut rest);
        // What looks like a command that wants an answer has one.
        let answered = garbage[..] == [0; 64];
        assert!(closed.is_err() || rest.is_empty() != answered);
        client.region_write(BAR0, 0, &[1]).unwrap();
    }
    let mut long = message(Command::RegionWrite, &[]);
    let size = u32::try_from(MAX_FRAME_BYTES + 1).unwrap();
    long[4..8].copy_from_slice(&size.to_ne_bytes());
    assert!(matches!(end_after(&long), ConnectionError::Frame(_)));
}

#[test]
fn half_a_frame_is_waited_for_and_forgotten_with_its_sender() {
    let (server, mut stream) = negotiated();
    let access = RegionAccess {
        offset_bytes: 0.into(),
        region: 0.into(),
        count: 4.into(),
    };
    let whole = message(Command::RegionRead, access.as_bytes());
    for byte in &whole {
        stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(reply(&mut stream).0, Ok(()));
    stream.write_all(&whole[..whole.len() - 1]).unwrap();
    drop(stream);
    assert_eq!(server.end().unwrap(), End::PeerClosed);
}

#[test]
fn r78_too_many_descriptors_end_the_connection() {
    let (server, stream) = negotiated();
    send_with_descriptors(&stream, &message(Command::DmaMap, &[0; 32]), 17).unwrap();
    assert!(matches!(
        server.end(),
        Err(ConnectionError::TooManyDescriptors)
    ));
}

/// The descriptors of this process that are eventfds.
fn open_eventfds() -> usize {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|name| name.to_string_lossy().contains("eventfd"))
        .count()
}

#[test]
fn descriptors_that_nobody_asked_for_are_closed() {
    // In a process of its own, since other tests open descriptors at the same time.
    const CHILD: &str = "COUNT_DESCRIPTORS";
    if std::env::var_os(CHILD).is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "descriptors_that_nobody_asked_for_are_closed"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        assert!(
            status.status.success(),
            "{}",
            String::from_utf8_lossy(&status.stdout)
        );
        return;
    }
    let (_server, mut stream) = negotiated();
    let before = open_eventfds();
    let map = DmaMap {
        argsz: 32.into(),
        flags: 3.into(),
        offset_bytes: 0.into(),
        address: 0.into(),
        len_bytes: 4096.into(),
    };
    for _ in 0..100 {
        send_with_descriptors(&stream, &message(Command::DeviceReset, &[]), 16).unwrap();
        assert_eq!(reply(&mut stream).0, Ok(()));
        // Two where one is meant; then one that cannot be mapped.
        send_with_descriptors(&stream, &message(Command::DmaMap, map.as_bytes()), 2).unwrap();
        assert_eq!(reply(&mut stream).0, Err(Errno::INVAL));
        send_with_descriptors(&stream, &message(Command::DmaMap, map.as_bytes()), 1).unwrap();
        assert!(reply(&mut stream).0.is_err());
    }
    assert_eq!(open_eventfds(), before);
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    let (_server, mut stream) = negotiated();
    let dirty_pages = ask(&mut stream, Command::DirtyPages, &[0; 16]);
    assert_eq!(dirty_pages, Err(Errno::NOTSUP));
    for command in [Command::MigrationDataRead, Command::MigrationDataWrite] {
        let nothing = [8, 0].map(u32::to_ne_bytes).concat();
        assert_eq!(
            ask(&mut stream, command, &nothing),
            Err(Errno::NOTSUP),
            "{command:?}"
        );
    }
    for command in [Command::DmaRead, Command::DmaWrite, Command::Version] {
        assert_eq!(
            ask(&mut stream, command, &[0; 16]),
            Err(Errno::INVAL),
            "{command:?}"
        );
    }
    let mut unknown = message(Command::DeviceReset, &[]);
    unknown[2..4].copy_from_slice(&999_u16.to_ne_bytes());
    stream.write_all(&unknown).unwrap();
    assert_eq!(reply(&mut stream).0, Err(Errno::NOTSUP));
}

#[test]
fn payloads_of_the_wrong_size_are_refused() {
    let (_server, mut stream) = negotiated();
    for (command, sizes) in [
        (Command::DmaMap, [0, 31, 33]),
        (Command::DmaUnmap, [0, 23, 25]),
        (Command::DeviceGetInfo, [0, 15, 17]),
        (Command::DeviceGetRegionInfo, [0, 31, 33]),
        (Command::DeviceGetRegionIoFds, [0, 15, 17]),
        (Command::DeviceGetIrqInfo, [0, 15, 17]),
        (Command::DeviceSetIrqs, [0, 19, 21]),
        (Command::RegionRead, [0, 15, 17]),
        (Command::RegionWrite, [0, 15, 17]),
        (Command::DeviceReset, [1, 2, 3]),
        (Command::RegionWriteMulti, [0, 7, 9]),
        (Command::DeviceFeature, [0, 4, 7]),
        (Command::MigrationDataRead, [0, 7, 9]),
        (Command::MigrationDataWrite, [0, 4, 7]),
    ] {
        for size in sizes {
            let refused = ask(&mut stream, command, &vec![0; size]);
            assert_eq!(refused, Err(Errno::INVAL), "{command:?} with {size} bytes");
        }
    }
    // The replies have fixed sizes: without room for them, or for no such index, there is none.
    for command in [Command::DeviceGetInfo, Command::DeviceGetIrqInfo] {
        assert_eq!(ask(&mut stream, command, &[0; 16]), Err(Errno::INVAL));
    }
    let no_region = [[32, 0, 9, 0].map(u32::to_ne_bytes).concat(), vec![0; 16]].concat();
    let refused = ask(&mut stream, Command::DeviceGetRegionInfo, &no_region);
    assert_eq!(refused, Err(Errno::INVAL));
}

fn single_write(region: u32, offset: u64, count: u32, data: u64) -> Vec<u8> {
    [
        &offset.to_ne_bytes()[..],
        &region.to_ne_bytes(),
        &count.to_ne_bytes(),
        &data.to_ne_bytes(),
    ]
    .concat()
}

/// Stops a connection from within one of its own writes.
struct StopAt(PeerHandle);

impl Interrupt for StopAt {
    fn signal(&self) {
        self.0.stop();
    }
}

/// Each write may take the function a while, and there is room for thousands of them.
#[test]
fn r33_a_stop_does_not_wait_for_what_the_peer_has_sent_already() {
    let stop = single_write(0, FIRE_AT, 1, 0);
    let work = single_write(2, 0, 8, 1);
    let one_by_one = |write: &Vec<u8>| {
        // The same fields without the count of writes; as many bytes as the count says.
        let count = usize::from(write[12]);
        message(Command::RegionWrite, &write[..16 + count])
    };
    let many = [vec![stop.clone()], vec![work.clone(); 100]].concat();
    let apart: Vec<u8> = many.iter().flat_map(one_by_one).collect();
    let count = (many.len() as u64).to_ne_bytes();
    let together = message(
        Command::RegionWriteMulti,
        &[&count[..], &many.concat()].concat(),
    );
    for messages in [apart, together] {
        let (server, mut stream) = negotiated();
        let at_stop = Arc::new(StopAt(server.peer.clone()));
        server.toy.vectors.lock().unwrap()[0] = Some(at_stop);
        stream.write_all(&messages).unwrap();
        let toy = Arc::clone(&server.toy);
        assert_eq!(server.end().unwrap(), End::Stopped);
        assert_eq!(toy.written.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn many_writes_in_one_message_are_done_in_order() {
    let (server, mut stream) = negotiated();
    let write = single_write;
    let multi =
        |writes: &[Vec<u8>], count: u64| [&count.to_ne_bytes()[..], &writes.concat()].concat();
    let good = [write(0, 0, 8, 1), write(0, 0, 4, 2), write(0, 8, 1, 3)];
    assert_eq!(
        ask(&mut stream, Command::RegionWriteMulti, &multi(&good, 3)),
        Ok(())
    );
    assert_eq!(
        server.toy.bar0.lock().unwrap()[..9],
        [2, 0, 0, 0, 0, 0, 0, 0, 3]
    );
    for bad in [
        multi(&good, 2),
        multi(&good, u64::MAX),
        multi(&[write(0, 0, 9, 0)], 1),
        multi(&[write(9, 0, 8, 0)], 1),
    ] {
        let refused = ask(&mut stream, Command::RegionWriteMulti, &bad);
        assert_eq!(refused, Err(Errno::INVAL));
    }
}

#[test]
fn interrupt_requests_that_make_no_sense_are_refused() {
    let (_server, mut stream) = negotiated();
    let mut set = |flags: u32, index: u32, start: u32, count: u32, data: &[u8]| {
        let request = IrqSet {
            argsz: 20.into(),
            flags: flags.into(),
            index: index.into(),
            start: start.into(),
            count: count.into(),
        };
        ask(
            &mut stream,
            Command::DeviceSetIrqs,
            &[request.as_bytes(), data].concat(),
        )
    };
    const NONE: u32 = 1;
    const BOOL: u32 = 2;
    const MASK: u32 = 8;
    const TRIGGER: u32 = 32;
    assert_eq!(set(NONE | TRIGGER, 2, 0, 0, &[]), Ok(()), "all off");
    assert_eq!(
        set(NONE | TRIGGER, 0, 0, 0, &[]),
        Ok(()),
        "none of that type"
    );
    assert_eq!(set(NONE | TRIGGER, 0, 0, 1, &[]), Err(Errno::INVAL));
    assert_eq!(set(NONE | TRIGGER, 5, 0, 0, &[]), Err(Errno::INVAL));
    assert_eq!(set(NONE | TRIGGER, 2, 24, 1, &[]), Err(Errno::INVAL));
    assert_eq!(
        set(NONE | TRIGGER, 2, u32::MAX, u32::MAX, &[]),
        Err(Errno::INVAL)
    );
    assert_eq!(set(NONE | BOOL | TRIGGER, 2, 0, 1, &[0]), Err(Errno::INVAL));
    assert_eq!(set(NONE, 2, 0, 1, &[]), Err(Errno::INVAL));
    assert_eq!(set(NONE | MASK, 2, 0, 1, &[]), Err(Errno::NOTSUP));
    assert_eq!(set(NONE | MASK | TRIGGER, 2, 0, 1, &[]), Err(Errno::INVAL));
    assert_eq!(set(1 << 9, 2, 0, 1, &[]), Err(Errno::INVAL));
    assert_eq!(set(BOOL | TRIGGER, 2, 0, 3, &[1, 0]), Err(Errno::INVAL));
    assert_eq!(set(BOOL | TRIGGER, 2, 0, 3, &[1, 0, 1]), Ok(()));
}

#[test]
fn an_answer_to_nothing_ends_the_connection() {
    let (server, mut stream) = negotiated();
    let command = Header::command(1, Command::DmaWrite, ReplyWanted::Yes);
    let mut bytes = Vec::new();
    push_frame(&mut bytes, Header::reply(&command), &[&[0; 16]]);
    stream.write_all(&bytes).unwrap();
    assert!(matches!(
        server.end(),
        Err(ConnectionError::UnexpectedReply(12))
    ));
}

#[test]
fn a_refused_write_into_memory_is_an_answer_too() {
    let (server, mut stream) = negotiated();
    server
        .peer
        .write_memory(Gpa::new(0x1000), &[1, 2, 3, 4])
        .unwrap();
    let mut bytes = [0; 36];
    stream.read_exact(&mut bytes).unwrap();
    let Ok(Cut::Whole(frame)) = cut(&bytes) else {
        panic!("no frame");
    };
    assert_eq!(frame.header.command.get(), Command::DmaWrite.raw());
    assert_eq!(frame.header.reply_wanted(), ReplyWanted::Yes);
    let expected = DmaAccess {
        address: 0x1000.into(),
        count: 4.into(),
    };
    assert_eq!(frame.payload, [expected.as_bytes(), &[1, 2, 3, 4]].concat());
    let mut refusal = Vec::new();
    push_frame(
        &mut refusal,
        Header::refusal(&frame.header, Errno::INVAL),
        &[],
    );
    stream.write_all(&refusal).unwrap();
    assert_eq!(ask(&mut stream, Command::DeviceReset, &[]), Ok(()));
}

#[test]
fn r78_a_peer_that_does_not_read_is_dropped_and_nobody_waits_for_it() {
    let (server, stream) = negotiated();
    let mut written = 0_u64;
    while server.peer.write_memory(Gpa::new(written), &[0; 4096]) == Ok(()) {
        written += 1;
        assert!(written < 10_000, "memory grows without bound");
    }
    assert_eq!(server.peer.write_memory(Gpa::new(0), &[0]), Err(PeerGone));
    assert!(matches!(
        server.end(),
        Err(ConnectionError::PeerDoesNotRead)
    ));
    drop(stream);
}

#[test]
fn r78_a_peer_that_asks_and_does_not_read_is_not_listened_to() {
    let (server, mut stream) = negotiated();
    stream.set_nonblocking(true).unwrap();
    let access = RegionAccess {
        offset_bytes: 0.into(),
        region: 2.into(),
        count: 60_000.into(),
    };
    let request = message(Command::RegionRead, access.as_bytes());
    // 32 bytes ask for 60,000: what is asked is bounded by what the sockets hold.
    let mut asked = 0_u64;
    let mut quiet = 0;
    while quiet < 50 {
        match stream.write(&request) {
            Ok(n) if n == request.len() => (asked, quiet) = (asked + 1, 0),
            Ok(_) => panic!("a part of a message"),
            Err(_) => {
                quiet += 1;
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        assert!(asked < 100_000, "the server reads on and on");
    }
    stream.set_nonblocking(false).unwrap();
    for _ in 0..asked {
        assert_eq!(reply(&mut stream).1.len(), 16 + 60_000);
    }
    server.peer.stop();
    assert_eq!(server.end().unwrap(), End::Stopped);
}

fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let small = prop_oneof![
        Just(0_u32),
        Just(1),
        Just(2),
        Just(4),
        Just(8),
        any::<u32>()
    ];
    let words = proptest::collection::vec(small, 0..12);
    let odd = proptest::collection::vec(any::<u8>(), 0..4);
    (0_u16..21, any::<u16>(), 0_u32..64, words, odd).prop_map(|(command, id, flags, words, odd)| {
        let payload: Vec<u8> = words
            .iter()
            .flat_map(|w| w.to_ne_bytes())
            .chain(odd)
            .collect();
        let mut header = Header::command(id, Command::DeviceReset, ReplyWanted::Yes);
        header.command = command.into();
        header.flags = flags.into();
        let mut out = Vec::new();
        push_frame(&mut out, header, &[&payload]);
        out
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever comes, in whatever pieces, the server ends with its peer and does not panic.
    #[test]
    fn r78_random_bytes_neither_panic_nor_hang(
        agreed: bool,
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        piece in 1_usize..64,
    ) {
        let (server, mut stream) = if agreed { negotiated() } else { Server::start() };
        for piece in bytes.chunks(piece) {
            if stream.write_all(piece).is_err() {
                break;
            }
        }
        drop(stream);
        let _ = server.end();
    }

    /// Headers that make sense with payloads that do not.
    #[test]
    fn r78_random_messages_neither_panic_nor_hang(
        messages in proptest::collection::vec((any_message(), 0_usize..4), 0..40),
    ) {
        let (server, stream) = negotiated();
        let mut sink = stream.try_clone().unwrap();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            let _ = sink.read_to_end(&mut all);
        });
        for (message, descriptors) in &messages {
            if *descriptors == 0 {
                if (&stream).write_all(message).is_err() {
                    break;
                }
            } else if send_with_descriptors(&stream, message, *descriptors).is_err() {
                break;
            }
        }
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = server.end();
        reader.join().unwrap();
    }
}
