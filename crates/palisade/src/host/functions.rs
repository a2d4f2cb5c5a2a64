//! All functions of a host: those of its configuration, and those that the operator made while it runs.
//!
//! Each has a part of its parent from the moment on that it is here, whether a client uses it or not, so that
//! nobody is promised what another has (R20, R22).

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use palisade_mdev::MdevError;
use palisade_units::{Bdf, TenantId};
use rustix::io::Errno;
use uuid::Uuid;

use super::{
    function::{Door, Function},
    source::{Sources, WireError},
    tenant::Tenant,
};
use crate::{
    config::{
        FunctionConfig, FunctionKind, GuestIommu, SOCKET_PATH_MAX_BYTES, first_free, is_on_root_bus,
    },
    control::{Mdevs, Origin, Refusal},
};

/// A tenant and whose its guest's IOMMU is.
pub(super) struct Guest {
    pub(super) tenant: Arc<Tenant>,
    pub(super) iommu: GuestIommu,
}

/// What is asked for at run time.
pub(super) struct Wanted<'a> {
    pub(super) parent: &'a str,
    pub(super) kind: FunctionKind,
    pub(super) tenant: &'a str,
    pub(super) uuid: Option<&'a str>,
    pub(super) socket: Option<&'a str>,
    pub(super) guest_bdf: Option<&'a str>,
}

/// The functions by UUID, and what more can be made of.
pub(crate) struct Functions {
    sources: Sources,
    guests: Vec<Guest>,
    by_uuid: Mutex<BTreeMap<Uuid, Entry>>,
}

struct Entry {
    function: Arc<Function>,
    door: Option<Door>,
}

impl Functions {
    pub(super) fn new(sources: Sources, guests: Vec<Guest>) -> Self {
        Self {
            sources,
            guests,
            by_uuid: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uuid, Entry>> {
        // Single insertions and removals: a panic elsewhere leaves the map whole.
        self.by_uuid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<Arc<Function>> {
        let entries = self.lock();
        let functions = entries.values().map(|entry| &entry.function);
        functions.map(Arc::clone).collect()
    }

    pub(super) fn get(&self, uuid: Uuid) -> Option<Arc<Function>> {
        let entries = self.lock();
        entries.get(&uuid).map(|entry| Arc::clone(&entry.function))
    }

    /// Takes a function's part of its parent. Nobody can connect yet.
    pub(super) fn add(
        &self,
        tenant: &Arc<Tenant>,
        config: FunctionConfig,
        origin: Origin,
    ) -> Result<(), WireError> {
        let source = self.sources.add(&config, tenant.id())?;
        let uuid = config.uuid;
        let function = Function::new(config, origin, Arc::clone(tenant), source);
        let entry = Entry {
            function,
            door: None,
        };
        self.lock().insert(uuid, entry);
        Ok(())
    }

    /// Opens a function's socket.
    pub(super) fn open(&self, uuid: Uuid) -> io::Result<()> {
        let Some(function) = self.get(uuid) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let door = Door::open(&function)?;
        if let Some(entry) = self.lock().get_mut(&uuid) {
            entry.door = Some(door);
        }
        Ok(())
    }

    /// Takes a function away that nobody can connect to any more; on return its part of the parent is free.
    pub(super) fn take(&self, uuid: Uuid) {
        let Some(Entry { function, door }) = self.lock().remove(&uuid) else {
            return;
        };
        if let Some(door) = door {
            door.close();
        }
        if let Err(e) = self.sources.remove(&function.source) {
            tracing::error!(%uuid, "its part of the parent cannot be given back: {e}");
        }
    }

    /// The whole configuration of what is wanted, which may be added then.
    pub(super) fn resolve(
        &self,
        wanted: &Wanted<'_>,
    ) -> Result<(Arc<Tenant>, FunctionConfig), Refusal> {
        let guest = self
            .guests
            .iter()
            .find(|g| g.tenant.name() == wanted.tenant);
        let Some(guest) = guest else {
            let names: Vec<_> = self.guests.iter().map(|g| g.tenant.name()).collect();
            return Err(no_such("tenant", wanted.tenant, &names));
        };
        if !self.sources.parents().any(|name| name == wanted.parent) {
            let names: Vec<_> = self.sources.parents().collect();
            return Err(no_such("parent", wanted.parent, &names));
        }
        let functions = self.all();
        let uuid = match wanted.uuid {
            Some(text) => uuid_of(text)?,
            None => Uuid::new_v4(),
        };
        if let Some(other) = functions.iter().find(|f| f.config.uuid == uuid) {
            let what = format!("there is a function {uuid} already, of {}", other.holder());
            return Err(Refusal::new(Errno::EXIST, what));
        }
        let config = FunctionConfig {
            parent: wanted.parent.to_owned(),
            kind: wanted.kind,
            uuid,
            socket: socket(&functions, guest.iommu.socket(), wanted.socket, uuid)?,
            guest_bdf: place(&functions, guest, wanted.guest_bdf)?,
        };
        Ok((Arc::clone(&guest.tenant), config))
    }

    /// Why there is no room for a function of a parent, with the names of those who have it.
    pub(super) fn no_room(&self, parent: &str, error: &WireError) -> Refusal {
        let WireError::Mdev(error) = error else {
            return Refusal::new(Errno::NOENT, error.to_string());
        };
        let errno = Errno::from_raw_os_error(error.errno());
        let what = match error {
            MdevError::HeldExclusively { holder, .. } => {
                let holder = self.name_of(*holder);
                format!(
                    "{parent} belongs to {holder} exclusively: remove {} first",
                    self.names_on(parent)
                )
            }
            MdevError::Sliced { .. } => format!(
                "{parent} is shared, by {}: remove them first",
                self.names_on(parent)
            ),
            MdevError::NoFreeQueue { queues, .. } => format!(
                "{parent} has no free queue of its {queues}; they are with {}: remove one, or share a queue",
                self.names_on(parent)
            ),
            other => other.to_string(),
        };
        Refusal::new(errno, what)
    }

    fn name_of(&self, tenant: TenantId) -> String {
        let found = self.guests.iter().find(|g| g.tenant.id() == tenant);
        found.map_or_else(
            || tenant.to_string(),
            |g| format!("tenant {:?}", g.tenant.name()),
        )
    }

    /// The functions of a parent, and whose they are.
    fn names_on(&self, parent: &str) -> String {
        let functions = self.all();
        let on_it = functions.iter().filter(|f| f.config.parent == parent);
        let names: Vec<_> = on_it
            .map(|f| format!("{} of {}", f.config.uuid, f.holder()))
            .collect();
        names.join(", ")
    }

    /// All of them, for the operator.
    pub(super) fn lines(&self) -> Mdevs {
        // Under the lock: a function that is removed is then nobody's any more.
        let entries = self.lock();
        let mdevs = entries.values().map(|entry| entry.function.line());
        Mdevs {
            mdevs: mdevs.collect(),
        }
    }

    /// Lets no more clients come.
    pub(super) fn ring(&self) {
        self.lock()
            .values()
            .filter_map(|entry| entry.door.as_ref())
            .for_each(Door::ring);
    }

    /// Waits for the clients that are left, until this moment at the latest, and takes all sockets away.
    pub(super) fn close(&self, deadline: Instant) {
        self.ring();
        let entries = std::mem::take(&mut *self.lock());
        for door in entries.into_values().filter_map(|entry| entry.door) {
            door.close_by(deadline);
        }
    }
}

fn no_such(what: &str, name: &str, names: &[&str]) -> Refusal {
    let there = names.join(", ");
    Refusal::new(
        Errno::NOENT,
        format!("there is no {what} {name:?}; there is {there}"),
    )
}

/// A UUID as the operator writes it.
pub(super) fn uuid_of(text: &str) -> Result<Uuid, Refusal> {
    Uuid::parse_str(text)
        .map_err(|e| Refusal::new(Errno::INVAL, format!("{text:?} is no UUID: {e}")))
}

/// The socket that is wanted, or one beside this other.
fn socket(
    functions: &[Arc<Function>],
    beside: &Path,
    wanted: Option<&str>,
    uuid: Uuid,
) -> Result<PathBuf, Refusal> {
    let invalid = |what: String| Refusal::new(Errno::INVAL, what);
    let path = match wanted {
        Some(text) if !Path::new(text).is_absolute() => {
            return Err(invalid(format!(
                "socket {text:?}: an absolute path is allowed"
            )));
        }
        Some(text) => PathBuf::from(text),
        None => {
            let beside = beside.with_file_name(format!("{uuid}.sock"));
            std::path::absolute(&beside)
                .map_err(|e| invalid(format!("{}: {e}", beside.display())))?
        }
    };
    if path.as_os_str().len() > SOCKET_PATH_MAX_BYTES || path.to_str().is_none() {
        return Err(invalid(format!(
            "socket {path:?}: a path of at most {SOCKET_PATH_MAX_BYTES} bytes in UTF-8 is allowed"
        )));
    }
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let taken = functions
        .iter()
        .find(|f| absolute(&f.config.socket) == path);
    match taken {
        None => Ok(path),
        Some(other) => {
            let (socket, uuid, holder) = (path.display(), other.config.uuid, other.holder());
            let what = format!("{socket} is the socket of {uuid} already, of {holder}");
            Err(Refusal::new(Errno::EXIST, what))
        }
    }
}

/// The place that is wanted in a guest, or the first free one.
fn place(functions: &[Arc<Function>], guest: &Guest, wanted: Option<&str>) -> Result<Bdf, Refusal> {
    let tenant = guest.tenant.id();
    let at = |bdf: Bdf| {
        let mut own = functions.iter().filter(|f| f.tenant.id() == tenant);
        own.find(|f| f.config.guest_bdf == bdf)
    };
    let Some(text) = wanted else {
        let is_taken = |bdf: Bdf| guest.iommu.stands_at(bdf) || at(bdf).is_some();
        return first_free(is_taken).ok_or_else(|| {
            let what = format!(
                "no place is left on the root bus of {}: name a function of a device, as in 00:11.1",
                guest.tenant.name()
            );
            Refusal::new(Errno::NOSPC, what)
        });
    };
    let bdf: Bdf = text
        .parse()
        .map_err(|e| Refusal::new(Errno::INVAL, format!("guest_bdf {text:?}: {e}")))?;
    if !is_on_root_bus(bdf) {
        let what = format!("guest_bdf {bdf}: only the root bus, 00, is allowed");
        return Err(Refusal::new(Errno::INVAL, what));
    }
    let other = match at(bdf) {
        Some(other) => other.config.uuid.to_string(),
        None if guest.iommu.stands_at(bdf) => "its unit".to_owned(),
        None => return Ok(bdf),
    };
    let tenant = guest.tenant.name();
    let what = format!("guest_bdf {bdf} is taken in tenant {tenant:?} by {other}");
    Err(Refusal::new(Errno::EXIST, what))
}
