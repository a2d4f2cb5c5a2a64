//! Allocators that choose the numbers in place of the authority (R46).

use std::collections::HashMap;
use std::sync::Arc;

use palisade_units::HostPasid;

use crate::{IoasidError, PasidRange};

/// What an allocator of one's own does. One value of this may serve several allocators, told apart by
/// their [`Instance`]: they give out numbers of one space, and any of them takes back what another gave.
///
/// The authority is not locked during a call, nor when the value is dropped. A number that the authority has out is refused and goes
/// straight back.
pub trait Operations: Send + Sync {
    /// Chooses a number in a range, or says that there is none.
    fn alloc(&self, instance: Instance, range: PasidRange) -> Option<HostPasid>;

    /// Takes a number back. The authority has it out no more.
    fn free(&self, instance: Instance, pasid: HostPasid);
}

/// Which of the allocators with the same operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance(pub u64);

/// An allocator to register. Two are the same when operations (the same value) and instance are.
#[derive(Clone)]
pub struct CustomAllocator {
    /// What it does.
    pub operations: Arc<dyn Operations>,
    /// Which one it is of those with these operations.
    pub instance: Instance,
}

impl CustomAllocator {
    fn shares_space_with(&self, operations: &Arc<dyn Operations>) -> bool {
        Arc::ptr_eq(&self.operations, operations)
    }

    fn is(&self, other: &Self) -> bool {
        self.shares_space_with(&other.operations) && self.instance == other.instance
    }

    pub(crate) fn alloc(&self, range: PasidRange) -> Option<HostPasid> {
        self.operations.alloc(self.instance, range)
    }

    pub(crate) fn free(&self, pasid: HostPasid) {
        self.operations.free(self.instance, pasid);
    }
}

impl std::fmt::Debug for CustomAllocator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CustomAllocator({:?})", self.instance)
    }
}

/// A number on its way back to the allocators of the space that it is from.
pub(crate) struct Return {
    pasid: HostPasid,
    /// Who takes it back: nobody where none of its space is registered any more.
    taker: Option<Instance>,
    /// Goes along in either case: this may be all that keeps them, and their end may use the authority.
    operations: Arc<dyn Operations>,
}

impl Return {
    /// The authority is not locked.
    pub(crate) fn deliver(self) {
        if let Some(taker) = self.taker {
            self.operations.free(taker, self.pasid);
        }
    }
}

/// The registered allocators, and whose space each number of theirs is from.
#[derive(Default)]
pub(crate) struct Customs {
    /// The first is the active one.
    registered: Vec<CustomAllocator>,
    chosen: HashMap<HostPasid, Arc<dyn Operations>>,
}

impl Customs {
    /// `outstanding` is how many PASIDs are out, whoever chose them.
    pub(crate) fn register(
        &mut self,
        allocator: &CustomAllocator,
        outstanding: u32,
    ) -> Result<(), IoasidError> {
        if self.registered.iter().any(|other| other.is(allocator)) {
            return Err(IoasidError::AllocatorExists);
        }
        let chosen = u32::try_from(self.chosen.len()).unwrap_or(u32::MAX);
        let by_default = outstanding.saturating_sub(chosen);
        if by_default > 0 {
            return Err(IoasidError::DefaultAllocatorBusy {
                outstanding: by_default,
            });
        }
        self.registered.push(allocator.clone());
        Ok(())
    }

    pub(crate) fn unregister(&mut self, allocator: &CustomAllocator) -> Result<(), IoasidError> {
        let mut registered = self.registered.iter();
        let at = registered.position(|other| other.is(allocator));
        self.registered
            .remove(at.ok_or(IoasidError::AllocatorNotFound)?);
        Ok(())
    }

    pub(crate) fn is_none(&self) -> bool {
        self.registered.is_empty()
    }

    pub(crate) fn active(&self) -> Option<CustomAllocator> {
        self.registered.first().cloned()
    }

    pub(crate) fn took(&mut self, pasid: HostPasid, allocator: &CustomAllocator) {
        self.chosen.insert(pasid, Arc::clone(&allocator.operations));
    }

    /// What is to be done for a number that is free, if an allocator chose it.
    pub(crate) fn gone(&mut self, pasid: HostPasid) -> Option<Return> {
        if self.chosen.is_empty() {
            return None;
        }
        let operations = self.chosen.remove(&pasid)?;
        let mut registered = self.registered.iter();
        let taker = registered.find(|one| one.shares_space_with(&operations));
        Some(Return {
            pasid,
            taker: taker.map(|one| one.instance),
            operations,
        })
    }
}
