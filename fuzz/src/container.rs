//! What a client of the container socket sends.

use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use arbitrary::Unstructured;
use palisade_container::serve;
use palisade_container::wire::{Header, Kind, Version, frame};
use palisade_vfio::Abi;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use zerocopy::IntoBytes;

use crate::calls::{self, Call};
use crate::requests::{Device, all_is_given_back, world};
use crate::world::World;

/// The forms of the requests, and one that there is not.
const FORMS: [u16; 4] = [1, 3, 7, 2];

/// A client whose stream is raw bytes, or messages that fit the form that it chose.
pub(crate) fn container_frames(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let world = world();
    let (vmm, function) = world.vmm();
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    std::thread::scope(|scope| {
        let mut answers = theirs.try_clone().expect("descriptors");
        scope.spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while answers.read(&mut buffer).is_ok_and(|len| len > 0) {}
        });
        scope.spawn(|| {
            // Both ends are legal: what the client gets for what it sent is the protocol's business.
            let _ = serve(&ours, &vmm);
        });
        send(&world, &theirs, &mut input);
        let _ = theirs.shutdown(std::net::Shutdown::Write);
    });
    all_is_given_back(&world, &Device::of(function));
}

/// Sends messages until the input or the connection ends.
fn send(world: &World, mut to: &UnixStream, input: &mut Unstructured<'_>) {
    if input.arbitrary().unwrap_or(false) {
        let rest = input.bytes(input.len()).unwrap_or_default();
        let _ = to.write_all(rest);
        return;
    }
    let form = input.choose(&FORMS).copied().unwrap_or(7);
    let version = Version {
        major: 1.into(),
        abi: form.into(),
        ..Version::default()
    };
    let hello = frame(Header::new(Kind::Version, 0, 0), version.as_bytes());
    if to.write_all(&hello.unwrap_or_default()).is_err() {
        return;
    }
    let opening = calls::opening(input).unwrap_or(0);
    let first = |step| match abi_of(form) {
        Some(abi) => calls::first_of_proposals(world, abi, step),
        None => calls::first_of_iommufd(world, step),
    };
    for call in (0..opening).filter_map(first) {
        let message = message(&call, 0);
        if !send_one(to, &message, &call) {
            return;
        }
    }
    while let Ok((message, call)) = next(world, form, input) {
        if !send_one(to, &message, &call) {
            return;
        }
    }
}

/// The proposal that a form of the requests is.
fn abi_of(form: u16) -> Option<Abi> {
    match form {
        1 => Some(Abi::V1),
        7 => Some(Abi::V7),
        _ => None,
    }
}

/// Whether it could be sent.
fn send_one(to: &UnixStream, message: &[u8], call: &Call) -> bool {
    let fds: Vec<BorrowedFd<'_>> = call.descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    let io = [IoSlice::new(message)];
    sendmsg(to, &io, &mut control, SendFlags::NOSIGNAL).is_ok()
}

fn message(call: &Call, id: u16) -> Vec<u8> {
    let mut header = Header::new(Kind::Request, id, call.number.get());
    header.value = call.on.raw().cast_signed().into();
    frame(header, &call.argument).unwrap_or_default()
}

/// A message, with what comes beside it.
fn next(
    world: &World,
    form: u16,
    input: &mut Unstructured<'_>,
) -> arbitrary::Result<(Vec<u8>, Call)> {
    if input.is_empty() {
        return Err(arbitrary::Error::NotEnoughData);
    }
    let call = match abi_of(form) {
        Some(abi) => calls::of_proposals(world, abi, input)?,
        None => calls::of_iommufd(world, input)?,
    };
    let mut message = message(&call, input.arbitrary()?);
    if input.ratio(1, 32)? && !message.is_empty() {
        let at = input.choose_index(message.len())?;
        message[at] = input.arbitrary()?;
    }
    Ok((message, call))
}
