//! The requests of a VMM that brings an IOMMU of its own.

use std::{os::unix::net::UnixStream, sync::Arc};

use palisade_container::{AllowedUids, ConnectionError, EventFds, Gate, NotAllowed, Peer};
use palisade_units::PASID_BITS;
use palisade_vfio::{
    Container,
    abi::{FaultDelivery, Offers, StageFormat, Unit, Vmm},
};
use palisade_vfio_user::PasidOffer;
use palisade_vtd::spec::capability::{CAPABILITIES, EXTENDED};

use super::requests;
use crate::config::{ContainerConfig, SocketPermissions};

/// A first stage of five levels.
const ADDRESS_BITS: u16 = 57;

pub(super) struct ServedVmm {
    vmm: Vmm,
    allowed: AllowedUids,
    permissions: SocketPermissions,
}

/// Why a client is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    #[error("the process at the other end cannot be known: {0}")]
    Unknown(#[from] rustix::io::Errno),
}

impl ServedVmm {
    /// The functions are those that the VMM connects to, over sockets of their own.
    pub(super) fn new(config: &ContainerConfig, container: Container) -> Self {
        let unit = Unit {
            format: StageFormat::VtD,
            address_bits: ADDRESS_BITS,
            pasid_bits: u16::try_from(PASID_BITS).unwrap_or(u16::MAX),
            cap: CAPABILITIES.into_bits(),
            ecap: EXTENDED.into_bits(),
        };
        let offers = Offers {
            units: vec![unit],
            faults: FaultDelivery::ByRing(Arc::new(EventFds::default())),
            ..Offers::default()
        };
        let allowed = match &config.uids {
            Some(uids) => AllowedUids::new(uids),
            None => AllowedUids::own(),
        };
        Self {
            vmm: Vmm::with(container, offers),
            allowed,
            permissions: config.permissions,
        }
    }

    /// Who may open its socket, and those of its functions.
    pub(super) fn permissions(&self) -> SocketPermissions {
        self.permissions
    }

    /// Whether the process at the other end is allowed here.
    pub(super) fn check(&self, stream: &UnixStream) -> Result<(), Refused> {
        Ok(self.allowed.check(Peer::of(stream)?)?)
    }

    /// What a connection of one of its functions offers.
    pub(super) fn offer(&self) -> PasidOffer {
        requests::offer(&self.vmm)
    }

    /// Serves one client to its end.
    pub(super) fn serve(&self, stream: &UnixStream) -> Result<(), ConnectionError> {
        palisade_container::serve(stream, &self.vmm)
    }
}
