use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use palisade_dsa::{Accelerator, Doorbell, Engine, Lane, MAX_QUEUES, NoSuchQueue, Switch};
use palisade_iommu::FunctionHandle;
use palisade_memory::GuestMemory;
use palisade_units::{Bdf, TenantId};
use palisade_vfio::Container;
use uuid::Uuid;

use crate::{Assigned, ForwardedLog, MdevError, SliceType, Whole};

/// How many slices share a queue before another queue is taken, where one is free.
const SHARES: usize = 8;

/// The shape of an accelerator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many work queues it has: 1 to 64.
    pub queues: u8,
    /// How many engines drivers see: 1 to 64. How many run is the host's business.
    pub engines: u8,
    /// How many descriptors the queues of one function, a slice among them, hold together.
    pub total_size: u16,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            queues: 8,
            engines: 4,
            total_size: 1024,
        }
    }
}

/// What a queue of a parent is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueUse {
    /// Nothing.
    Free,
    /// One slice has it for itself.
    Dedicated(Uuid),
    /// Slices share it.
    Shared(BTreeSet<Uuid>),
}

impl QueueUse {
    fn slices(&self) -> impl Iterator<Item = Uuid> {
        let (one, several) = match self {
            Self::Free => (None, None),
            Self::Dedicated(uuid) => (Some(*uuid), None),
            Self::Shared(slices) => (None, Some(slices)),
        };
        one.into_iter()
            .chain(several.into_iter().flatten().copied())
    }
}

/// An accelerator with its function on the host's bus, for one tenant or for several.
pub struct Parent {
    name: String,
    function: FunctionHandle,
    accelerator: Accelerator,
    shape: Shape,
    log: Arc<ForwardedLog>,
    state: Mutex<State>,
}

struct State {
    exclusive: Option<TenantId>,
    queues: Vec<QueueUse>,
}

impl Parent {
    /// A parent. `doorbell` tells whoever runs its engines that there is something to do.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        function: FunctionHandle,
        shape: Shape,
        doorbell: Arc<dyn Doorbell>,
    ) -> Arc<Self> {
        let queues = shape.queues.clamp(1, MAX_QUEUES);
        Arc::new(Self {
            name: name.into(),
            function,
            accelerator: Accelerator::new(queues, doorbell),
            shape: Shape { queues, ..shape },
            log: Arc::default(),
            state: Mutex::new(State {
                exclusive: None,
                queues: vec![QueueUse::Free; queues.into()],
            }),
        })
    }

    /// Its name, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its function on the host's bus.
    #[must_use]
    pub const fn function(&self) -> &FunctionHandle {
        &self.function
    }

    /// The accelerator.
    #[must_use]
    pub const fn accelerator(&self) -> &Accelerator {
        &self.accelerator
    }

    /// An engine with a port of its own.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.accelerator.engine(self.function.port())
    }

    /// What was forwarded to it.
    #[must_use]
    pub fn forwarded(&self) -> &ForwardedLog {
        &self.log
    }

    /// What its queues are for.
    #[must_use]
    pub fn queues(&self) -> Vec<QueueUse> {
        self.state().queues.clone()
    }

    /// For whom all of it is set aside.
    #[must_use]
    pub fn exclusive_holder(&self) -> Option<TenantId> {
        self.state().exclusive
    }

    /// Sets the whole function aside for a tenant, until the result is dropped.
    ///
    /// # Errors
    /// [`MdevError::HeldExclusively`] or [`MdevError::Sliced`] (EBUSY).
    pub fn claim(self: &Arc<Self>, tenant: TenantId) -> Result<Arc<Whole>, MdevError> {
        let mut state = self.state();
        if let Some(holder) = state.exclusive {
            let parent = self.name.clone();
            return Err(MdevError::HeldExclusively { parent, holder });
        }
        let slices: Vec<Uuid> = state.queues.iter().flat_map(QueueUse::slices).collect();
        if let Some(uuid) = slices.first().copied() {
            return Err(MdevError::Sliced {
                parent: self.name.clone(),
                slices: slices.len(),
                uuid,
            });
        }
        state.exclusive = Some(tenant);
        drop(state);
        Ok(Whole::of_claimed(Arc::clone(self), tenant))
    }

    /// Sets the whole function aside for a tenant and gives it to it at once. `memory` is what its
    /// connection will share.
    ///
    /// # Errors
    /// Those of [`Parent::claim`] and of [`Whole::assign`].
    pub fn exclusive(
        self: &Arc<Self>,
        container: &Container,
        guest_bdf: Bdf,
        memory: GuestMemory,
    ) -> Result<Assigned, MdevError> {
        let whole = self.claim(container.set().tenant())?;
        whole.assign(container, guest_bdf, memory)
    }

    /// The parent is nobody's any more.
    pub(crate) fn end_claim(&self) {
        self.state().exclusive = None;
    }

    /// A way in to each queue.
    pub(crate) fn lanes(&self) -> Result<Vec<Lane>, NoSuchQueue> {
        let lanes = (0..self.shape.queues).map(|queue| self.accelerator.lane(queue));
        lanes.collect()
    }

    pub(crate) fn log(&self) -> Arc<ForwardedLog> {
        Arc::clone(&self.log)
    }

    pub(crate) fn function_shape(&self, dedicated: Switch, shared: Switch) -> palisade_dsa::Shape {
        palisade_dsa::Shape {
            dedicated,
            shared,
            total_size: self.shape.total_size,
            engines: self.shape.engines,
            ..palisade_dsa::Shape::default()
        }
    }

    /// Finds a queue for a slice.
    pub(crate) fn reserve(&self, uuid: Uuid, kind: SliceType) -> Result<u8, MdevError> {
        let mut state = self.state();
        if let Some(holder) = state.exclusive {
            let parent = self.name.clone();
            return Err(MdevError::HeldExclusively { parent, holder });
        }
        let free = state
            .queues
            .iter()
            .position(|queue| *queue == QueueUse::Free);
        let shared = state.least_shared();
        let found = match (kind, shared) {
            (SliceType::DedicatedQueue, _) | (SliceType::SharedQueue, None) => free,
            (SliceType::SharedQueue, Some((queue, shares))) if shares < SHARES => Some(queue),
            (SliceType::SharedQueue, Some((queue, _))) => free.or(Some(queue)),
        };
        let Some((index, place)) =
            found.and_then(|index| Some((index, state.queues.get_mut(index)?)))
        else {
            let parent = self.name.clone();
            return Err(MdevError::NoFreeQueue {
                parent,
                queues: self.shape.queues,
            });
        };
        match (kind, place) {
            (SliceType::DedicatedQueue, place) => *place = QueueUse::Dedicated(uuid),
            (SliceType::SharedQueue, QueueUse::Shared(slices)) => {
                slices.insert(uuid);
            }
            (SliceType::SharedQueue, place) => *place = QueueUse::Shared(BTreeSet::from([uuid])),
        }
        Ok(u8::try_from(index).unwrap_or(MAX_QUEUES))
    }

    /// Takes a slice's queue back.
    pub(crate) fn release(&self, queue: u8, uuid: Uuid) {
        let mut state = self.state();
        let Some(place) = state.queues.get_mut(usize::from(queue)) else {
            return;
        };
        let empty = match place {
            QueueUse::Free => true,
            QueueUse::Dedicated(owner) => *owner == uuid,
            QueueUse::Shared(slices) => {
                slices.remove(&uuid);
                slices.is_empty()
            }
        };
        if empty {
            *place = QueueUse::Free;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The shared queue with the fewest slices, and how many those are.
    fn least_shared(&self) -> Option<(usize, usize)> {
        let shared = self
            .queues
            .iter()
            .enumerate()
            .filter_map(|(index, queue)| match queue {
                QueueUse::Shared(slices) => Some((index, slices.len())),
                _ => None,
            });
        shared.min_by_key(|(_, shares)| *shares)
    }
}
