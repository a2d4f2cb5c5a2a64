//! What a server gets that sends descriptors where nobody wants them: nothing, and they are closed.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::{
    io::{IoSlice, Read},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    thread,
};

use palisade_units::Iova;
use palisade_vfio_user::{
    Client, Errno, PasidHandler, RequestNumber,
    wire::{
        Capabilities, Cut, Header, cut,
        pasid::{PasidCapability, RequestAbi, Tag},
        push_frame,
    },
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
    pipe::pipe,
};

struct Nobody;

impl PasidHandler for Nobody {
    fn read(&mut self, _: Tag, _: Iova, _: &mut [u8]) -> Result<(), Errno> {
        Err(Errno::FAULT)
    }

    fn write(&mut self, _: Tag, _: Iova, _: &[u8]) -> Result<(), Errno> {
        Err(Errno::FAULT)
    }
}

/// The header of the next message.
fn next(stream: &mut UnixStream) -> Header {
    let mut bytes = vec![0; 16];
    stream.read_exact(&mut bytes).unwrap();
    let size = u32::from_ne_bytes(bytes[4..8].try_into().unwrap());
    bytes.resize(usize::try_from(size).unwrap(), 0);
    stream.read_exact(&mut bytes[16..]).unwrap();
    match cut(&bytes) {
        Ok(Cut::Whole(frame)) => Some(frame.header),
        _ => None,
    }
    .unwrap()
}

fn send(stream: &UnixStream, header: Header, payload: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut message = Vec::new();
    push_frame(&mut message, header, &[payload]);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    let io = [IoSlice::new(&message)];
    sendmsg(stream, &io, &mut control, SendFlags::NOSIGNAL).unwrap();
}

#[test]
fn r78_descriptors_beside_a_refusal_are_closed() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let said = PasidCapability {
        requests: Some(RequestAbi::V7),
        ..PasidCapability::default()
    };
    let server = thread::spawn(move || {
        let hello = next(&mut theirs);
        let text = Capabilities::own(8).text_with(Some(&said));
        send(
            &theirs,
            Header::reply(&hello),
            &[&[0; 4], &text[..]].concat(),
            &[],
        );
        let asked = next(&mut theirs);
        let (read_end, write_end) = pipe().unwrap();
        let refusal = Header::refusal(&asked, Errno::PERM);
        send(&theirs, refusal, &[], &[write_end.as_fd()]);
        (theirs, read_end)
    });
    let mut client = Client::with_pasids(ours, said, Box::new(Nobody)).unwrap();
    let refused = client.container_request(RequestNumber::new(7), &[], &[]);
    assert_eq!(refused.unwrap_err().errno(), Some(Errno::PERM));
    let (_theirs, read_end) = server.join().unwrap();
    let mut fds = [PollFd::new(&read_end, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).unwrap();
    assert!(
        fds[0].revents().contains(PollFlags::HUP),
        "the client keeps it"
    );
}
