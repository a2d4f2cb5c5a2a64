use std::os::fd::{BorrowedFd, OwnedFd};

use palisade_iommu::QueueFull;

/// The host's end of a file that a client reads records from, and writes answers to. The client has the other end and
/// does with it what it likes; nothing here waits for it.
pub trait Channel: Send + Sync {
    /// Lets the client read a record, whole or not at all.
    ///
    /// # Errors
    /// [`QueueFull`] where there is no room, or nobody has the other end any more.
    fn put(&self, record: &[u8]) -> Result<(), QueueFull>;

    /// Takes what the client wrote at once.
    fn take(&self, into: &mut [u8]) -> Taken;

    /// Whether somebody has the client's end still.
    fn is_open(&self) -> bool;

    /// What is readable where the client wrote something, or has closed its end.
    fn readable(&self) -> BorrowedFd<'_>;
}

/// What a client wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// So many bytes.
    Bytes(usize),
    /// Nothing since the last time.
    Nothing,
    /// Nothing more will come: the client has closed its end.
    Over,
}

/// Both ends of such a file.
pub struct ChannelPair {
    /// The host's.
    pub host: Box<dyn Channel>,
    /// The client's.
    pub client: OwnedFd,
}
