//! The guest's allocator: allocate, and free what was allocated.

use palisade_ioasid::{IoasidError, PasidRange};
use palisade_units::{GuestPasid, HostPasid};

use crate::{Container, SpaceKey, VfioError};

/// The guest's name for a PASID that its own allocator took: the same number.
pub(crate) fn guest_name(pasid: HostPasid) -> Option<GuestPasid> {
    GuestPasid::new(pasid.get()).ok()
}

impl Container {
    /// Allocates a PASID for the guest and charges the tenant. The guest uses the same number, so one
    /// that it uses for something else already is passed over.
    ///
    /// Nothing can be reached by it before something is bound.
    ///
    /// # Errors
    /// Those of [`PasidSet::alloc`](palisade_ioasid::PasidSet::alloc): EINVAL, ENOSPC.
    pub fn alloc_pasid(&self, range: PasidRange) -> Result<HostPasid, VfioError> {
        let inner = &self.inner;
        let _operation = inner.operation();
        let no_space = IoasidError::NoSpace { range };
        let mut rest = range;
        // Each turn passes one pair of the guest's own, and those are within the quota.
        loop {
            let pasid = inner.set.alloc(rest).map_err(|error| match error {
                IoasidError::NoSpace { .. } => no_space,
                other => other,
            })?;
            let paired = guest_name(pasid).map(|guest| inner.set.attach_guest(guest, pasid));
            if let Some(Ok(())) = paired {
                inner.state().allocated.insert(pasid);
                return Ok(pasid);
            }
            inner.give_back(pasid);
            match paired {
                Some(Err(IoasidError::AlreadyPaired { .. })) if pasid.get() < range.max => {
                    rest.min = pasid.get() + 1;
                }
                Some(Err(error)) if !matches!(error, IoasidError::AlreadyPaired { .. }) => {
                    return Err(error.into());
                }
                _ => return Err(no_space.into()),
            }
        }
    }

    /// Frees a PASID that the guest allocated, by the number that the guest was given. It is unbound from every function first, and nothing
    /// uses it any more when this returns; while mediation holds it, it is not given out again.
    ///
    /// # Errors
    /// ENOENT for one that is not allocated, or that the host took for the tenant by itself; EACCES
    /// for another tenant's.
    pub fn free_pasid(&self, pasid: HostPasid) -> Result<(), VfioError> {
        let inner = &self.inner;
        let _operation = inner.operation();
        if self.free_adopted(pasid) {
            return Ok(());
        }
        inner.check_allocated(pasid)?;
        self.free_allocated(pasid);
        Ok(())
    }

    /// Frees, as [`Container::free_pasid`], what the guest allocated in a range, and says how many
    /// that were. Costs follow what is allocated, whatever the range.
    pub fn free_range(&self, range: PasidRange) -> u32 {
        let _operation = self.inner.operation();
        let owned = {
            let state = self.inner.state();
            let allocated = state.allocated.iter().copied();
            allocated
                .filter(|pasid| (range.min..=range.max).contains(&pasid.get()))
                .collect::<Vec<_>>()
        };
        for pasid in &owned {
            self.free_allocated(*pasid);
        }
        let adopted = self.adopted_within(range);
        for pasid in &adopted {
            self.free_adopted(*pasid);
        }
        u32::try_from(owned.len() + adopted.len()).unwrap_or(u32::MAX)
    }

    /// The caller is in an operation, and the PASID is in `allocated`.
    fn free_allocated(&self, pasid: HostPasid) {
        let inner = &self.inner;
        if let Some(guest) = inner.set.guest_of(pasid) {
            for endpoint in inner.endpoints() {
                inner.release(&endpoint, SpaceKey::Pasid(guest));
            }
        }
        inner.state().allocated.remove(&pasid);
        inner.give_back(pasid);
    }
}
