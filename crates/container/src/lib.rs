//! The container socket: how a VMM in another process makes the requests of [`palisade_vfio::abi`].
//!
//! Each message carries the number of a request and the bytes of its argument, as a call of `ioctl` has them, and
//! descriptors beside it; each answer what the call returns, or its errno, and the bytes that it changed.
//! `docs/container.md` tells the protocol, for clients in other languages.
//!
//! [`wire`] knows bytes and nothing else. [`Server`] listens, lets in whom its [`Gate`] allows, and gives each
//! client a thread; [`serve`] is one client on a thread of one's own. A client is trusted with nothing: a
//! message is bounded and complete before it is looked at, descriptors that nobody asked for are closed, and one that
//! breaks the protocol loses its own connection and nothing else. However a connection ends, what its VMM took is
//! unbound, drained and freed when the VMM's last one has gone. [`Client`] is the other side, and [`IommufdClient`] that
//! of the objects of an iommufd ([`palisade_vfio::abi::iommufd`]).
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let authority = palisade_ioasid::Authority::new(&[]);
//! # let tenant = palisade_units::TenantId::new(1);
//! # let set = authority.create_set(tenant, palisade_ioasid::Quota::default())?;
//! use std::{os::unix::net::UnixListener, sync::Arc};
//!
//! use palisade_container::{AllowedUids, EventFds, Server};
//! use palisade_vfio::Container;
//! use palisade_vfio::abi::{FaultDelivery, Offers, Vmm};
//!
//! let offers = Offers {
//!     faults: FaultDelivery::ByRing(Arc::new(EventFds::default())),
//!     ..Offers::default()
//! };
//! let vmm = Vmm::with(Container::new(set), offers);
//! let listener = UnixListener::bind("/run/palisade/alice-container.sock")?;
//! let server = Server::start(listener, vmm, Arc::new(AllowedUids::new(&[1000])))?;
//! # drop(server);
//! # Ok(())
//! # }
//! ```
//!
//! What this room will not do: it knows no request's meaning, and makes no socket.

mod channel;
mod client;
mod eventfd;
mod gate;
mod server;
mod socket;
pub mod wire;

pub use client::{
    Attaching, Capability, Client, ClientError, Events, FaultQueue, FunctionInfo, Hardware, Info,
    Invalidate, Invalidated, IommufdClient, PageRequests, Pages, PasidUse, Process, Reply,
    TableOptions, Waiting, Which,
};
pub use eventfd::EventFds;
pub use gate::{AllowedUids, Gate, NotAllowed, Peer};
pub use server::{ConnectionError, Server, Stopper, serve};
