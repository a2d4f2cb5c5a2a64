//! Tables with a place for each PASID.

use palisade_units::{HostPasid, PASID_COUNT};
#[cfg(not(loom))]
use zerocopy::FromZeros;

/// How many places a table has: one for each PASID, but a few where every interleaving is run, which
/// begins with a new table each time.
const PLACES: usize = if cfg!(loom) { 16 } else { index(PASID_COUNT) };

/// A table with a place for each PASID. The number is masked, so no bound is checked on the way.
pub(crate) struct ByPasid<T>(Box<[T; PLACES]>);

#[cfg(not(loom))]
impl<T: FromZeros> ByPasid<T> {
    /// Zeroed by the allocator: a page of the table costs nothing before a PASID of it is out.
    pub(crate) fn zeroed() -> Self {
        let table = <[T; PLACES]>::new_box_zeroed();
        let layout = std::alloc::Layout::new::<[T; PLACES]>();
        Self(table.unwrap_or_else(|_| std::alloc::handle_alloc_error(layout)))
    }
}

#[cfg(loom)]
impl<T: Default> ByPasid<T> {
    pub(crate) fn zeroed() -> Self {
        let table: Vec<T> = (0..PLACES).map(|_| T::default()).collect();
        Self(table.try_into().unwrap_or_else(|_| unreachable!()))
    }
}

impl<T> ByPasid<T> {
    pub(crate) fn at(&self, pasid: HostPasid) -> &T {
        &self.0[index(pasid.get()) & (PLACES - 1)]
    }

    pub(crate) fn at_mut(&mut self, pasid: HostPasid) -> &mut T {
        &mut self.0[index(pasid.get()) & (PLACES - 1)]
    }
}

/// A number as an index. A `u32` fits a `usize` wherever std runs with 2^20 PASIDs.
pub(crate) const fn index(number: u32) -> usize {
    number as usize
}
