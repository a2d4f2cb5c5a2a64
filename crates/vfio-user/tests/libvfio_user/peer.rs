//! A peer that sends what a case says, byte for byte.

use std::{
    io::{IoSlice, Write},
    mem::MaybeUninit,
    os::{fd::BorrowedFd, unix::net::UnixStream},
    sync::Arc,
    thread::JoinHandle,
};

use palisade_memory::GuestMemory;
use palisade_pci::Function;
use palisade_vfio_user::{
    ClientMemory, Connection, ConnectionError, End, Errno,
    wire::{Capabilities, Command},
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::common::{
    Toy,
    raw::{message, reply, version},
};

/// The protocol's 32-bit fields, in the host's byte order.
pub(crate) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The same for 64-bit fields.
pub(crate) fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}

/// The 32-bit fields of a reply.
pub(crate) fn words_of(bytes: &[u8]) -> Vec<u32> {
    let words = bytes.chunks_exact(4);
    words
        .map(|word| u32::from_ne_bytes(word.try_into().unwrap()))
        .collect()
}

/// One end of a connection, and the server at the other.
pub(crate) struct Peer {
    pub(crate) stream: UnixStream,
    thread: JoinHandle<Result<End, ConnectionError>>,
}

impl Peer {
    /// One that has said nothing yet.
    pub(crate) fn silent(function: Arc<dyn Function>, memory: Arc<dyn ClientMemory>) -> Self {
        let (ours, stream) = UnixStream::pair().unwrap();
        let connection = Connection::new(ours, function, memory).unwrap();
        let thread = std::thread::spawn(move || connection.run());
        Self { stream, thread }
    }

    /// One that has agreed on the version.
    pub(crate) fn of(function: Arc<dyn Function>, memory: Arc<dyn ClientMemory>) -> Self {
        Self::saying(function, memory, &Capabilities::own(8).text())
    }

    /// One that has agreed on the version with these capabilities.
    pub(crate) fn saying(
        function: Arc<dyn Function>,
        memory: Arc<dyn ClientMemory>,
        text: &[u8],
    ) -> Self {
        let mut peer = Self::silent(function, memory);
        assert_eq!(peer.send(&version(0, text)).err(), None);
        peer
    }

    /// One of a function that nobody looks at.
    pub(crate) fn any() -> Self {
        Self::of(Toy::new(), Arc::new(GuestMemory::new()))
    }

    /// Sends bytes and takes the answer.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Errno> {
        self.stream.write_all(bytes).unwrap();
        let (outcome, payload) = reply(&mut self.stream);
        outcome.map(|()| payload)
    }

    /// Asks for something.
    pub(crate) fn ask(&mut self, command: Command, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        self.send(&message(command, payload))
    }

    /// Asks with descriptors.
    pub(crate) fn ask_with(
        &mut self,
        command: Command,
        payload: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Vec<u8>, Errno> {
        let bytes = message(command, payload);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
        let io = [IoSlice::new(&bytes)];
        let sent = sendmsg(&self.stream, &io, &mut control, SendFlags::NOSIGNAL);
        assert_eq!(sent, Ok(bytes.len()));
        let (outcome, payload) = reply(&mut self.stream);
        outcome.map(|()| payload)
    }

    /// Reads a region.
    pub(crate) fn read(&mut self, region: u32, offset: u64, count: u32) -> Result<Vec<u8>, Errno> {
        let payload = [longs(&[offset]), words(&[region, count])].concat();
        let reply = self.ask(Command::RegionRead, &payload)?;
        assert_eq!(reply[..16], payload);
        Ok(reply[16..].to_vec())
    }

    /// Writes a region.
    pub(crate) fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let count = data.len() as u32;
        let access = [longs(&[offset]), words(&[region, count])].concat();
        let reply = self.ask(Command::RegionWrite, &[&access, data].concat())?;
        assert_eq!(reply, access);
        Ok(())
    }

    /// How the connection ends that was broken, or from which the peer goes now.
    pub(crate) fn end(self) -> Result<End, ConnectionError> {
        drop(self.stream);
        self.thread.join().unwrap()
    }
}
