use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::{MdevError, Parent, Slice, SliceInfo, SliceType};

/// The slices of a host, by UUID.
#[derive(Default)]
pub struct Registry {
    slices: Mutex<BTreeMap<Uuid, Arc<Slice>>>,
}

impl Registry {
    /// A registry without slices.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a slice of a parent. A dedicated queue is taken from the parent until the slice is removed.
    ///
    /// # Errors
    /// [`MdevError::Exists`] (EEXIST), [`MdevError::NoFreeQueue`] (ENOSPC),
    /// [`MdevError::HeldExclusively`] (EBUSY).
    pub fn create(
        &self,
        uuid: Uuid,
        parent: &Arc<Parent>,
        kind: SliceType,
    ) -> Result<Arc<Slice>, MdevError> {
        let mut slices = self.slices();
        if slices.contains_key(&uuid) {
            return Err(MdevError::Exists { uuid });
        }
        let slice = Arc::new(Slice::new(uuid, Arc::clone(parent), kind)?);
        slices.insert(uuid, Arc::clone(&slice));
        Ok(slice)
    }

    /// A slice by name.
    ///
    /// # Errors
    /// [`MdevError::NotFound`] (ENOENT).
    pub fn get(&self, uuid: Uuid) -> Result<Arc<Slice>, MdevError> {
        let found = self.slices().get(&uuid).map(Arc::clone);
        found.ok_or(MdevError::NotFound { uuid })
    }

    /// Removes a slice that no tenant has. Its queue is free once nobody refers to the slice.
    ///
    /// # Errors
    /// [`MdevError::NotFound`] (ENOENT), [`MdevError::InUse`] (EBUSY).
    pub fn remove(&self, uuid: Uuid) -> Result<(), MdevError> {
        let mut slices = self.slices();
        slices
            .get(&uuid)
            .ok_or(MdevError::NotFound { uuid })?
            .remove()?;
        let removed = slices.remove(&uuid);
        drop(slices);
        drop(removed);
        Ok(())
    }

    /// All slices, by UUID.
    #[must_use]
    pub fn list(&self) -> Vec<SliceInfo> {
        self.slices().values().map(|slice| slice.info()).collect()
    }

    fn slices(&self) -> MutexGuard<'_, BTreeMap<Uuid, Arc<Slice>>> {
        self.slices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
