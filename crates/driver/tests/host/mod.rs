//! A host as small as can be: one thread for each connection, one for each engine.

use palisade_driver::FunctionAddress;
use palisade_dsa::{
    Accelerator, Direct, Doorbell, DsaFunction, Engine, EntryPoint, Identity, PasidPolicy,
    PasidRefused, Progress, Shape,
};
use palisade_ioasid::{Authority, PasidSet, Quota};
use palisade_iommu::{Cached, FunctionHandle, Iommu, PasidEnable, PasidSupport, Sharing};
use palisade_memory::{Backing, Errno, GuestMemory, Protection};
use palisade_pci::Function;
use palisade_units::{Bdf, Gpa, GuestPasid, PASID_BITS, PasidTag, TenantId};
use palisade_vfio::{Attachment, Container, GuestScope};
use palisade_vfio_user::{ClientMemory, Connection, PeerHandle};
use palisade_vtd::{MessageSignal, Unit, UnitConfig, VcmdLayout};
use std::{
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex},
    thread,
};
use tempfile::TempDir;

pub(crate) struct Host {
    pub(crate) authority: Authority,
    pub(crate) iommu: Iommu,
    folder: TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self {
            authority: Authority::new(&[]),
            iommu: Iommu::new(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn parent(&self, bdf: Bdf, queues: u8) -> Parent {
        let width = u8::try_from(PASID_BITS).unwrap();
        let function = self
            .iommu
            .add_function(bdf, PasidSupport::Width(width))
            .unwrap();
        let bell = Arc::new(Bell::default());
        let accelerator = Accelerator::new(queues, Arc::clone(&bell) as Arc<dyn Doorbell>);
        let engine = accelerator.engine(function.port());
        let thread_bell = Arc::clone(&bell);
        thread::spawn(move || work(engine, &thread_bell));
        Parent {
            function,
            accelerator,
            bell,
        }
    }

    pub(crate) fn tenant(&self, number: u32, vcmd: VcmdLayout) -> HostTenant {
        let set = self
            .authority
            .create_set(TenantId::new(number), Quota::Exactly(100))
            .unwrap();
        let container = Container::new(set.clone());
        let messages = Arc::new(Messages::default());
        let memory = GuestMemory::new();
        let signal = Arc::clone(&messages) as Arc<dyn MessageSignal>;
        let unit = Unit::new(
            UnitConfig {
                vcmd,
                ..UnitConfig::default()
            },
            container.clone(),
            memory.clone(),
            signal,
        );
        let socket = self.folder.path().join(format!("unit-{number}"));
        serve(&socket, unit, Arc::new(memory), |_| {});
        HostTenant {
            set,
            container,
            unit_socket: socket,
            messages,
            folder: self.folder.path().to_owned(),
        }
    }
}

pub(crate) struct Parent {
    pub(crate) function: FunctionHandle,
    pub(crate) accelerator: Accelerator,
    bell: Arc<Bell>,
}

impl Drop for Parent {
    fn drop(&mut self) {
        self.bell.stop();
    }
}

pub(crate) struct HostTenant {
    pub(crate) set: PasidSet,
    pub(crate) container: Container,
    pub(crate) unit_socket: PathBuf,
    messages: Arc<Messages>,
    folder: PathBuf,
}

impl HostTenant {
    /// All of a parent, with nothing between the tenant and the device.
    pub(crate) fn exclusive(&self, parent: &Parent, bdf: Bdf) -> FunctionAddress {
        let queues = 0..parent.accelerator.queues();
        let policy = Direct::new(parent.function.clone());
        self.function(parent, bdf, queues, Sharing::Exclusive, policy)
    }

    /// Some queues of a parent, where each PASID is the tenant's or refused.
    pub(crate) fn mediated(
        &self,
        parent: &Parent,
        bdf: Bdf,
        queues: std::ops::Range<u8>,
    ) -> FunctionAddress {
        let policy = Translating {
            container: self.container.clone(),
            bdf,
        };
        self.function(parent, bdf, queues, Sharing::Mediated, policy)
    }

    fn function<P: PasidPolicy + 'static>(
        &self,
        parent: &Parent,
        bdf: Bdf,
        queues: std::ops::Range<u8>,
        sharing: Sharing,
        policy: P,
    ) -> FunctionAddress {
        let memory = GuestMemory::new();
        let attachment = self
            .container
            .attach(bdf, parent.function.clone(), sharing, memory)
            .unwrap();
        let lanes = queues
            .map(|queue| parent.accelerator.lane(queue).unwrap())
            .collect();
        let function = Arc::new(DsaFunction::new(policy, lanes, Shape::default()).unwrap());
        let socket = self
            .folder
            .join(format!("{}-{bdf}", self.set.tenant().get()));
        let messages = Arc::clone(&self.messages);
        serve(&socket, function, Arc::new(Maps(attachment)), move |peer| {
            messages.0.lock().unwrap().push(peer);
        });
        FunctionAddress { bdf, socket }
    }
}

/// Mediation in its simplest form: the guest's number means what the tenant's set says, or nothing.
struct Translating {
    container: Container,
    bdf: Bdf,
}

impl PasidPolicy for Translating {
    fn resolve(
        &self,
        pasid: Option<GuestPasid>,
        _at: EntryPoint,
    ) -> Result<Identity, PasidRefused> {
        let hold = match pasid {
            Some(pasid) => self.container.translate(self.bdf, pasid),
            None => self.container.default_hold(self.bdf),
        };
        let hold = hold.map_err(|_| PasidRefused)?;
        Ok(Identity {
            tag: Some(PasidTag::from(hold.pasid())),
            hold: Some(hold),
        })
    }

    fn meaning_now(&self, pasid: GuestPasid) -> Option<PasidTag> {
        let hold = self.container.set().find_guest(pasid).ok()?;
        Some(PasidTag::from(hold.pasid()))
    }

    fn resolve_stale(&self, _pasid: GuestPasid, _at: EntryPoint) -> Result<Identity, PasidRefused> {
        Err(PasidRefused)
    }

    fn set_pasid_enabled(&self, _enable: PasidEnable) {}

    fn forget_translations(&self) {
        self.container
            .invalidate(self.bdf, GuestScope::All, Cached::InDevices);
    }
}

/// The memory of a device's connection.
struct Maps(Attachment);

impl ClientMemory for Maps {
    fn map(
        &self,
        at: Gpa,
        len_bytes: u64,
        protection: Protection,
        backing: Option<Backing>,
    ) -> Result<(), Errno> {
        ClientMemory::map(self.0.memory(), at, len_bytes, protection, backing)
    }

    fn unmap(&self, at: Gpa, len_bytes: u64) -> Result<(), Errno> {
        self.0.unmap(at, len_bytes).map_err(|error| error.errno())
    }

    fn unmap_all(&self) {
        self.0.unmap_all();
    }
}

/// The unit's interrupts, as writes over the connections of the tenant's devices.
#[derive(Default)]
struct Messages(Mutex<Vec<PeerHandle>>);

impl MessageSignal for Messages {
    fn send(&self, address: u64, data: u32) {
        for peer in self.0.lock().unwrap().iter() {
            if peer
                .write_memory(Gpa::new(address), &data.to_le_bytes())
                .is_ok()
            {
                return;
            }
        }
    }
}

/// Serves one connection to a socket.
fn serve(
    socket: &Path,
    function: Arc<dyn Function>,
    memory: Arc<dyn ClientMemory>,
    connected: impl FnOnce(PeerHandle) + Send + 'static,
) {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let connection = Connection::new(stream, function, memory).unwrap();
        connected(connection.peer());
        connection.run().unwrap();
    });
}

/// Where an engine sleeps.
#[derive(Default)]
struct Bell {
    rings: Mutex<(u64, bool)>,
    rang: Condvar,
}

impl Bell {
    fn stop(&self) {
        self.rings.lock().unwrap().1 = true;
        self.rang.notify_all();
    }
}

impl Doorbell for Bell {
    fn ring(&self) {
        self.rings.lock().unwrap().0 += 1;
        self.rang.notify_all();
    }
}

fn work(mut engine: Engine, bell: &Bell) {
    loop {
        let (before, stopped) = *bell.rings.lock().unwrap();
        if stopped {
            return;
        }
        if engine.run(64) == Progress::Idle {
            let rings = bell.rings.lock().unwrap();
            let same = |rings: &mut (u64, bool)| rings.0 == before && !rings.1;
            drop(bell.rang.wait_while(rings, same).unwrap());
        }
    }
}
