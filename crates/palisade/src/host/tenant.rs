//! One tenant: its PASIDs, its unit and its functions, served to one process.

use std::{
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use palisade_ioasid::{LedgerEntry, PasidSet};
use palisade_memory::GuestMemory;
use palisade_pci::Function;
use palisade_units::{Bdf, TenantId};
use palisade_vfio::Container;
use palisade_vfio_user::{ClientMemory, Connection};

use super::{
    gate::{Admission, Gate},
    memory::{Maps, MemoryRemoved},
    messages::Messages,
    moving::Moving,
    source::Source,
    unit::ServedUnit,
    vmm::ServedVmm,
};
use crate::{
    config::{GuestIommu, SocketPermissions, TenantConfig},
    control::{LedgerBinding, LedgerLine, LedgerTenant},
};

/// Whose the IOMMU is that the guest sees.
enum Iommu {
    Unit(ServedUnit),
    Vmm(ServedVmm),
}

/// A tenant as the host sees it.
pub(crate) struct Tenant {
    name: String,
    group: Option<String>,
    quota_configured: u32,
    set: PasidSet,
    container: Container,
    gate: Arc<Gate>,
    messages: Arc<Messages>,
    refused: AtomicU64,
    moving: Arc<Moving>,
    iommu: Iommu,
    removed: MemoryRemoved,
}

impl Tenant {
    /// `removed` is called when memory that a device may have used is not the tenant's any more: unmapped, or gone
    /// with a connection.
    pub(crate) fn new(config: &TenantConfig, set: PasidSet, removed: MemoryRemoved) -> Arc<Self> {
        let container = Container::new(set.clone());
        let messages = Arc::new(Messages::default());
        let iommu = match &config.iommu {
            GuestIommu::Unit(unit) => {
                let signal = Arc::clone(&messages) as _;
                Iommu::Unit(ServedUnit::new(unit, container.clone(), signal))
            }
            GuestIommu::Container(socket) => Iommu::Vmm(ServedVmm::new(socket, container.clone())),
        };
        let (name, all, gone) = (config.name.clone(), container.clone(), Arc::clone(&removed));
        let gate = Gate::new(
            &config.name,
            Box::new(move || {
                all.close();
                gone();
                tracing::info!(tenant = name, "gone, and all it held is given back");
            }),
        );
        Arc::new(Self {
            name: config.name.clone(),
            group: config.group.clone(),
            quota_configured: config.quota,
            set,
            container,
            gate,
            messages,
            refused: AtomicU64::new(0),
            moving: Arc::default(),
            iommu,
            removed,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn id(&self) -> TenantId {
        self.set.tenant()
    }

    /// The process that it is at the moment.
    pub(crate) fn process(&self) -> Option<i32> {
        self.gate.holder().map(|pid| pid.as_raw_nonzero().get())
    }

    /// Ends all connections.
    pub(crate) fn stop(&self) {
        self.gate.stop();
    }

    /// The tenant's part of the ledger, from its own entries.
    pub(crate) fn ledger(&self, own: &[LedgerEntry]) -> LedgerTenant {
        LedgerTenant {
            name: self.name.clone(),
            pid: self.process(),
            group: self.group.clone(),
            quota: self.set.quota(),
            quota_configured: self.quota_configured,
            pasids: own
                .iter()
                .map(|e| LedgerLine {
                    pasid: e.pasid.get(),
                    guest: e.guest.map(palisade_units::GuestPasid::get),
                    references: e.references,
                    bound: e.bindings.iter().map(LedgerBinding::from).collect(),
                    state: e.state.to_string(),
                    since_ns: e.since.as_nanos(),
                })
                .collect(),
        }
    }

    /// Who may open the sockets of its functions, and that of its IOMMU.
    pub(crate) fn permissions(&self) -> SocketPermissions {
        match &self.iommu {
            Iommu::Unit(_) => SocketPermissions::PRIVATE,
            Iommu::Vmm(vmm) => vmm.permissions(),
        }
    }

    /// Lets a connection in that is of the tenant's one process, and of a user who is allowed.
    pub(crate) fn admit(&self, what: &str, stream: &UnixStream) -> Option<Admission> {
        if let Iommu::Vmm(vmm) = &self.iommu
            && let Err(e) = vmm.check(stream)
        {
            self.refuse(what, &e);
            return None;
        }
        match self.gate.admit(stream) {
            Ok(admission) => {
                tracing::info!(tenant = self.name, what, pid = %admission.pid(), "connected");
                Some(admission)
            }
            Err(e) => {
                self.refuse(what, &e);
                None
            }
        }
    }

    fn refuse(&self, what: &str, why: &dyn std::fmt::Display) {
        let count = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        // Whoever may open a socket can cause this at will: say it at 1, 2, 4, 8 …
        if count.is_power_of_two() {
            let tenant = &self.name;
            tracing::warn!(tenant, what, count, "a connection is refused: {why}");
        }
    }

    fn serve(&self, what: &str, connection: Connection) {
        match connection.run() {
            Ok(end) => tracing::info!(tenant = self.name, what, ?end, "disconnected"),
            Err(e) => tracing::warn!(tenant = self.name, what, "the connection is ended: {e}"),
        }
    }

    /// Serves its IOMMU to one client, to its end: the unit, or the requests of a VMM.
    pub(crate) fn serve_iommu(&self, stream: UnixStream) {
        match &self.iommu {
            Iommu::Unit(unit) => self.serve_unit(unit, stream),
            Iommu::Vmm(vmm) => self.serve_vmm(vmm, &stream),
        }
    }

    fn serve_unit(&self, unit: &ServedUnit, stream: UnixStream) {
        let Some(admission) = self.admit("unit", &stream) else {
            return;
        };
        let maps = unit.maps();
        match Connection::new(
            stream,
            self.moving.unit(unit.function()),
            Arc::clone(&maps) as _,
        ) {
            Ok(connection) => {
                let peer = connection.peer();
                admission.registered(move || peer.stop());
                self.serve("unit", connection);
            }
            Err(e) => tracing::warn!(tenant = self.name, "the unit cannot be served: {e}"),
        }
        unit.function().reset();
        maps.unmap_all();
    }

    fn serve_vmm(&self, vmm: &ServedVmm, stream: &UnixStream) {
        let Some(admission) = self.admit("container", stream) else {
            return;
        };
        match stream.try_clone() {
            Ok(ours) => admission.registered(move || {
                // Fails only where the client was faster.
                let _ = ours.shutdown(Shutdown::Both);
            }),
            Err(e) => {
                tracing::warn!(tenant = self.name, "the requests cannot be served: {e}");
                return;
            }
        }
        match vmm.serve(stream) {
            Ok(()) => tracing::info!(tenant = self.name, what = "container", "disconnected"),
            Err(e) => tracing::warn!(tenant = self.name, "the connection is ended: {e}"),
        }
    }

    /// Serves a function to a client that was let in, to its end.
    pub(crate) fn serve_function(
        &self,
        guest_bdf: Bdf,
        source: &Source,
        stream: UnixStream,
        admission: &Admission,
    ) {
        let what = guest_bdf.to_string();
        if let Err(e) = self.function(guest_bdf, &what, source, stream, admission) {
            tracing::warn!(
                tenant = self.name,
                what,
                "the function cannot be served: {e:#}"
            );
        }
    }

    fn function(
        &self,
        guest_bdf: Bdf,
        what: &str,
        source: &Source,
        stream: UnixStream,
        admission: &Admission,
    ) -> anyhow::Result<()> {
        let assigned = source.assign(&self.container, guest_bdf, GuestMemory::new())?;
        if let Iommu::Unit(unit) = &self.iommu {
            unit.attached(guest_bdf);
        }
        let function = self.moving.function(assigned.function()) as Arc<dyn Function>;
        let maps = Arc::new(Maps::of_function(assigned, Arc::clone(&self.removed)));
        let connection = Connection::new(stream, Arc::clone(&function), maps)?;
        let connection = match &self.iommu {
            Iommu::Unit(_) => connection,
            // Whoever was let in may make requests.
            Iommu::Vmm(vmm) => connection.offer_pasids(vmm.offer()),
        };
        let peer = connection.peer();
        admission.registered(move || peer.stop());
        let number = self.messages.add(function, connection.peer());
        self.serve(what, connection);
        self.messages.remove(number);
        // With the connection went its maps, and with them the assignment: the device let go, its entries
        // were drained, and then the memory was unmapped.
        (self.removed)();
        Ok(())
    }
}
