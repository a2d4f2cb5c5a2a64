//! A function of one's own beside a unit, for one machine: what who writes a device needs of a host.

use std::{io, path::PathBuf, sync::Arc};

use palisade_ioasid::{Authority, Quota};
use palisade_iommu::{FunctionHandle, Iommu, Sharing};
use palisade_memory::GuestMemory;
use palisade_pci::Function;
use palisade_units::{Bdf, TenantId};
use palisade_vfio::{Attachment, Container};
use palisade_vtd::CachingMode;

use super::{
    HostError,
    listener::{AtOnce, Listener},
    source::{Lease, LeaseError, PASID_WIDTH, Source},
    stop::Stop,
    tenant::Tenant,
};
use crate::config::{GuestIommu, SocketPermissions, TenantConfig, UnitConfig, VirtualCommands};

/// Makes the device for a guest, at its place on the host's bus. Called for each guest that connects; the
/// device is reset and dropped when it goes.
pub type MakeFunction = dyn Fn(FunctionHandle) -> io::Result<Arc<dyn Function>> + Send + Sync;

/// Where the function is on the host's bus. Guests never see it, and nothing else is there.
const HOST_BDF: Bdf = Bdf::new(0x6a, 1, 0);

/// What one machine sees, and where its VMM finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnMachine {
    /// The socket of the unit.
    pub unit_socket: PathBuf,
    /// The socket of the function.
    pub socket: PathBuf,
    /// Where the guest finds the function.
    pub guest_bdf: Bdf,
    /// How many PASIDs the guest may have at a time, one for the function itself included.
    pub quota: u32,
}

/// A running host with one function, which one machine at a time has for itself. Dropping it stops it.
pub struct OwnHost {
    stop: Arc<Stop>,
    tenant: Arc<Tenant>,
    listeners: Vec<Listener>,
}

impl OwnHost {
    /// Serves a unit and a function; on return both sockets are open. The unit asks for caching mode and
    /// leaves PASIDs to the guest.
    ///
    /// # Errors
    /// [`HostError`]; nothing is left behind then.
    pub fn serve(machine: &OwnMachine, make: Box<MakeFunction>) -> Result<Self, HostError> {
        let name = "own";
        let parent = |source| HostError::Parent {
            parent: name.to_owned(),
            source,
        };
        let authority = Authority::new(&[]);
        let function = Iommu::audited_by(&authority)
            .add_function(HOST_BDF, PASID_WIDTH)
            .map_err(parent)?;
        let set = authority
            .create_set(TenantId::new(1), Quota::Exactly(machine.quota))
            .map_err(|source| HostError::Quota {
                tenant: name.to_owned(),
                source,
            })?;
        let config = TenantConfig {
            name: name.to_owned(),
            quota: machine.quota,
            group: None,
            iommu: GuestIommu::Unit(UnitConfig {
                socket: machine.unit_socket.clone(),
                guest_bdf: machine.guest_bdf,
                virtual_commands: VirtualCommands::Off,
                caching_mode: CachingMode::default(),
            }),
            functions: Vec::new(),
        };
        // Ports are the device's own: it lets go of stale memory itself.
        let tenant = Tenant::new(&config, set, Arc::new(|| {}));
        let mut host = Self {
            stop: Arc::new(Stop::new().map_err(HostError::Event)?),
            tenant: Arc::clone(&tenant),
            listeners: Vec::new(),
        };
        let served = Arc::clone(&tenant);
        host.listen(&machine.unit_socket, "unit", move |stream| {
            served.serve_iommu(stream);
        })?;
        let (source, guest_bdf) = (
            Source::Own(OwnFunction { function, make }),
            machine.guest_bdf,
        );
        host.listen(&machine.socket, "function", move |stream| {
            if let Some(admission) = tenant.admit(&guest_bdf.to_string(), &stream) {
                tenant.serve_function(guest_bdf, &source, stream, &admission);
            }
        })?;
        Ok(host)
    }

    fn listen(
        &mut self,
        path: &std::path::Path,
        name: &str,
        serve: impl Fn(std::os::unix::net::UnixStream) + Send + Sync + 'static,
    ) -> Result<(), HostError> {
        let opened = Listener::open(
            path,
            SocketPermissions::PRIVATE,
            name,
            &self.stop,
            AtOnce::One,
            serve,
        );
        self.listeners
            .push(opened.map_err(|source| HostError::Socket {
                path: path.to_owned(),
                source,
            })?);
        Ok(())
    }
}

impl Drop for OwnHost {
    fn drop(&mut self) {
        self.stop.ring();
        self.tenant.stop();
        for listener in &mut self.listeners {
            listener.join();
        }
    }
}

/// Where a function of one's own comes from.
pub(crate) struct OwnFunction {
    function: FunctionHandle,
    make: Box<MakeFunction>,
}

impl OwnFunction {
    /// Makes the device and gives it to a tenant, for itself: the guest's PASIDs are what it programs, and
    /// the function's own table decides what they mean.
    pub(super) fn assign(
        &self,
        container: &Container,
        guest_bdf: Bdf,
        memory: GuestMemory,
    ) -> Result<OwnLease, LeaseError> {
        let place = self.function.clone();
        let attachment = container.attach(guest_bdf, place.clone(), Sharing::Exclusive, memory)?;
        let function = (self.make)(place)?;
        Ok(OwnLease {
            function,
            attachment,
        })
    }
}

/// A function of one's own that a tenant has.
pub(super) struct OwnLease {
    function: Arc<dyn Function>,
    attachment: Attachment,
}

impl Lease for OwnLease {
    fn function(&self) -> Arc<dyn Function> {
        Arc::clone(&self.function)
    }

    fn attachment(&self) -> &Attachment {
        &self.attachment
    }
}

impl Drop for OwnLease {
    fn drop(&mut self) {
        // First the work, then what it works on.
        self.function.reset();
        self.attachment.detach();
    }
}
