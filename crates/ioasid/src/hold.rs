use std::sync::Arc;

use palisade_units::{Bdf, HostPasid, TenantId};

use crate::authority::Shared;
use crate::{Errno, IoasidError, Request};

/// A counted reference to a PASID of one tenant. While one lives, the number is not given out again.
///
/// A clone is one more reference, allowed on a free-pending PASID too: what is in use may be passed
/// on until it is clear. Dropping gives the reference back.
pub struct Hold {
    shared: Arc<Shared>,
    pasid: HostPasid,
    tenant: TenantId,
    counted: Counted,
}

/// Whether a hold's reference is still to be given back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counted {
    Yes,
    No,
}

/// What giving a reference back left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It was the last.
    Last,
    /// The PASID is held still.
    OthersRemain,
}

impl Hold {
    /// Takes over a reference that was counted already.
    pub(crate) fn adopt(shared: Arc<Shared>, pasid: HostPasid, tenant: TenantId) -> Self {
        Self {
            shared,
            pasid,
            tenant,
            counted: Counted::Yes,
        }
    }

    /// The PASID that is held.
    #[must_use]
    pub const fn pasid(&self) -> HostPasid {
        self.pasid
    }

    /// Whose PASID it is.
    #[must_use]
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Gives the reference back and says whether it was the last.
    #[must_use = "drop the hold where the answer does not matter"]
    pub fn put(mut self) -> Put {
        self.give_back()
    }

    fn give_back(&mut self) -> Put {
        if std::mem::replace(&mut self.counted, Counted::No) == Counted::No {
            return Put::Last;
        }
        self.shared.with(|state| state.put(self.pasid))
    }

    /// Says that an entry for the PASID is in the table of a function. The mark lives as long as the
    /// entry, and holds the PASID like the entry itself. Replace an entry's mark by making the new one
    /// before the old one goes: the PASID is then never unbound in between.
    ///
    /// # Errors
    /// [`IoasidError::FreePending`] (EBUSY) once the PASID was freed.
    pub fn bind(&self, place: Bdf) -> Result<BindMark, IoasidError> {
        let pasid = self.pasid;
        let mut held = Some(self.clone());
        let mut mark = None;
        self.shared.ask(self.tenant, Request::Bind, |state| {
            state.bound(pasid, place)?;
            // There before listeners are told: should one of them panic, it ends the entry.
            mark = held.take().map(|hold| BindMark { hold, place });
            Ok(())
        })?;
        mark.ok_or(IoasidError::FreePending { pasid })
    }

    /// Notes that the platform refused an entry for the PASID in the table of a function. What
    /// [`Hold::bind`] refuses is noted by itself.
    pub fn bind_refused(&self, place: Bdf, errno: Errno) {
        self.shared
            .with(|state| state.bind_refused(self.pasid, place, errno));
    }
}

/// The word that an entry for a PASID is in the table of a function. Dropping it says that the entry
/// is gone.
#[derive(Debug)]
pub struct BindMark {
    hold: Hold,
    place: Bdf,
}

impl BindMark {
    /// The reference that the entry has.
    #[must_use]
    pub const fn hold(&self) -> &Hold {
        &self.hold
    }

    /// The function in whose table the entry is.
    #[must_use]
    pub const fn place(&self) -> Bdf {
        self.place
    }
}

impl Drop for BindMark {
    fn drop(&mut self) {
        let Hold { shared, pasid, .. } = &self.hold;
        shared.with(|state| state.unbound(*pasid, self.place));
    }
}

impl Clone for Hold {
    fn clone(&self) -> Self {
        self.shared.with(|state| state.get_again(self.pasid));
        Self::adopt(Arc::clone(&self.shared), self.pasid, self.tenant)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hold({} of {})", self.pasid, self.tenant)
    }
}
