//! The extension is off unless both sides name it: everybody else sees the plain protocol, byte for byte.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of tests fail like tests"
)]

mod common;

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    sync::{Arc, Mutex},
    thread,
};

use common::{
    BAR0_BYTES, Server, Toy,
    guest::{Guest, Unit},
    raw::{message, version},
};
use palisade_memory::GuestMemory;
use palisade_pci::Bar;
use palisade_vfio_user::{
    Client, Connection, End, Errno, InvalidationDone, PasidOffer, Region, TranslationCache,
    wire::{
        Capabilities, Command, Cut, Header, Version, cut,
        pasid::{Invalidation, PasidCapability},
        push_frame,
    },
};
use zerocopy::IntoBytes;

/// What this client said before there was an extension.
const CLIENT_TEXT: &[u8] = b"{\"capabilities\":{\"max_data_xfer_size\":65536,\"max_dma_maps\":65536,\
    \"max_msg_fds\":16,\"migration\":{\"pgsize\":4096},\"pgsizes\":4096,\"write_multiple\":true}}\0";
/// And what this server said to it, of a function that cannot migrate.
const SERVER_TEXT: &[u8] =
    b"{\"capabilities\":{\"max_data_xfer_size\":65536,\"max_dma_maps\":1024,\
    \"max_msg_fds\":16,\"pgsizes\":4096,\"write_multiple\":true}}\0";

struct Forgets;

impl TranslationCache for Forgets {
    fn invalidate(&self, _: Invalidation, done: InvalidationDone) {
        done.complete();
    }
}

fn offer() -> PasidOffer {
    PasidOffer {
        cache: Some(Arc::new(Forgets)),
        ..PasidOffer::default()
    }
}

/// One whole message, as it came.
fn whole(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    stream.read_exact(&mut bytes).unwrap();
    let size = u32::from_ne_bytes(bytes[4..8].try_into().unwrap());
    bytes.resize(size as usize, 0);
    stream.read_exact(&mut bytes[16..]).unwrap();
    bytes
}

fn proposal() -> Vec<u8> {
    Capabilities::own(1 << 16).text_with(Some(&PasidCapability::default()))
}

/// What a server answers to each of these messages.
fn conversation((server, mut stream): (Server, UnixStream), said: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut answers = Vec::new();
    for message in said {
        stream.write_all(message).unwrap();
        answers.push(whole(&mut stream));
    }
    drop(stream);
    assert_eq!(server.end().unwrap(), End::PeerClosed);
    answers
}

fn every_command_of_the_extension() -> Vec<Vec<u8>> {
    let commands = Command::EXTENSION.into_iter();
    let lengths = [0, 8, 24, 32, 4096].into_iter();
    commands
        .flat_map(|command| {
            lengths
                .clone()
                .map(move |len| message(command, &vec![0; len]))
        })
        .collect()
}

#[test]
fn who_does_not_name_it_sees_no_difference() {
    let mut said = vec![version(0, CLIENT_TEXT)];
    said.extend(every_command_of_the_extension());
    said.push(message(Command::DeviceReset, &[]));
    let plain = conversation(Server::start(), &said);
    let offering = conversation(Server::offering(offer()), &said);
    assert_eq!(plain, offering);
    assert_eq!(&plain[0][20..], SERVER_TEXT);
    for refusal in &plain[1..said.len() - 1] {
        assert_eq!(refusal.len(), 16);
        let Ok(Cut::Whole(frame)) = cut(refusal) else {
            panic!("no frame");
        };
        assert_eq!(frame.header.outcome(), Err(Errno::NOTSUP));
    }
}

#[test]
fn a_server_that_does_not_offer_it_passes_over_the_name() {
    let names = [
        CLIENT_TEXT.to_vec(),
        proposal(),
        b"{\"capabilities\":{\"pasid\":7,\"write_multiple\":true}}\0".to_vec(),
    ];
    for text in names {
        let mut said = vec![version(0, &text)];
        said.extend(every_command_of_the_extension());
        let answers = conversation(Server::start(), &said);
        assert_eq!(&answers[0][20..], SERVER_TEXT);
    }
}

#[test]
fn a_client_that_does_not_name_it_says_what_it_said_before() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let client = thread::spawn(move || Client::from_stream(ours).map(|_| ()));
    let first = whole(&mut theirs);
    assert_eq!(&first[20..], CLIENT_TEXT);
    drop(theirs);
    assert!(client.join().unwrap().is_err());
}

/// What a client answers to each command of the extension, from a server that answers VERSION with `text`.
fn refusals(text: &[u8], start: impl FnOnce(UnixStream) -> Client + Send + 'static) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let client = thread::spawn(move || {
        let mut client = start(ours);
        assert_eq!(client.pasids(), None);
        // Until the server has seen all answers, and goes.
        while client.wait_messages(common::guest::LIMIT).is_ok()
            && client
                .poll_messages(|_| panic!("nothing was written"))
                .is_ok()
        {}
    });
    let first = whole(&mut theirs);
    let Ok(Cut::Whole(frame)) = cut(&first) else {
        panic!("no frame");
    };
    let said = Version {
        major: 0.into(),
        minor: 0.into(),
    };
    let mut out = Vec::new();
    push_frame(
        &mut out,
        Header::reply(&frame.header),
        &[said.as_bytes(), text],
    );
    // The first comes together with the answer to VERSION.
    let commands = every_command_of_the_extension();
    out.extend_from_slice(&commands[0]);
    theirs.write_all(&out).unwrap();
    for command in &commands[1..] {
        theirs.write_all(command).unwrap();
    }
    for _ in &commands {
        let answer = whole(&mut theirs);
        let Ok(Cut::Whole(frame)) = cut(&answer) else {
            panic!("no frame");
        };
        assert_eq!(frame.header.outcome(), Err(Errno::NOTSUP));
        assert!(frame.payload.is_empty());
    }
    drop(theirs);
    client.join().unwrap();
}

#[test]
fn a_plain_client_refuses_every_command_of_it() {
    refusals(SERVER_TEXT, |stream| Client::from_stream(stream).unwrap());
    // Not even a server that names it without being asked changes that.
    let named = Capabilities::own(8).text_with(Some(&PasidCapability::default()));
    refusals(&named, |stream| Client::from_stream(stream).unwrap());
}

#[test]
fn a_client_that_is_not_agreed_with_refuses_every_command_of_it() {
    refusals(SERVER_TEXT, |stream| {
        let unit = Box::new(Unit(Guest::new()));
        Client::with_pasids(stream, PasidCapability::default(), unit).unwrap()
    });
}

#[test]
fn a_published_client_gets_through_where_it_is_offered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let peer = Arc::new(Mutex::new(None));
    let told = Arc::clone(&peer);
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let memory = Arc::new(GuestMemory::new());
        let connection = Connection::new(stream, Toy::new(), memory).unwrap();
        let connection = connection.offer_pasids(offer());
        *told.lock().unwrap() = Some(connection.peer());
        connection.run()
    });
    let mut client = vfio_user::Client::new(&path).unwrap();
    assert_eq!(client.region(0).unwrap().size, BAR0_BYTES);
    let peer = peer.lock().unwrap().clone().unwrap();
    assert_eq!(peer.pasids(), None);
    client.region_write(0, 0x40, &[1, 2, 3, 4]).unwrap();
    let mut read = [0; 4];
    client.region_read(0, 0x40, &mut read).unwrap();
    assert_eq!(read, [1, 2, 3, 4]);
    client.reset().unwrap();
    client.shutdown().unwrap();
    assert_eq!(server.join().unwrap().unwrap(), End::PeerClosed);
}

#[test]
fn with_the_extension_the_rest_of_the_protocol_is_as_it_was() {
    let (server, stream) = Server::offering(offer());
    let unit = Box::new(Unit(Guest::new()));
    let mut client = Client::with_pasids(stream, PasidCapability::default(), unit).unwrap();
    let bar0 = Region::Bar(Bar::Bar0);
    client.region_write(bar0, 0, &[5; 8]).unwrap();
    let mut read = [0; 8];
    client.region_read(bar0, 0, &mut read).unwrap();
    assert_eq!(read, [5; 8]);
    server
        .peer
        .write_memory(palisade_units::Gpa::new(0xfee0_0000), &[1])
        .unwrap();
    client.wait_messages(common::guest::LIMIT).unwrap();
    assert_eq!(client.poll_messages(|_| {}).unwrap(), 1);
    drop(client);
    assert_eq!(server.end().unwrap(), End::PeerClosed);
}
