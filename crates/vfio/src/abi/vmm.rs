use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use palisade_iommu::{FunctionHandle, Sharing, Sink};
use palisade_memory::{Budget, GuestMemory, Limits};
use palisade_units::Bdf;

use super::iommufd::Iommufd;
use super::{AbiError, Doorbells, Nested, Session, Unit};
use crate::{Abi, Attachment, Container};

/// A function that a VMM may attach.
#[derive(Clone)]
pub struct Offer {
    /// Its place in the guest.
    pub guest_bdf: Bdf,
    /// The function of the host.
    pub function: FunctionHandle,
    /// Whether the VMM has it alone, or a slice of it.
    pub sharing: Sharing,
}

/// Who is told of a VMM's faults and page requests.
#[derive(Clone, Default)]
pub enum FaultDelivery {
    /// Its unit, which the host has, or nobody: the VMM cannot have a ring.
    #[default]
    Elsewhere,
    /// The VMM itself, by a ring, once it has asked for one. This makes the bells.
    ByRing(Arc<dyn Doorbells>),
}

/// What a host lets a VMM have beside PASIDs.
#[derive(Clone, Default)]
pub struct Offers {
    /// The units that its functions are behind.
    pub units: Vec<Unit>,
    /// The functions that it may attach. Others may be attached by the host.
    pub functions: Vec<Offer>,
    /// Who is told of faults.
    pub faults: FaultDelivery,
    /// How much memory it may map; and as much once more into the spaces of its iommufds, all of them together.
    pub memory: Limits,
}

/// One tenant, as all connections of its VMM share it. A handle; clones are of the same tenant.
///
/// When the last [`Session`] goes, everything that they took goes back: every PASID is unbound, drained and freed,
/// and functions and memory that they attached and mapped are gone, before that returns.
#[derive(Clone)]
pub struct Vmm {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) container: Container,
    pub(super) nested: Nested,
    pub(super) offered: Vec<Offer>,
    pub(super) faults: FaultDelivery,
    /// What the functions reach that the VMM attached.
    pub(super) memory: GuestMemory,
    /// How much each space of an iommufd may map.
    pub(super) limits: Limits,
    /// How much all of them may, on all connections.
    pub(super) spaces: Budget,
    /// Those functions.
    attached: Mutex<BTreeMap<Bdf, Arc<Attachment>>>,
    /// Whoever of its connections is told of faults: one at a time.
    told: Mutex<Option<Weak<dyn Sink>>>,
    /// How many sessions there are. Held while the last one cleans up, so that the next begins with nothing.
    sessions: Mutex<usize>,
}

impl Vmm {
    /// A tenant whose functions are behind these units, and are attached by the host.
    #[must_use]
    pub fn new(container: Container, units: &[Unit]) -> Self {
        Self::with(
            container,
            Offers {
                units: units.to_vec(),
                ..Offers::default()
            },
        )
    }

    /// A tenant that may have all this.
    #[must_use]
    pub fn with(container: Container, offers: Offers) -> Self {
        Self {
            inner: Arc::new(Inner {
                container,
                nested: Nested::of(&offers.units),
                offered: offers.functions,
                faults: offers.faults,
                memory: GuestMemory::with_limits(offers.memory),
                limits: offers.memory,
                spaces: Budget::new(offers.memory),
                attached: Mutex::default(),
                told: Mutex::default(),
                sessions: Mutex::default(),
            }),
        }
    }

    /// A connection of this tenant, whose client speaks one of the proposals. It has chosen neither nesting nor
    /// anything else yet.
    #[must_use]
    pub fn connect(&self, abi: Abi) -> Session {
        *locked(&self.inner.sessions) += 1;
        Session::new(self.clone(), abi)
    }

    /// A connection of this tenant whose client speaks of an iommufd's objects. It has none yet.
    #[must_use]
    pub fn connect_iommufd(&self) -> Iommufd {
        *locked(&self.inner.sessions) += 1;
        Iommufd::new(self.clone())
    }
}

/// Takes a lock, also after a panic of another holder: what they guard is consistent between statements.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    /// The functions that the VMM attached.
    pub(super) fn attached(&self) -> MutexGuard<'_, BTreeMap<Bdf, Arc<Attachment>>> {
        locked(&self.attached)
    }

    /// Makes every function that reaches the VMM's memory forget how, after memory was removed.
    pub(super) fn forget(&self) {
        let attached: Vec<_> = self.attached().values().map(Arc::clone).collect();
        for function in attached {
            function.forget();
        }
    }

    /// Where an eventfd or a file of a client becomes something that it is told by.
    pub(super) fn doorbells(&self) -> Result<&dyn Doorbells, AbiError> {
        match &self.faults {
            FaultDelivery::ByRing(doorbells) => Ok(&**doorbells),
            FaultDelivery::Elsewhere => Err(AbiError::NotOffered("telling of faults")),
        }
    }

    /// Has faults told to this sink, which `make` makes, unless another one is there that is told of them.
    pub(super) fn tell<S: Sink + 'static>(
        &self,
        make: impl FnOnce() -> Result<Arc<S>, AbiError>,
    ) -> Result<(), AbiError> {
        let mut told = locked(&self.told);
        if told.as_ref().is_some_and(|sink| sink.strong_count() > 0) {
            return Err(AbiError::HasRing);
        }
        let sink: Arc<dyn Sink> = make()?;
        *told = Some(Arc::downgrade(&sink));
        self.container.set_sink(sink);
        Ok(())
    }

    /// A session has gone.
    pub(super) fn leave(&self) {
        let mut sessions = locked(&self.sessions);
        *sessions = sessions.saturating_sub(1);
        if *sessions > 0 {
            return;
        }
        let attached = std::mem::take(&mut *self.attached());
        for function in attached.into_values() {
            function.detach();
        }
        self.container.close();
        self.memory.unmap_all();
    }
}

impl std::fmt::Debug for Vmm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vmm({:?})", self.inner.container)
    }
}
