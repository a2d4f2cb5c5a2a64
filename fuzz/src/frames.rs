//! What a vfio-user peer sends.

use std::{
    io::{Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
};

use arbitrary::Unstructured;
use palisade_dsa::spec::{Portal, portal_offset};
use palisade_mdev::SliceType;
use palisade_vfio_user::{
    Connection,
    wire::{Command, HEADER_BYTES, Header, ReplyWanted},
};
use palisade_vtd::{CachingMode, UnitConfig, VcmdLayout};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use zerocopy::IntoBytes;

use crate::world::{MEMORY_BYTES, World};

/// No message of the protocol needs more here.
const MESSAGE_BYTES: usize = 512;

/// A peer of a slice, or of the unit: its messages are raw bytes, or have a header that fits them and descriptors.
pub(crate) fn frames(bytes: &[u8]) {
    let config = UnitConfig {
        vcmd: VcmdLayout::Current,
        caching_mode: CachingMode::On,
    };
    let world = World::new(config, SliceType::DedicatedQueue);
    let mut input = Unstructured::new(bytes);
    let to_unit = input.arbitrary().unwrap_or(false);
    let function = if to_unit {
        Arc::clone(&world.unit) as _
    } else {
        world.slice.function()
    };
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let connection = Connection::new(ours, function, Arc::new(world.guest.clone()));
    let connection = connection.expect("descriptors");
    std::thread::scope(|scope| {
        let mut answers = theirs.try_clone().expect("descriptors");
        scope.spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while answers.read(&mut buffer).is_ok_and(|len| len > 0) {}
        });
        scope.spawn(move || {
            // Both ends are legal: what the peer gets for what it sent is the protocol's business.
            let _ = connection.run();
        });
        send(&theirs, &mut input);
        let _ = theirs.shutdown(std::net::Shutdown::Write);
    });
    world.work();
    world.check();
}

/// Sends messages until the input or the connection ends.
fn send(mut to: &UnixStream, input: &mut Unstructured<'_>) {
    if input.arbitrary().unwrap_or(false) {
        let rest = input.bytes(input.len()).unwrap_or_default();
        let _ = to.write_all(rest);
        return;
    }
    let file = memfd_create("peer", MemfdFlags::CLOEXEC).expect("memory");
    ftruncate(&file, MEMORY_BYTES).expect("room");
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK);
    let event: OwnedFd = event.expect("descriptors");
    let version = message(Command::Version.raw(), 1, &[0, 0, 0, 0]);
    if to.write_all(&version).is_err() {
        return;
    }
    while let Ok((message, descriptors)) = next(input) {
        let fds: Vec<BorrowedFd<'_>> = match descriptors {
            0..=2 => Vec::new(),
            3 => vec![file.as_fd()],
            count => vec![event.as_fd(); usize::from(count) - 3],
        };
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let sent = sendmsg(
            to,
            &[std::io::IoSlice::new(&message)],
            &mut control,
            SendFlags::NOSIGNAL,
        );
        if sent.is_err() {
            return;
        }
    }
}

/// A message with as many descriptors as the number says.
fn next(input: &mut Unstructured<'_>) -> arbitrary::Result<(Vec<u8>, u8)> {
    let command = input.int_in_range(1..=19)?;
    let descriptors = input.int_in_range(0..=8)?;
    let payload = match input.int_in_range(0..=3)? {
        0 => {
            let len = input.int_in_range(0..=MESSAGE_BYTES)?;
            input.bytes(len.min(input.len()))?.to_vec()
        }
        // An access: offset, region, count, data.
        1 => {
            let at = input.arbitrary::<u16>()?;
            access(at.into(), input)?
        }
        2 => access(portal_offset(0, Portal::Unlimited), input)?,
        // Words that are all small: sizes, indices, flags.
        _ => {
            let count = input.int_in_range(1..=10)?;
            let mut words = Vec::new();
            for _ in 0..count {
                words.extend(input.int_in_range(0..=64_u32)?.to_le_bytes());
            }
            words
        }
    };
    if input.is_empty() {
        return Err(arbitrary::Error::NotEnoughData);
    }
    let id = input.arbitrary()?;
    Ok((message(command, id, &payload), descriptors))
}

fn access(at: u64, input: &mut Unstructured<'_>) -> arbitrary::Result<Vec<u8>> {
    let region = input.int_in_range(0..=9_u32)?;
    let count = *input.choose(&[1_u32, 4, 8, 64, 4096])?;
    let data = input.bytes(usize::try_from(count).unwrap_or(0).min(input.len()))?;
    let mut payload = at.to_le_bytes().to_vec();
    payload.extend(region.to_le_bytes());
    payload.extend(count.to_le_bytes());
    payload.extend(data);
    Ok(payload)
}

fn message(command: u16, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = Header::command(id, Command::Version, ReplyWanted::Yes);
    header.command = command.into();
    header.size = u32::try_from(HEADER_BYTES + payload.len())
        .unwrap_or(u32::MAX)
        .into();
    [header.as_bytes(), payload].concat()
}
