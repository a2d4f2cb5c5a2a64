use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use anyhow::{Context, Result, anyhow};
use vm_memory::iommu::{Error, IotlbIterator, IovaRange};
use vm_memory::{
    Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, Iommu, IommuMemory, Iotlb, Permissions,
    VolatileMemory,
};

use crate::{DATA_BYTES, Layout, PAGE_BYTES, Reader, Reads, sum_by};

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

pub(crate) struct Peer(IommuMemory<GuestMemoryMmap<()>, Filled>);

impl Peer {
    pub(crate) fn new(layout: &Layout) -> Result<Self> {
        let memory = [(GuestAddress(0), usize::try_from(DATA_BYTES)?)];
        let memory = GuestMemoryMmap::<()>::from_ranges(&memory)?;
        for (at, word) in Layout::words() {
            memory.write_obj(word, GuestAddress(at))?;
        }
        let mut cache = Iotlb::new();
        let len_bytes = usize::try_from(PAGE_BYTES)?;
        for (iova, page) in layout.mappings() {
            let (iova, page) = (GuestAddress(iova), GuestAddress(page));
            cache.set_mapping(iova, page, len_bytes, Permissions::ReadWrite)?;
        }
        let iommu = Filled(RwLock::new(cache));
        Ok(Self(IommuMemory::new(memory, iommu, true, ())))
    }
}

impl Reader for Peer {
    fn sum(&mut self, trace: &[u64], reads: Reads) -> Result<u64> {
        sum_by(trace, reads, |at| {
            let mut slices = self.0.get_slices(GuestAddress(at), 8, Permissions::Read)?;
            let slice = slices.next().context("there is no slice")??;
            let word = slice.get_ref::<u64>(0).map_err(|error| anyhow!(error))?;
            Ok(word.load())
        })
    }
}
