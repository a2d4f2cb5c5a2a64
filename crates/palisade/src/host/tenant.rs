//! One tenant: its PASIDs, its unit and its functions, served to one process.

use std::{os::unix::net::UnixStream, sync::Arc};

use palisade_ioasid::{LedgerEntry, PasidSet};
use palisade_memory::GuestMemory;
use palisade_pci::Function;
use palisade_units::{Bdf, TenantId};
use palisade_vfio::Container;
use palisade_vfio_user::{ClientMemory, Connection};
use palisade_vtd::{Unit, UnitConfig, VcmdLayout};

use super::{
    gate::{Admission, Gate},
    memory::{Maps, MemoryRemoved},
    messages::Messages,
    moving::Moving,
    source::Source,
};
use crate::{
    config::{TenantConfig, VirtualCommands},
    control::{LedgerBinding, LedgerLine, LedgerTenant},
};

/// A tenant as the host sees it.
pub(crate) struct Tenant {
    name: String,
    group: Option<String>,
    quota_configured: u32,
    set: PasidSet,
    container: Container,
    gate: Arc<Gate>,
    messages: Arc<Messages>,
    moving: Arc<Moving>,
    unit: Arc<Unit>,
    unit_memory: GuestMemory,
    removed: MemoryRemoved,
}

impl Tenant {
    /// `removed` is called when memory that a device may have used is not the tenant's any more: unmapped, or gone
    /// with a connection.
    pub(crate) fn new(config: &TenantConfig, set: PasidSet, removed: MemoryRemoved) -> Arc<Self> {
        let container = Container::new(set.clone());
        let messages = Arc::new(Messages::default());
        let unit_memory = GuestMemory::new();
        let vcmd = match config.unit.virtual_commands {
            VirtualCommands::Off => VcmdLayout::Off,
            VirtualCommands::Current => VcmdLayout::Current,
            VirtualCommands::Older => VcmdLayout::Older,
        };
        let unit = Unit::new(
            UnitConfig {
                vcmd,
                caching_mode: config.unit.caching_mode,
            },
            container.clone(),
            unit_memory.clone(),
            Arc::clone(&messages) as _,
        );
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
            moving: Arc::default(),
            unit,
            unit_memory,
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

    /// Lets a connection in that is of the tenant's one process.
    pub(crate) fn admit(&self, what: &str, stream: &UnixStream) -> Option<Admission> {
        match self.gate.admit(stream) {
            Ok(admission) => {
                tracing::info!(tenant = self.name, what, pid = %admission.pid(), "connected");
                Some(admission)
            }
            Err(e) => {
                tracing::warn!(tenant = self.name, what, "a connection is refused: {e}");
                None
            }
        }
    }

    fn serve(&self, what: &str, connection: Connection) {
        match connection.run() {
            Ok(end) => tracing::info!(tenant = self.name, what, ?end, "disconnected"),
            Err(e) => tracing::warn!(tenant = self.name, what, "the connection is ended: {e}"),
        }
    }

    /// Serves the unit to one client, to its end.
    pub(crate) fn serve_unit(&self, stream: UnixStream) {
        let Some(admission) = self.admit("unit", &stream) else {
            return;
        };
        let maps = Arc::new(Maps::of_unit(self.unit_memory.clone()));
        let unit = self.moving.unit(Arc::clone(&self.unit) as _);
        match Connection::new(stream, unit, Arc::clone(&maps) as _) {
            Ok(connection) => {
                admission.registered(connection.peer());
                self.serve("unit", connection);
            }
            Err(e) => tracing::warn!(tenant = self.name, "the unit cannot be served: {e}"),
        }
        self.unit.reset();
        maps.unmap_all();
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
        self.unit.attached(guest_bdf);
        let function = self.moving.function(assigned.function()) as Arc<dyn Function>;
        let maps = Arc::new(Maps::of_function(assigned, Arc::clone(&self.removed)));
        let connection = Connection::new(stream, Arc::clone(&function), maps)?;
        admission.registered(connection.peer());
        let number = self.messages.add(function, connection.peer());
        self.serve(what, connection);
        self.messages.remove(number);
        // With the connection went its maps, and with them the assignment: the device let go, its entries
        // were drained, and then the memory was unmapped.
        (self.removed)();
        Ok(())
    }
}
