//! A peer that says what it likes.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::Arc,
};

use palisade_vfio_user::{
    Errno,
    wire::{Capabilities, Command, Cut, Header, ReplyWanted, Version, cut, push_frame},
};
use zerocopy::IntoBytes;

use super::{Server, Toy};

pub(crate) fn message(command: Command, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    push_frame(
        &mut out,
        Header::command(77, command, ReplyWanted::Yes),
        &[payload],
    );
    out
}

pub(crate) fn version(major: u16, text: &[u8]) -> Vec<u8> {
    let version = Version {
        major: major.into(),
        minor: 1.into(),
    };
    message(Command::Version, &[version.as_bytes(), text].concat())
}

/// One reply: its outcome and payload.
pub(crate) fn reply(stream: &mut UnixStream) -> (Result<(), Errno>, Vec<u8>) {
    let mut bytes = vec![0; 16];
    stream.read_exact(&mut bytes).unwrap();
    let size = u32::from_ne_bytes(bytes[4..8].try_into().unwrap());
    bytes.resize(size as usize, 0);
    stream.read_exact(&mut bytes[16..]).unwrap();
    let frame = match cut(&bytes).unwrap() {
        Cut::Whole(frame) => Some(frame),
        Cut::Incomplete => None,
    };
    let frame = frame.unwrap();
    assert_eq!(frame.header.message_id.get(), 77);
    (frame.header.outcome(), frame.payload.to_vec())
}

pub(crate) fn negotiated() -> (Server, UnixStream) {
    negotiated_with(Toy::new())
}

pub(crate) fn negotiated_with(toy: Arc<Toy>) -> (Server, UnixStream) {
    let (server, mut stream) = Server::serve(toy);
    stream
        .write_all(&version(0, &Capabilities::own(8).text()))
        .unwrap();
    assert_eq!(reply(&mut stream).0, Ok(()));
    (server, stream)
}

pub(crate) fn ask(stream: &mut UnixStream, command: Command, payload: &[u8]) -> Result<(), Errno> {
    stream.write_all(&message(command, payload)).unwrap();
    reply(stream).0
}
