//! The vfio-user protocol: the codec, the server's side of a connection, and a client that pipelines.
//!
//! [`wire`] knows bytes and nothing else. [`Connection`] serves one [`palisade_pci::Function`] to one
//! peer that is trusted with nothing: a frame is bounded, complete and of a known kind before it is
//! looked at, every refusal has an errno, descriptors that nobody asked for are closed, and a peer that
//! breaks the protocol loses its own connection and nothing else. [`Client`] is the other side for
//! drivers and tests: many messages for each system call, in both directions.
//!
//! What this room will not do: listen, or say who may connect; know what it serves; release a tenant's
//! memory and PASIDs, whose order is the owner's business. Migration, dirty-page logging, mapping of device
//! regions and ioeventfds are not there: each is refused with `ENOTSUP`, none is advertised.
//!
//! The protocol is version 0.0 of the vfio-user specification that libvfio-user and QEMU share, as
//! QEMU 11 speaks it; cited as vfio-user. Numbers on the wire are in the host's byte order.

mod client;
mod memory;
mod region;
mod server;
pub mod wire;

pub use client::{
    Client, ClientError, DmaWrite, IrqIndex, IrqInfo, RegionInfo, ServerInfo, Ticket,
};
pub use memory::ClientMemory;
pub use region::Region;
pub use server::{Connection, ConnectionError, End, PeerGone, PeerHandle};

pub use rustix::io::Errno;
