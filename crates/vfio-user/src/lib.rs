//! The vfio-user protocol: the codec, the server's side of a connection, and a client that pipelines.
//!
//! [`wire`] knows bytes and nothing else. [`Connection`] serves one [`palisade_pci::Function`] to one
//! peer that is trusted with nothing: a frame is bounded, complete and of a known kind before it is
//! looked at, every refusal has an errno, descriptors that nobody asked for are closed, and a peer that
//! breaks the protocol loses its own connection and nothing else. [`Client`] is the other side for
//! drivers and tests: many messages for each system call, in both directions.
//!
//! A function that has [`palisade_pci::Migration`] moves to another host by the second version of VFIO's
//! protocol: a peer brings it from state to state ([`wire::DeviceState`]), and reads and writes what it is made of over
//! the connection. Where [`ClientMemory::dirty_log`] names a space, the pages that the function writes meanwhile are
//! logged and told. A peer that goes in the middle leaves a function that was reset.
//!
//! [`wire::pasid`] is an extension of our own, off unless both sides name it: a device reads and writes in the name of a
//! PASID, asks for translations that it keeps until they are invalidated, and asks for pages, all of a VMM that owns the
//! IOMMU unit ([`Connection::offer_pasids`], [`Client::with_pasids`]); and a VMM makes the container's requests on the
//! device's connection ([`ContainerRequests`]). `docs/vfio-user-pasid.md` proposes it to the protocol.
//!
//! What this room will not do: listen, or say who may connect; know what it serves; release a tenant's
//! memory and PASIDs, whose order is the owner's business. Of migration, the states PRE_COPY and RUNNING_P2P are not
//! there, and are refused with `EINVAL`; of features, those that a function or a memory does not have are
//! refused with `ENOTTY`. Bitmaps of an unmap and DIRTY_PAGES, both of earlier revisions, and memory that is read and
//! written by its descriptor are refused with `ENOTSUP`. No region can be mapped or reached by a descriptor, and a peer
//! that asks is told so. `docs/vfio-user.md` goes through the cases by which libvfio-user is tested, one by one.
//!
//! The protocol is version 0.0 of the vfio-user specification that libvfio-user and QEMU share
//! (docs/interop/vfio-user.rst there), as QEMU 11 speaks it; cited as vfio-user. Numbers on the wire are in the
//! host's byte order.

mod client;
mod memory;
mod region;
mod server;
pub mod wire;

pub use client::{
    Client, ClientError, ContainerReply, DmaWrite, IrqIndex, IrqInfo, PageAnswer, PasidHandler,
    RegionInfo, ServerInfo, Ticket,
};
pub use memory::ClientMemory;
pub use region::Region;
pub use server::{
    AskError, Connection, ConnectionError, ContainerRequests, End, InvalidationDone, PasidOffer,
    PeerGone, PeerHandle, Pending, RequestAnswer, RequestNumber, RequestReply, RequestSession,
    Translated, TranslationCache,
};

pub use rustix::io::Errno;
