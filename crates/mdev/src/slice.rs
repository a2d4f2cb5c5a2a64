use core::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use palisade_dsa::{DsaFunction, Switch};
use palisade_iommu::Sharing;
use palisade_memory::GuestMemory;
use palisade_units::{Bdf, TenantId};
use palisade_vfio::Container;
use uuid::Uuid;

use crate::{Assigned, MdevError, Mediation, Parent};

/// What a slice is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SliceType {
    /// A queue of the parent that is nobody else's; the driver may use it dedicated or shared.
    DedicatedQueue,
    /// A share of a queue that other slices use too, in turns; the driver uses it as a shared one.
    SharedQueue,
}

impl SliceType {
    /// Both.
    pub const ALL: [Self; 2] = [Self::DedicatedQueue, Self::SharedQueue];

    /// The name in configurations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DedicatedQueue => "dedicated-queue",
            Self::SharedQueue => "shared-queue",
        }
    }
}

impl fmt::Display for SliceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no type of slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a type of slice: write dedicated-queue or shared-queue")]
pub struct UnknownSliceType;

impl FromStr for SliceType {
    type Err = UnknownSliceType;

    fn from_str(text: &str) -> Result<Self, UnknownSliceType> {
        let named = Self::ALL.into_iter().find(|kind| kind.name() == text);
        named.ok_or(UnknownSliceType)
    }
}

/// A slice of a parent, whether a tenant has it or not.
pub struct Slice {
    uuid: Uuid,
    parent: Arc<Parent>,
    kind: SliceType,
    queue: u8,
    holder: Mutex<Holder>,
}

/// Who has a slice.
#[derive(Clone, Copy, Default)]
pub(crate) enum Holder {
    #[default]
    Nobody,
    Tenant(TenantId),
    /// It is in no registry any more, and nobody gets it.
    Removed,
}

/// What there is to know of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceInfo {
    /// Its name.
    pub uuid: Uuid,
    /// Its parent's name.
    pub parent: String,
    /// What it is made of.
    pub kind: SliceType,
    /// The queue of the parent.
    pub queue: u8,
    /// Who has it.
    pub holder: Option<TenantId>,
}

impl Slice {
    pub(crate) fn new(uuid: Uuid, parent: Arc<Parent>, kind: SliceType) -> Result<Self, MdevError> {
        let queue = parent.reserve(uuid, kind)?;
        Ok(Self {
            uuid,
            parent,
            kind,
            queue,
            holder: Mutex::default(),
        })
    }

    /// Its name.
    #[must_use]
    pub const fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// Its parent.
    #[must_use]
    pub const fn parent(&self) -> &Arc<Parent> {
        &self.parent
    }

    /// What there is to know of it.
    #[must_use]
    pub fn info(&self) -> SliceInfo {
        SliceInfo {
            uuid: self.uuid,
            parent: self.parent.name().to_owned(),
            kind: self.kind,
            queue: self.queue,
            holder: match *self.holder() {
                Holder::Tenant(tenant) => Some(tenant),
                Holder::Nobody | Holder::Removed => None,
            },
        }
    }

    /// Gives the slice to a tenant, at a place in its guest. `memory` is what its connection will share.
    ///
    /// # Errors
    /// [`MdevError::InUse`] (EBUSY), whoever has it; [`MdevError::NotFound`] once it was removed; those of [`Container::attach`].
    pub fn assign(
        self: &Arc<Self>,
        container: &Container,
        guest_bdf: Bdf,
        memory: GuestMemory,
    ) -> Result<Assigned, MdevError> {
        let in_use = InUse::take(self, container.set().tenant())?;
        let parent = self.parent.function().clone();
        let attachment = container.attach(guest_bdf, parent, Sharing::Mediated, memory)?;
        let lane = self.parent.accelerator().lane(self.queue)?;
        let policy = Mediation::new(container.clone(), guest_bdf, self.parent.log());
        let dedicated = match self.kind {
            SliceType::DedicatedQueue => Switch::On,
            SliceType::SharedQueue => Switch::Off,
        };
        let shape = self.parent.function_shape(dedicated, Switch::On);
        let function = Arc::new(DsaFunction::new(policy, vec![lane], shape)?);
        Ok(Assigned::new(function, attachment, in_use))
    }

    /// Takes the slice out of use for good.
    pub(crate) fn remove(&self) -> Result<(), MdevError> {
        self.pass_to(Holder::Removed)
    }

    /// From nobody.
    fn pass_to(&self, next: Holder) -> Result<(), MdevError> {
        let mut holder = self.holder();
        match *holder {
            Holder::Nobody => *holder = next,
            Holder::Tenant(holder) => {
                return Err(MdevError::InUse {
                    uuid: self.uuid,
                    holder,
                });
            }
            Holder::Removed => return Err(MdevError::NotFound { uuid: self.uuid }),
        }
        Ok(())
    }

    fn holder(&self) -> MutexGuard<'_, Holder> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        self.parent.release(self.queue, self.uuid);
    }
}

/// A tenant's use of a slice, until dropped.
struct InUse {
    slice: Arc<Slice>,
}

impl InUse {
    fn take(slice: &Arc<Slice>, tenant: TenantId) -> Result<Self, MdevError> {
        slice.pass_to(Holder::Tenant(tenant))?;
        Ok(Self {
            slice: Arc::clone(slice),
        })
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        *self.slice.holder() = Holder::Nobody;
    }
}
