//! A running host: the rooms below, with threads, sockets and processes around them.

mod bell;
mod books;
mod changing;
mod engines;
mod function;
mod functions;
mod gate;
mod groups;
mod limits;
mod listener;
mod mdevs;
mod memory;
mod messages;
mod moving;
mod own;
mod peer;
mod requests;
mod restore;
mod source;
mod stop;
mod tenant;
mod unit;
mod vmm;

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_ioasid::{Audit, IoasidError, Quota};
use palisade_iommu::{Iommu, IommuError};
use palisade_units::TenantId;

use crate::{
    config::{GuestIommu, HostConfig, SocketPermissions},
    control::{self, Books, Origin, WallClock},
};

use books::Shared;
use engines::Engines;
use functions::{Functions, Guest};
use limits::{Limits, Member};
use listener::{AtOnce, Listener};
pub use own::{MakeFunction, OwnHost, OwnMachine};
pub use restore::RestoreError;
use restore::Restored;
use source::Sources;
pub use source::WireError;
use stop::Stop;
use tenant::Tenant;

/// How many events the operator can look back on; each takes about 100 bytes.
const KEPT_EVENTS: usize = 65_536;
/// How long the end of a host waits for connections that it has ended.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a host could not be started.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A socket.
    #[error("{}: cannot be served", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A thread.
    #[error("a thread could not be started")]
    Thread(#[from] io::Error),
    /// The limits, or the state that has some of them.
    #[error(transparent)]
    Limits(#[from] RestoreError),
    /// A quota.
    #[error("tenant {tenant:?}")]
    Quota {
        /// The tenant.
        tenant: String,
        /// Why.
        source: IoasidError,
    },
    /// A parent's function.
    #[error("parent {parent:?}")]
    Parent {
        /// The parent.
        parent: String,
        /// Why.
        source: IommuError,
    },
    /// A tenant's function.
    #[error("tenant {tenant:?}, function {uuid}")]
    Function {
        /// The tenant.
        tenant: String,
        /// The function.
        uuid: uuid::Uuid,
        /// Why.
        source: WireError,
    },
    /// The machine would not give what threads are stopped with.
    #[error("an event descriptor: {0}")]
    Event(rustix::io::Errno),
}

/// A running host. Dropping it stops it.
pub struct Host {
    shared: Arc<Shared>,
    stop: Arc<Stop>,
    listeners: Vec<Listener>,
    engines: Vec<Engines>,
}

impl Host {
    /// Starts everything that a configuration names; on return all sockets are open.
    ///
    /// # Errors
    /// [`HostError`]; nothing is left behind then.
    pub fn start(config: &HostConfig) -> Result<Self, HostError> {
        let audit = Audit {
            clock: Arc::new(WallClock),
            kept_events: KEPT_EVENTS,
        };
        let restored = Restored::new(config, audit)?;
        let authority = restored.authority.clone();
        let iommu = Iommu::audited_by(&authority);
        let mut engines = Vec::new();
        let mut parents = BTreeMap::new();
        for parent in &config.parents {
            let (wired, threads) = source::parent(&iommu, parent)?;
            engines.push(threads);
            parents.insert(parent.name.clone(), wired);
        }
        let sources = Sources::new(parents);
        let bells: Vec<_> = engines.iter().map(Engines::bell).collect();
        let mut guests = Vec::new();
        let mut members = Vec::new();
        for (number, tenant) in (1..).zip(&config.tenants) {
            let set = authority
                .create_set_in(
                    restored.changing.groups.id_of(tenant.group.as_deref()),
                    TenantId::new(number),
                    Quota::Exactly(restored.quota(tenant)),
                )
                .map_err(|source| HostError::Quota {
                    tenant: tenant.name.clone(),
                    source,
                })?;
            members.push(Member {
                name: tenant.name.clone(),
                set: set.clone(),
                quota: tenant.quota,
                group: tenant.group.clone(),
            });
            let bells = bells.clone();
            let removed = Arc::new(move || bells.iter().for_each(|bell| bell.memory_removed()));
            guests.push(Guest {
                tenant: Tenant::new(tenant, set, removed),
                iommu: tenant.iommu.clone(),
            });
        }
        let tenants: Vec<_> = guests.iter().map(|g| Arc::clone(&g.tenant)).collect();
        let functions = Functions::new(sources, guests);
        for (running, tenant) in tenants.iter().zip(&config.tenants) {
            for function in &tenant.functions {
                functions
                    .add(running, function.clone(), Origin::Configuration)
                    .map_err(|source| HostError::Function {
                        tenant: tenant.name.clone(),
                        uuid: function.uuid,
                        source,
                    })?;
            }
        }
        let (mut changing, reserved) = (restored.changing, &config.reserved);
        functions.restore(config, &mut changing);
        let shared = Arc::new(Shared {
            limits: Limits::new(authority.clone(), members, reserved, changing),
            authority,
            tenants,
            functions,
        });
        let stop = Arc::new(Stop::new().map_err(HostError::Event)?);
        let mut host = Self {
            shared,
            stop,
            listeners: Vec::new(),
            engines,
        };
        for (tenant, config) in host.shared.tenants.clone().into_iter().zip(&config.tenants) {
            // A VMM has a connection for each of its parts that make requests.
            let at_once = match &config.iommu {
                GuestIommu::Unit(_) => AtOnce::One,
                GuestIommu::Container(_) => AtOnce::Several,
            };
            let permissions = tenant.permissions();
            let name = format!("{}-iommu", config.name);
            let serve = move |stream| tenant.serve_iommu(stream);
            host.listen(config.iommu.socket(), permissions, &name, at_once, serve)?;
        }
        for function in config.tenants.iter().flat_map(|t| &t.functions) {
            let opened = host.shared.functions.open(function.uuid);
            opened.map_err(|source| HostError::Socket {
                path: function.socket.clone(),
                source,
            })?;
        }
        host.shared.functions.open_restored();
        if let Some(path) = &config.control {
            let shared = Arc::clone(&host.shared);
            let stop = Arc::clone(&host.stop);
            let private = SocketPermissions::PRIVATE;
            host.listen(path, private, "control", AtOnce::Several, move |stream| {
                if let Err(e) = control::answer(&stream, stop.fd(), &*shared) {
                    tracing::warn!("a question of the operator's: {e:#}");
                }
            })?;
        }
        Ok(host)
    }

    fn listen(
        &mut self,
        path: &std::path::Path,
        permissions: SocketPermissions,
        name: &str,
        at_once: AtOnce,
        serve: impl Fn(std::os::unix::net::UnixStream) + Send + Sync + 'static,
    ) -> Result<(), HostError> {
        let listener = Listener::open(path, permissions, name, &self.stop, at_once, serve)
            .map_err(|source| HostError::Socket {
                path: path.to_owned(),
                source,
            })?;
        self.listeners.push(listener);
        Ok(())
    }

    /// How many PASIDs are out.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.shared.authority.outstanding()
    }

    /// Who holds which PASID.
    #[must_use]
    pub fn ledger(&self) -> control::Ledger {
        self.shared.ledger()
    }

    /// Ends all connections, gives back what the tenants hold, and removes the sockets. A connection that does not come to
    /// its end in ten seconds, as one that closes what its client keeps from being closed, is left to the end of the
    /// process.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.ring();
        self.shared.functions.ring();
        for tenant in &self.shared.tenants {
            tenant.stop();
        }
        // A connection's end waits for work in flight: the engines stop after it.
        let deadline = Instant::now() + PATIENCE;
        for listener in &mut self.listeners {
            listener.join_by(deadline);
        }
        // Nobody makes another one any more.
        self.shared.functions.close(deadline);
        for engines in &mut self.engines {
            engines.stop();
        }
    }
}
