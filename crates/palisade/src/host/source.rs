//! What a tenant's function is made of.

use std::{collections::BTreeMap, sync::Arc};

use palisade_iommu::{Iommu, PasidSupport};
use palisade_mdev::{Assigned, MdevError, Parent, Registry, Shape, Slice, SliceType, Whole};
use palisade_memory::GuestMemory;
use palisade_pci::Function;
use palisade_units::{Bdf, TenantId};
use palisade_vfio::{Attachment, Container, VfioError};

use super::{HostError, bell::Bell, engines::Engines, own::OwnFunction};
use crate::config::{FunctionConfig, FunctionKind, ParentConfig};

/// PASIDs of parents are as wide as the bus allows: `PASID_BITS`.
pub(super) const PASID_WIDTH: PasidSupport = PasidSupport::Width(20);

/// Builds a parent and starts its engines.
pub(super) fn parent(
    iommu: &Iommu,
    config: &ParentConfig,
) -> Result<(Arc<Parent>, Engines), HostError> {
    let function = iommu
        .add_function(config.bdf, PASID_WIDTH)
        .map_err(|source| HostError::Parent {
            parent: config.name.clone(),
            source,
        })?;
    let shape = Shape {
        queues: config.queues,
        engines: config.engines,
        ..Shape::default()
    };
    let bell = Arc::new(Bell::default());
    let parent = Parent::new(&config.name, function, shape, Arc::clone(&bell) as _);
    let engines = (0..config.engines).map(|_| parent.engine());
    let engines = Engines::start(&config.name, bell, engines)?;
    Ok((parent, engines))
}

/// The parents, and the slices that were made of them.
pub(super) struct Sources {
    parents: BTreeMap<String, Arc<Parent>>,
    slices: Registry,
}

/// Where one function comes from. Its part of the parent is free again when this is dropped and, for a slice,
/// [`Sources::remove`] was called before.
pub(crate) enum Source {
    Slice(Arc<Slice>),
    Exclusive(Arc<Whole>),
    Own(OwnFunction),
}

/// A function that a tenant has, until this is dropped: its work ends then, and it is detached.
pub(crate) trait Lease: Send + Sync {
    /// The function, to be served.
    fn function(&self) -> Arc<dyn Function>;

    /// Its place on the host, and the memory of its connection.
    fn attachment(&self) -> &Attachment;
}

impl Lease for Assigned {
    fn function(&self) -> Arc<dyn Function> {
        Self::function(self)
    }

    fn attachment(&self) -> &Attachment {
        Self::attachment(self)
    }
}

/// Why a function cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The part of the parent that it is to have.
    #[error(transparent)]
    Mdev(#[from] MdevError),
    /// The parent.
    #[error("there is no parent {0:?}")]
    NoParent(String),
}

/// Why a function cannot be given to a tenant.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeaseError {
    /// The accelerator's.
    #[error(transparent)]
    Mdev(#[from] MdevError),
    /// The container's.
    #[error(transparent)]
    Vfio(#[from] VfioError),
    /// A function of one's own could not be made.
    #[error("the device cannot be made")]
    Make(#[from] std::io::Error),
}

impl Sources {
    pub(super) fn new(parents: BTreeMap<String, Arc<Parent>>) -> Self {
        Self {
            parents,
            slices: Registry::new(),
        }
    }

    /// Takes what the function is made of from its parent, for this tenant.
    pub(super) fn add(
        &self,
        config: &FunctionConfig,
        tenant: TenantId,
    ) -> Result<Source, WireError> {
        let parent = self
            .parents
            .get(&config.parent)
            .ok_or_else(|| WireError::NoParent(config.parent.clone()))?;
        let slice = |kind| self.slices.create(config.uuid, parent, kind);
        Ok(match config.kind {
            FunctionKind::DedicatedQueue => Source::Slice(slice(SliceType::DedicatedQueue)?),
            FunctionKind::SharedQueue => Source::Slice(slice(SliceType::SharedQueue)?),
            FunctionKind::Exclusive => Source::Exclusive(parent.claim(tenant)?),
        })
    }

    /// Forgets a source that no tenant uses any more.
    pub(super) fn remove(&self, source: &Source) -> Result<(), MdevError> {
        match source {
            Source::Slice(slice) => self.slices.remove(slice.uuid()),
            Source::Exclusive(_) | Source::Own(_) => Ok(()),
        }
    }

    /// The names of the parents.
    pub(super) fn parents(&self) -> impl Iterator<Item = &str> {
        self.parents.keys().map(String::as_str)
    }
}

impl Source {
    /// Gives the function to a tenant, until the result is dropped.
    pub(crate) fn assign(
        &self,
        container: &Container,
        guest_bdf: Bdf,
        memory: GuestMemory,
    ) -> Result<Arc<dyn Lease>, LeaseError> {
        Ok(match self {
            Self::Slice(slice) => Arc::new(slice.assign(container, guest_bdf, memory)?),
            Self::Exclusive(whole) => Arc::new(whole.assign(container, guest_bdf, memory)?),
            Self::Own(own) => Arc::new(own.assign(container, guest_bdf, memory)?),
        })
    }

    /// Which of the parent's queues it has; none where it has all, or there is no parent.
    pub(crate) fn queue(&self) -> Option<u8> {
        match self {
            Self::Slice(slice) => Some(slice.info().queue),
            Self::Exclusive(_) | Self::Own(_) => None,
        }
    }
}
