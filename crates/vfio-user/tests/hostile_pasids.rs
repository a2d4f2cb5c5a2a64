//! What a peer gets that breaks the extension: the end of its own connection, or a refusal.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of tests fail like tests"
)]

mod common;

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use common::{
    Server,
    guest::{Guest, LIMIT, Unit, pasid, reads, writes},
    raw::{ask, message, reply, version},
};
use palisade_units::{Access, Iova};
use palisade_vfio_user::{
    AskError, Client, ClientError, ConnectionError, End, Errno, InvalidationDone, PasidOffer,
    PeerHandle, TranslationCache,
    wire::{
        Capabilities, Command, Cut, Header, Kind, ReplyWanted, Version, cut,
        pasid::{Invalidation, PasidCapability, PasidScope, Tag, Wanted, WantedPage},
        push_frame,
    },
};
use proptest::prelude::*;
use zerocopy::IntoBytes;

/// A device that completes no invalidation until it is told to.
#[derive(Default)]
struct Slow(Mutex<Vec<InvalidationDone>>);

impl TranslationCache for Slow {
    fn invalidate(&self, _: Invalidation, done: InvalidationDone) {
        self.0.lock().unwrap().push(done);
    }
}

struct Quick;

impl TranslationCache for Quick {
    fn invalidate(&self, _: Invalidation, done: InvalidationDone) {
        done.complete();
    }
}

fn agreed_with(cache: Arc<dyn TranslationCache>, said: PasidCapability) -> (Server, UnixStream) {
    let (server, mut stream) = Server::offering(PasidOffer {
        cache: Some(cache),
        ..PasidOffer::default()
    });
    let text = Capabilities::own(8).text_with(Some(&said));
    stream.write_all(&version(0, &text)).unwrap();
    let (outcome, payload) = reply(&mut stream);
    assert_eq!(outcome, Ok(()));
    let agreed = PasidCapability::parse(&payload[4..]).unwrap();
    assert_eq!(agreed, Some(said));
    assert_eq!(server.peer.pasids(), Some(said));
    (server, stream)
}

fn agreed() -> (Server, UnixStream) {
    agreed_with(Arc::new(Quick), PasidCapability::default())
}

/// The next message that comes: its header and its payload.
fn next(stream: &mut UnixStream) -> (Header, Vec<u8>) {
    let mut bytes = vec![0; 16];
    stream.read_exact(&mut bytes).unwrap();
    let size = u32::from_ne_bytes(bytes[4..8].try_into().unwrap());
    bytes.resize(size as usize, 0);
    stream.read_exact(&mut bytes[16..]).unwrap();
    let Ok(Cut::Whole(frame)) = cut(&bytes) else {
        panic!("no frame");
    };
    (frame.header, frame.payload.to_vec())
}

fn answer(stream: &mut UnixStream, to: &Header, payload: &[u8]) {
    let mut out = Vec::new();
    push_frame(&mut out, Header::reply(to), &[payload]);
    stream.write_all(&out).unwrap();
}

fn wanted() -> Wanted {
    Wanted {
        tag: reads(5),
        at: Iova::new(0x1000),
        len_bytes: 0x1000,
        max_ranges: 1,
    }
}

/// Asks something of a VMM, of whose answer nothing is wanted.
type Question = fn(&PeerHandle);

const QUESTIONS: [(Command, Question); 4] = [
    (Command::PasidDmaRead, |peer| {
        drop(peer.read_tagged(reads(5), Iova::new(0), 8).unwrap());
    }),
    (Command::PasidDmaWrite, |peer| {
        drop(peer.write_tagged(writes(5), Iova::new(0), &[1]).unwrap());
    }),
    (Command::PasidTranslate, |peer| {
        drop(peer.translate(wanted()).unwrap());
    }),
    (Command::PasidPageRequest, |peer| {
        let page = WantedPage {
            at: Iova::new(0),
            access: Access::READ,
        };
        drop(peer.request_pages(Some(pasid(5)), &[page]).unwrap());
    }),
];

#[test]
fn r78_an_answer_that_does_not_fit_ends_the_connection() {
    for (command, question) in QUESTIONS {
        for payload in [vec![], vec![0xff; 24], vec![0xff; 32], vec![0; 4096]] {
            let (server, mut stream) = agreed();
            question(&server.peer);
            let (asked, _) = next(&mut stream);
            assert_eq!(asked.command.get(), command.raw());
            answer(&mut stream, &asked, &payload);
            let end = server.end().unwrap_err();
            assert!(
                matches!(end, ConnectionError::BadAnswer(raw) if raw == command.raw()),
                "{command:?} {} {end}",
                payload.len()
            );
        }
    }
}

#[test]
fn r78_an_answer_to_nothing_ends_the_connection() {
    for (command, question) in QUESTIONS {
        // Nothing was asked; another message id; another command; twice.
        for mistake in 0..4 {
            let (server, mut stream) = agreed();
            let mut to = Header::command(9, command, ReplyWanted::Yes);
            if mistake > 0 {
                question(&server.peer);
                to = next(&mut stream).0;
            }
            match mistake {
                1 => to.message_id = (to.message_id.get() ^ 1).into(),
                2 => to.command = (0x8001 + to.command.get() % 4).into(),
                _ => {}
            }
            let mut out = Vec::new();
            push_frame(&mut out, Header::refusal(&to, Errno::FAULT), &[]);
            if mistake == 3 {
                out.extend_from_within(..);
            }
            stream.write_all(&out).unwrap();
            let end = server.end();
            assert!(
                matches!(end, Err(ConnectionError::UnexpectedReply(_))),
                "{command:?} {mistake} {end:?}"
            );
        }
    }
}

#[test]
fn a_refusal_is_an_answer() {
    let (server, mut stream) = agreed();
    let pending = server.peer.translate(wanted()).unwrap();
    let (asked, _) = next(&mut stream);
    let mut out = Vec::new();
    push_frame(&mut out, Header::refusal(&asked, Errno::ACCESS), &[]);
    stream.write_all(&out).unwrap();
    assert_eq!(pending.wait(LIMIT), Err(AskError::Refused(Errno::ACCESS)));
    assert_eq!(ask(&mut stream, Command::DeviceReset, &[]), Ok(()));
}

#[test]
fn r78_a_capability_that_makes_no_sense_ends_the_connection() {
    for object in [
        "7",
        "{}",
        "{\"version\":1}",
        "{\"version\":1,\"max_commands\":1,\"width\":33}",
    ] {
        let (server, mut stream) = Server::offering(PasidOffer::default());
        let text = format!("{{\"capabilities\":{{\"pasid\":{object}}}}}\0");
        stream.write_all(&version(0, text.as_bytes())).unwrap();
        assert!(matches!(
            server.end(),
            Err(ConnectionError::Capabilities(_))
        ));
    }
}

#[test]
fn requests_that_make_no_sense_are_refused_and_the_connection_goes_on() {
    let (_server, mut stream) = agreed();
    let invalidate = Command::PasidInvalidate;
    for payload in [
        vec![],
        vec![0; 23],
        vec![0; 24],
        vec![0xff; 24],
        vec![0; 25],
    ] {
        assert_eq!(ask(&mut stream, invalidate, &payload), Err(Errno::INVAL));
    }
    // None of these is a server's.
    for command in &Command::EXTENSION[..4] {
        assert_eq!(ask(&mut stream, *command, &[0; 24]), Err(Errno::NOTSUP));
    }
    let request = Command::ContainerRequest;
    assert_eq!(ask(&mut stream, request, &[0; 8]), Err(Errno::NOTSUP));
    let all = Invalidation {
        pasids: PasidScope::All,
        range: None,
    };
    let all = all.message();
    assert_eq!(ask(&mut stream, invalidate, all.as_bytes()), Ok(()));
}

#[test]
fn r78_invalidations_under_way_are_bounded() {
    let slow = Arc::new(Slow::default());
    let said = PasidCapability {
        max_invalidations: 2,
        ..PasidCapability::default()
    };
    let (_server, mut stream) = agreed_with(slow.clone(), said);
    let all = Invalidation {
        pasids: PasidScope::All,
        range: None,
    };
    let all = message(Command::PasidInvalidate, all.message().as_bytes());
    for _ in 0..3 {
        stream.write_all(&all).unwrap();
    }
    assert_eq!(reply(&mut stream).0, Err(Errno::BUSY));
    for done in slow.0.lock().unwrap().drain(..) {
        done.complete();
    }
    assert_eq!(reply(&mut stream).0, Ok(()));
    assert_eq!(reply(&mut stream).0, Ok(()));
    stream.write_all(&all).unwrap();
    while slow.0.lock().unwrap().is_empty() {
        thread::yield_now();
    }
}

#[test]
fn r78_who_invalidates_and_does_not_read_is_not_listened_to() {
    let (server, mut stream) = agreed();
    let all = Invalidation {
        pasids: PasidScope::All,
        range: None,
    };
    let all = message(Command::PasidInvalidate, all.message().as_bytes());
    stream.set_nonblocking(true).unwrap();
    let (mut sent, mut quiet) = (0_u64, 0);
    while quiet < 50 {
        match stream.write(&all) {
            Ok(n) if n == all.len() => (sent, quiet) = (sent + 1, 0),
            Ok(_) => panic!("a part of a message"),
            Err(_) => {
                quiet += 1;
                thread::sleep(Duration::from_millis(1));
            }
        }
        assert!(sent < 1_000_000, "the server reads on and on");
    }
    stream.set_nonblocking(false).unwrap();
    for _ in 0..sent {
        assert_eq!(reply(&mut stream).0, Ok(()));
    }
    server.peer.stop();
    assert_eq!(server.end().unwrap(), End::Stopped);
}

#[test]
fn r78_a_vmm_that_does_not_answer_makes_its_device_wait_and_nobody_else() {
    let said = PasidCapability {
        max_commands: 3,
        max_page_groups: 1,
        ..PasidCapability::default()
    };
    let (server, mut stream) = agreed_with(Arc::new(Quick), said);
    let read = || server.peer.read_tagged(reads(5), Iova::new(0), 8);
    let pending: Vec<_> = (0..3).map(|_| read().unwrap()).collect();
    assert_eq!(read().unwrap_err(), AskError::Busy);
    for pending in pending {
        assert_eq!(pending.wait(Duration::from_millis(1)), Err(AskError::Late));
    }
    let pages = |n: usize| {
        let page = WantedPage {
            at: Iova::new(0),
            access: Access::READ,
        };
        server.peer.request_pages(None, &vec![page; n]).map(|_| ())
    };
    assert_eq!(pages(0), Err(AskError::Senseless));
    assert_eq!(pages(65), Err(AskError::Senseless));
    assert_eq!(pages(64), Ok(()));
    assert_eq!(pages(1), Err(AskError::Busy));
    // The rest of the connection goes on.
    for _ in 0..4 {
        assert_eq!(next(&mut stream).0.kind(), Some(Kind::Command));
    }
    assert_eq!(ask(&mut stream, Command::DeviceReset, &[]), Ok(()));
}

#[test]
fn what_no_prefix_could_say_is_not_asked() {
    let (server, mut stream) = agreed();
    let at = Iova::new(0x1000);
    // Without a PASID there is no privileged mode, and no instruction is fetched.
    for mode in [Access::PRIVILEGED, Access::EXECUTE] {
        let tag = |access| Tag {
            pasid: None,
            access: access | mode,
        };
        let read = server.peer.read_tagged(tag(Access::READ), at, 8);
        assert_eq!(read.map(|_| ()), Err(AskError::Senseless));
        let written = server.peer.write_tagged(tag(Access::WRITE), at, &[1]);
        assert_eq!(written.map(|_| ()), Err(AskError::Senseless));
        let translated = server.peer.translate(Wanted {
            tag: tag(Access::READ),
            ..wanted()
        });
        assert_eq!(translated.map(|_| ()), Err(AskError::Senseless));
    }
    // Nothing of it has been sent before the answer to this.
    assert_eq!(ask(&mut stream, Command::DeviceReset, &[]), Ok(()));
}

fn any_frames(first: u16) -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just(0_u32),
        Just(1),
        Just(2),
        Just(5),
        Just(0x1000),
        Just(0x8000_0001),
        Just(0x8000_0002),
        any::<u32>()
    ];
    let words = proptest::collection::vec(word, 0..12);
    let odd = proptest::collection::vec(any::<u8>(), 0..4);
    let one = (first..0x8009, 0_u16..4, 0_u32..64, words, odd);
    proptest::collection::vec(one, 0..30).prop_map(|messages| {
        let mut out = Vec::new();
        for (command, id, flags, words, odd) in messages {
            let mut payload: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
            payload.extend(odd);
            let mut header = Header::command(id, Command::DeviceReset, ReplyWanted::Yes);
            header.command = command.into();
            header.flags = flags.into();
            push_frame(&mut out, header, &[&payload]);
        }
        out
    })
}

/// A server that says what it likes to a client that has agreed with it.
fn hostile_server(
    said: &PasidCapability,
    bytes: Vec<u8>,
) -> (Option<Client>, thread::JoinHandle<Vec<u8>>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let text = Capabilities::own(8).text_with(Some(said));
    let server = thread::spawn(move || {
        let (asked, _) = next(&mut theirs);
        let version = Version {
            major: 0.into(),
            minor: 0.into(),
        };
        answer(&mut theirs, &asked, &[version.as_bytes(), &text].concat());
        let mut reader = theirs.try_clone().unwrap();
        let answers = thread::spawn(move || {
            let mut all = Vec::new();
            let _ = reader.read_to_end(&mut all);
            all
        });
        let _ = theirs.write_all(&bytes);
        let _ = theirs.shutdown(std::net::Shutdown::Write);
        answers.join().unwrap()
    });
    let guest = Guest::new();
    guest.new_process(5);
    guest.map(5, 0x1000, guest.new_page(), Access::WRITE);
    *guest.later.lock().unwrap() = Some(Vec::new());
    let client = Client::with_pasids(ours, PasidCapability::default(), Box::new(Unit(guest)));
    // It may have come to something senseless already.
    (client.ok(), server)
}

/// The outcomes of a client's answers to these messages.
fn outcomes(bytes: Vec<u8>) -> Vec<Result<(), Errno>> {
    let (client, server) = hostile_server(&PasidCapability::default(), bytes);
    if let Some(mut client) = client {
        while client.wait_messages(LIMIT).is_ok() && client.poll_messages(|_| {}).is_ok() {}
        let _ = client.flush();
    }
    let answers = server.join().unwrap();
    let mut rest = &answers[..];
    let mut outcomes = Vec::new();
    while let Ok(Cut::Whole(frame)) = cut(rest) {
        outcomes.push(frame.header.outcome());
        rest = &rest[frame.len_bytes()..];
    }
    outcomes
}

#[test]
fn r78_what_a_server_asks_is_checked_by_the_client() {
    let read = |tag: palisade_vfio_user::wire::pasid::Tag, at, count| {
        let access = tag.at(Iova::new(at), count);
        message(Command::PasidDmaRead, access.as_bytes())
    };
    let group = |index: u32, count: u32, pages: usize| {
        let head = [5, 1 << 31, index, count].map(u32::to_ne_bytes).concat();
        let payload = [head, vec![0; 16 * pages]].concat();
        message(Command::PasidPageRequest, &payload)
    };
    let invalid = Err(Errno::INVAL);
    let cases = [
        (read(reads(5), 0x1000, 8), Ok(())),
        (read(reads(5), 0x1000, 0), invalid),
        (read(reads(5), 0x1000, 65_537), invalid),
        (read(reads(5), 0x1000, u64::MAX), invalid),
        (read(reads(5), u64::MAX, 2), invalid),
        (read(writes(5), 0x1000, 8), invalid),
        (read(reads(6), 0x1000, 8), Err(Errno::ACCESS)),
        (read(reads(5), 0x3000, 8), Err(Errno::FAULT)),
        (
            message(
                Command::PasidDmaWrite,
                writes(5).at(Iova::new(0), 8).as_bytes(),
            ),
            invalid,
        ),
        (message(Command::PasidDmaWrite, &[0; 23]), invalid),
        (message(Command::PasidTranslate, &[0; 32]), invalid),
        (
            message(Command::PasidTranslate, wanted().message().as_bytes()),
            Ok(()),
        ),
        (group(512, 1, 1), invalid),
        (group(3, 2, 1), invalid),
        (group(3, 0, 0), invalid),
        (group(3, 65, 65), invalid),
        (
            message(Command::PasidInvalidate, &[0; 24]),
            Err(Errno::NOTSUP),
        ),
        (
            message(Command::ContainerRequest, &[0; 8]),
            Err(Errno::NOTSUP),
        ),
    ];
    let (messages, expected): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    assert_eq!(outcomes(messages.concat()), expected);

    // They are not answered now: a second one with the same index, and one too many.
    let mut groups = vec![group(7, 1, 1), group(7, 1, 1)];
    groups.extend((8..40).map(|index| group(index, 1, 1)));
    assert_eq!(
        outcomes(groups.concat()),
        [Err(Errno::EXIST), Err(Errno::BUSY)]
    );
}

#[test]
fn r78_a_server_that_agrees_to_more_than_was_proposed_is_left() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || {
        let (asked, _) = next(&mut theirs);
        let text = Capabilities::own(8).text_with(Some(&PasidCapability::default()));
        answer(&mut theirs, &asked, &[&[0; 4], &text[..]].concat());
    });
    let narrow = PasidCapability {
        width: 8,
        ..PasidCapability::default()
    };
    let client = Client::with_pasids(ours, narrow, Box::new(Unit(Guest::new())));
    assert!(matches!(client, Err(ClientError::BeyondProposal)));
    server.join().unwrap();
}

#[test]
fn r78_a_server_that_asks_and_does_not_read_is_left() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || {
        let (asked, _) = next(&mut theirs);
        let said = PasidCapability {
            max_commands: 4,
            ..PasidCapability::default()
        };
        let text = Capabilities::own(8).text_with(Some(&said));
        answer(&mut theirs, &asked, &[&[0; 4], &text[..]].concat());
        // A short question with a long answer.
        let access = reads(5).at(Iova::new(0), 0xf000);
        let question = message(Command::PasidDmaRead, access.as_bytes());
        while theirs.write_all(&question).is_ok() {}
    });
    let guest = Guest::new();
    guest.new_process(5);
    let page = guest.new_page();
    for n in 0..16 {
        guest.map(5, n * 4096, page, Access::READ);
    }
    let proposal = PasidCapability::default();
    let end = match Client::with_pasids(ours, proposal, Box::new(Unit(guest))) {
        Ok(mut client) => loop {
            if let Err(end) = client.poll_messages(|_| {}) {
                break end;
            }
        },
        Err(end) => end,
    };
    assert!(matches!(end, ClientError::TooManyMessages), "{end}");
    server.join().unwrap();
}

/// What is refused is answered, too, with or without the extension.
#[test]
fn r78_a_server_that_asks_for_what_is_refused_and_does_not_read_is_left() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || {
        let (asked, _) = next(&mut theirs);
        let text = Capabilities::own(8).text();
        answer(&mut theirs, &asked, &[&[0; 4], &text[..]].concat());
        let questions = message(Command::PasidTranslate, &[]).repeat(1000);
        while theirs.write_all(&questions).is_ok() {}
    });
    let mut client = Client::from_stream(ours).unwrap();
    let end = (0..100_000).find_map(|_| client.poll_messages(|_| {}).err());
    assert!(matches!(end, Some(ClientError::TooManyMessages)), "{end:?}");
    drop(client);
    server.join().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever a VMM sends, the server ends with it and does not panic, and neither does who asks it.
    #[test]
    fn r78_random_messages_of_a_vmm_neither_panic_nor_hang(bytes in any_frames(0x7fff), questions: bool) {
        let (server, stream) = agreed();
        if questions {
            for (_, question) in QUESTIONS {
                question(&server.peer);
            }
        }
        let mut sink = stream.try_clone().unwrap();
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            let _ = sink.read_to_end(&mut all);
        });
        let _ = (&stream).write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = server.end();
        reader.join().unwrap();
    }

    /// Whatever a server sends, the client ends with it and does not panic.
    #[test]
    fn r78_random_messages_of_a_server_neither_panic_nor_hang(bytes in any_frames(0x8000)) {
        let _ = outcomes(bytes);
    }
}
