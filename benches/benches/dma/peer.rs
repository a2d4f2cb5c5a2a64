use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use anyhow::{Context, Result};
use vm_memory::iommu::{Error, IotlbIterator, IovaRange};
use vm_memory::{
    GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryMmap, Iommu, IommuMemory, Iotlb,
    Permissions, VolatileSlice,
};

use crate::Copier;
use crate::layout::{Ground, Job, Layout, PAGE_BYTES, index};

/// All mappings are in the cache from the start, under the lock by which they could be invalidated.
#[derive(Debug)]
struct Filled(RwLock<Iotlb>);

impl Iommu for Filled {
    type IotlbGuard<'a> = RwLockReadGuard<'a, Iotlb>;

    fn translate(
        &self,
        iova: GuestAddress,
        length: usize,
        access: Permissions,
    ) -> Result<IotlbIterator<Self::IotlbGuard<'_>>, Error> {
        let cache = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Iotlb::lookup(cache, iova, length, access).map_err(|_| Error::CannotResolve {
            iova_range: IovaRange { base: iova, length },
            reason: "not mapped".into(),
        })
    }
}

/// Copies within one page through `vm-memory`'s translation.
pub(crate) struct Translated {
    memory: IommuMemory<GuestMemoryMmap<()>, Filled>,
    len: usize,
}

impl Translated {
    pub(crate) fn new(ground: &Ground, layout: &Layout) -> Result<Self> {
        let mut cache = Iotlb::new();
        for (iova, page) in layout.mappings() {
            let (iova, page) = (GuestAddress(iova), GuestAddress(page));
            cache.set_mapping(iova, page, index(PAGE_BYTES), Permissions::ReadWrite)?;
        }
        let iommu = Filled(RwLock::new(cache));
        Ok(Self {
            memory: IommuMemory::new(ground.mapping()?, iommu, true, ()),
            len: index(layout.len_bytes),
        })
    }
}

impl Copier for Translated {
    fn copy(&mut self, trace: &[Job]) -> Result<()> {
        let slice = |at, access| {
            let mut slices = self.memory.get_slices(GuestAddress(at), self.len, access)?;
            anyhow::Ok(slices.next().context("there is no slice")??)
        };
        for job in trace {
            let from = slice(job.from, Permissions::Read)?;
            from.copy_to_volatile_slice(slice(job.to, Permissions::Write)?);
        }
        Ok(())
    }
}

/// Copies between host addresses that are known.
pub(crate) struct Memcpy<'a> {
    memory: &'a GuestMemoryMmap<()>,
    layout: &'a Layout,
    pieces: Vec<(VolatileSlice<'a>, VolatileSlice<'a>)>,
}

impl<'a> Memcpy<'a> {
    pub(crate) fn new(ground: &'a Ground, layout: &'a Layout) -> Self {
        Self {
            memory: ground.mapped(),
            layout,
            pieces: Vec::new(),
        }
    }
}

impl Copier for Memcpy<'_> {
    fn prepare(&mut self, trace: &[Job]) -> Result<()> {
        self.pieces.clear();
        for piece in trace.iter().flat_map(|job| self.layout.pieces(*job)) {
            let slice = |at| {
                let len = index(piece.len_bytes);
                GuestMemoryBackend::get_slice(self.memory, GuestAddress(at), len)
            };
            self.pieces.push((slice(piece.from)?, slice(piece.to)?));
        }
        Ok(())
    }

    fn copy(&mut self, _: &[Job]) -> Result<()> {
        for (from, to) in &self.pieces {
            from.copy_to_volatile_slice(*to);
        }
        Ok(())
    }
}
