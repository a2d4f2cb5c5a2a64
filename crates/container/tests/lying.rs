//! R78: servers that keep to no rule. The client says so, and is neither harmed nor left to wait.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use palisade_container::{Client, ClientError};
use palisade_vfio::{Abi, Nesting};
use rustix::io::Errno;

const VERSION_ANSWER: u16 = 2;
const ANSWER: u16 = 4;

fn message(kind: u16, id: u16, errno: u32, payload: &[u8]) -> Vec<u8> {
    let size = 16 + u32::try_from(payload.len()).unwrap();
    [
        &size.to_le_bytes()[..],
        &kind.to_le_bytes(),
        &id.to_le_bytes(),
        &errno.to_le_bytes(),
        &[0; 4],
        payload,
    ]
    .concat()
}

/// Reads one message, and says its id.
fn read(stream: &mut UnixStream) -> Option<u16> {
    let mut header = [0; 16];
    stream.read_exact(&mut header).ok()?;
    let size = u32::from_le_bytes(header[..4].try_into().unwrap());
    stream.read_exact(&mut vec![0; size as usize - 16]).unwrap();
    Some(u16::from_le_bytes(header[6..8].try_into().unwrap()))
}

/// A server that agrees to every version and answers requests by what this makes of their ids.
fn server(answer: impl Fn(u16) -> Vec<u8> + Send + 'static) -> (UnixStream, JoinHandle<()>) {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let thread = thread::spawn(move || {
        let id = read(&mut ours).unwrap();
        let told = [1, 0, 1, 0, 4, 0, 0, 0, 0, 16, 0, 0];
        ours.write_all(&message(VERSION_ANSWER, id, 0, &told))
            .unwrap();
        while let Some(id) = read(&mut ours) {
            if ours.write_all(&answer(id)).is_err() {
                break;
            }
        }
    });
    (theirs, thread)
}

#[test]
fn an_errno_that_there_is_not_is_eproto() {
    for errno in [4096, 0xffff, 0x1_0000, 0x8000_0000, u32::MAX] {
        let (stream, thread) = server(move |id| message(ANSWER, id, errno, &[]));
        let mut client = Client::over(stream, Abi::V7).unwrap();
        let refused = client.info().unwrap_err();
        assert_eq!(refused.errno(), Some(Errno::PROTO));
        drop(client);
        thread.join().unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(&message(VERSION_ANSWER, 0, errno, &[0; 12]))
            .unwrap();
        let refused = Client::over(theirs, Abi::V1).unwrap_err();
        let ClientError::Version { errno, .. } = refused else {
            panic!("{refused}")
        };
        assert_eq!(errno, Errno::PROTO);
    }
}

/// What follows in the stream belongs to a question that was given up: a later one must not take it for its own.
#[test]
fn a_connection_that_failed_once_is_over() {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    theirs
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let told = [1, 0, 1, 0, 4, 0, 0, 0, 0, 16, 0, 0];
    ours.write_all(&message(VERSION_ANSWER, 0, 0, &told))
        .unwrap();
    let mut client = Client::over(theirs, Abi::V7).unwrap();
    // An answer whose rest comes too late, and reads as one to the next question.
    let rest = message(ANSWER, 2, 0, &[]);
    let whole = message(ANSWER, 1, 0, &rest);
    ours.write_all(&whole[..16]).unwrap();
    assert!(matches!(client.info(), Err(ClientError::Socket(_))));
    // It may find nobody there any more.
    let _ = ours.write_all(&rest);
    let nesting = client.set_nesting(Nesting::On);
    assert!(matches!(nesting, Err(ClientError::Closed)), "{nesting:?}");
    // The version, and the question.
    assert_eq!((read(&mut ours), read(&mut ours)), (Some(0), Some(1)));
    assert_eq!(read(&mut ours), None, "the server knows that it is over");
}
